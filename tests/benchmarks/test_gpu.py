"""What a card is asked in ten minutes, asked of a CPU."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import gpu
from benchmarks.measuring import Findings, Found
from picowatch.recipe.samplers import SAMPLERS
from tests.benchmarks.scripts import SECONDS, benchmark


def found_in(folder: Path, name: str) -> dict[str, Any]:
    """What a part wrote."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def test_a_part_works_without_a_card(tmp_path: Path) -> None:
    """The demo model by every sampler, and what was left out."""
    result = benchmark(
        "gpu", "--minutes", "2", "--device", "cpu", "--out", tmp_path, "--parts", "demo"
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = found_in(tmp_path, "demo")
    assert found["ended"] == "well" and found["finished"]
    assert "waits" in found["skipped"]
    done = {name for name in found if "of 255 from the CPU" in str(found[name])}
    assert done | set(found["skipped"]) >= {sampler.name for sampler in SAMPLERS}
    assert all(found[name]["of 255 from the CPU"] == 0 for name in done)


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_all_parts_work_without_a_card(tmp_path: Path) -> None:
    """Each writes its own file."""
    result = benchmark("gpu", "--minutes", "12", "--device", "cpu", "--out", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(found_in(tmp_path, name)["ended"] == "well" for name in gpu.PARTS)
    assert "SIGKILL" in str(found_in(tmp_path, "killed")["killed"])
    assert found_in(tmp_path, "sdxl")["batch 1"]["of 255 apart, in the mean"] == 0


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
