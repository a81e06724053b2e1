"""The scripts in benchmarks/, with as little of everything as shows that they work."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import daemon, gpu, pngs
from benchmarks.measuring import compared
from benchmarks.parts import Findings, Found
from picowatch.recipe.samplers import SAMPLERS
from tests.commands.picowatch import PROJECT, clean_environment

SECONDS = 900  # on a busy machine


def benchmark(name: str, *arguments: str | Path) -> str:
    """Run a script as people run it, with one thread for each process; return what it prints."""
    result = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        cwd=PROJECT,
        env=clean_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_picowatch_is_measured_beside_a_diffusers_script() -> None:
    shown = benchmark("cpu", "--small", "--rounds", "1")
    for row in (
        "3 demo pictures, 2 steps, through the folder, each, warm",
        "3 demo pictures, 2 steps, through the folder, each, start-up included",
        "the demo model, 64x64, a step with guidance",
        "the demo model, 64x64, peak memory",
        "one demo picture from the start of the program",
    ):
        assert f"\n| {row} | " in shown
    apart = re.search(r"\| the pictures differ, .*? \| ([\d.e-]+) \|", shown)
    assert apart and float(apart[1]) < 1


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_pngs_are_measured_beside_other_options() -> None:
    shown = benchmark("pngs", "--rounds", "1", "--others", "compress_level=1")
    rows = [line for line in shown.splitlines() if re.search(r"\| [\d.]+ % \|$", line)]
    assert len(rows) == len(pngs.pictures())


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_the_daemon_is_measured_beside_another_checkout_s() -> None:
    shown = benchmark("daemon", "--scale", "0.004", "--rounds", "1", "--other", PROJECT)
    rows = [line.split(" | ") for line in shown.splitlines() if line.startswith("| ")]
    assert {row[0].removeprefix("| ").partition(":")[0] for row in rows} == set(daemon.MEASURED)
    assert all(len(row) == 4 for row in rows)


def test_a_row_has_the_ratio_of_each_round() -> None:
    """Not of the medians: what slowed both in a round says nothing."""
    assert compared("a", [1.0, 10.0, 2.0], [2.0, 40.0, 3.0]) == "| a | 2 s | 3 s | 2 (1.5 to 4) |"
    assert compared("a", [1000.0], [1500.0], unit="MiB") == "| a | 1,000 MiB | 1,500 MiB | 1.5 |"


def found_in(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_what_a_card_is_asked_is_asked_of_a_cpu(tmp_path: Path) -> None:
    """Each part writes its own file; the demo model draws by every sampler that has time."""
    benchmark("gpu", "--minutes", "12", "--device", "cpu", "--out", tmp_path)
    assert all(found_in(tmp_path, name)["ended"] == "well" for name in gpu.PARTS)
    assert "SIGKILL" in str(found_in(tmp_path, "killed")["killed"])
    # Of random weights; on some processors one number in ten thousand is rounded otherwise.
    assert found_in(tmp_path, "sdxl")["batch 1"]["of 255 apart, in the mean"] < 0.001
    found = found_in(tmp_path, "demo")
    assert found["finished"]
    assert "waits" in found["skipped"]
    done = {name for name in found if "of 255 from the CPU" in str(found[name])}
    assert done | set(found["skipped"]) >= {sampler.name for sampler in SAMPLERS}
    assert all(found[name]["of 255 from the CPU"] == 0 for name in done)


def test_what_was_found_is_kept_when_the_next_one_fails(tmp_path: Path) -> None:
    """With the error and its place; what comes after it is found, too."""
    findings = Findings(tmp_path / "part.json", 60)

    def fail() -> Found:
        raise ValueError("no such card")

    findings.measure({"one": lambda: {"steps": 3}, "two": fail, "three": lambda: {"steps": 4}})
    found = found_in(tmp_path, "part")
    assert (found["one"], found["three"]) == ({"steps": 3}, {"steps": 4})
    assert found["two"]["error"] == "ValueError('no such card')"
    assert "in fail" in str(found["two"]["from"])
    assert findings.failed
