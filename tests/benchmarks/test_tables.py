"""The scripts that measure the tables, with as little of everything as shows that they work."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import card_goals
from benchmarks.card import GOALS, PARTS, Findings
from benchmarks.card_goals import MET, MISSED, NO_CARD, NOT_MEASURED
from benchmarks.measuring import RESULTS, Section
from benchmarks.plan import Plan, Row, measure_all
from picowatch.recipe.samplers import SAMPLERS
from tests.commands.picowatch import PROJECT, clean_environment
from tests.kinds import one_of_each_kind

SECONDS = 900  # on a busy machine


def benchmark(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """One thread each: peers' threads spin as libgomp lets them, which slows other tests."""
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        cwd=PROJECT,
        env=clean_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def measured(results: Path, result: "subprocess.CompletedProcess[str]") -> list[str]:
    """What the lines of the written table are about; none may have failed."""
    assert result.returncode == 0, result.stdout + result.stderr
    text = results.read_text()
    assert "not measured" not in text
    return [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if "|" in line]


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_the_gpu_table_is_measured_on_a_cpu(tmp_path: Path) -> None:
    """Every row; and nothing of it gets into RESULTS.md."""
    before, results = RESULTS.read_bytes(), tmp_path / "gpu.md"
    small = ("--device", "cpu", "--size", "64", "--steps", "2", "--pictures", "3")
    result = benchmark("gpu", *small, "--checkpoint", "demo", "--rounds", "1", "--results", results)
    lines = measured(results, result)
    for start in (
        "a step at 64x64, batch 1, DPM++ 2M Karras, CFG 7.5: steps a second",
        "a step at 64x64, batch 1, DPM++ 2M Karras, CFG 7.5",
        "full queue of 3, 64x64, 2 steps, recipes to PNGs: pictures a second",
        "matrix products in bfloat16",
        "peak memory at 64x64, batch 1, memory: full",
        "peak memory at 64x64, batch 1, memory: low",
        "first picture after the start: the demo model, 64x64, 2 steps",
        "switching to another checkpoint",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)
    # Whether the first batch waits for all three is a matter of milliseconds.
    assert re.search(r"picowatch's last queue: \d in batch \d, float32, eager", results.read_text())
    assert RESULTS.read_bytes() == before


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_ten_minutes_on_a_card_work_without_one(tmp_path: Path) -> None:
    """Every part, each with its own file."""
    result = benchmark("gpu", "--minutes", "14", "--device", "cpu", "--out", tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    found = {part.name: json.loads((tmp_path / f"{part.name}.json").read_text()) for part in PARTS}
    assert all(each["finished"] and not each["ended"] for each in found.values())
    assert any("picture" in line for line in found["versions"]["doctor"])
    assert "does not have enough memory" in " ".join(found["failures"]["memory"]["said"])
    assert set(found["demo"]["samplers"]) == {sampler.name for sampler in SAMPLERS}
    assert found["demo"]["plain"]["of 255 from the CPU"] == 0
    assert found["folder"]["exit status"] == 0
    assert found["unet"]["eager NHWC"]["1"]["steps a second"] > 0
    assert found["pictures"]["4 GB"]["8"] == "full"
    reached = [line.rsplit(" | ", 1)[1] for line in (tmp_path / GOALS).read_text().splitlines()]
    # Batches of 16 are for a card.
    assert reached == [NO_CARD, NO_CARD, NOT_MEASURED, NO_CARD, NO_CARD, NO_CARD]


def test_each_goal_is_told_as_met_missed_or_not_measured(tmp_path: Path) -> None:
    """Whatever the parts came to: a graph may have failed, a part may be cut off."""
    (tmp_path / "unet.json").write_text(json.dumps({
        "eager NCHW": {"1": {"steps a second": 50.0}, "16": {"steps a second": 10.0}},
        "ours": {"eager": {"1": {"steps a second": 60.0}, "16": {"steps a second": 14.0}},
                 "graph": {"1": {"steps a second": 120.5}, "16": "OutOfMemoryError: no memory"}},
    }))  # fmt: skip
    levels = {"1": "full", "8": "failed: The GPU does not have enough memory."}
    pictures = {"1": {"peak GB": 3.5}, "4 GB": levels}
    (tmp_path / "pictures.json").write_text(json.dumps(pictures))
    rows = card_goals.rows(tmp_path, on_card=True)
    assert [(row.measured, row.reached) for row in rows] == [
        ("120", MET),
        ("2.41", MET),
        ("1.4", MISSED),
        ("", NOT_MEASURED),
        ("3.5", MET),
        ("1: full, 8: failed: The GPU does not have enough memory.", MISSED),
    ]


def test_a_part_that_is_cut_off_tells_what_it_found(tmp_path: Path) -> None:
    """And the next ones are told apart from those that failed."""
    findings = Findings(tmp_path / "a.json")
    findings.add("one/two", 3)
    assert json.loads((tmp_path / "a.json").read_text())["one"] == {"two": 3}
    result = benchmark("gpu", "--minutes", "0.0001", "--rows", "vae,unet", "--device", "cpu",
                       "--out", tmp_path)  # fmt: skip
    assert result.returncode == 1
    said = [line.split(maxsplit=1) for line in result.stdout.splitlines()[:2]]
    assert [part for part, _ in said] == ["unet", "vae"]
    assert all(why in ("no time left", "cut off after 0 s") for _, why in said)


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_the_cpu_table_is_measured(tmp_path: Path) -> None:
    """Every row that the GPU's table does not have, too."""
    results = tmp_path / "cpu.md"
    rows = "folder,full,cpp,xl,xlcpp,waiting,flat,idle"
    result = benchmark("cpu", "--small", "--rounds", "1", "--rows", rows, "--results", results)
    lines = measured(results, result)
    assert len([line for line in lines if line.startswith("3 demo pictures")]) == 2
    assert len([line for line in lines if line.startswith("a picture's ")]) == 2
    assert len([line for line in lines if line.startswith("a tiny Stable Diffusion XL")]) == 2
    for start in ("30 recipes accepted", "save to first step while", "idle daemon", "`picowatch"):
        assert any(line.startswith(start) for line in lines), (start, lines)
    likeness = re.search(r"Both made the same pictures: .* the worst by ([\d.e-]+)\.$",
                         results.read_text(), re.MULTILINE)  # fmt: skip
    assert likeness and float(likeness[1]) < 1


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_several_engines_are_measured(tmp_path: Path) -> None:
    """All but Ray's row, which takes as long as a cluster's start."""
    results = tmp_path / "scale.md"
    rows = "cores,sharing,publishing"
    result = benchmark("scale", "--small", "--rows", rows, "--results", results)
    lines = measured(results, result)
    for start in (
        "4 demo pictures, seconds each: two engines",
        "which batch of 8 is next for one of 64 engines",
        "pictures of 512x512 that one daemon publishes, of engines that take no time: 8",
    ):
        assert any(line.startswith(start) for line in lines), (start, lines)


@pytest.mark.parametrize(
    ("name", "arguments"),
    one_of_each_kind(
        [("gpu", ["--device", "cpu"]), ("cpu", ["--small"]), ("scale", ["--small"])],
        [("gpu", ["--device", "cpu"])],
    ),
)
def test_figures_of_a_cpu_need_a_file_of_their_own(name: str, arguments: list[str]) -> None:
    """RESULTS.md is for what was measured in earnest."""
    result = benchmark(name, *arguments)
    assert result.returncode == 2
    assert "--results" in result.stderr


def test_a_row_that_fails_takes_no_other_with_it(plan: Plan) -> None:
    """It is said in the table, and by the exit code."""

    def fail(plan: Plan) -> list[object]:
        raise RuntimeError("no such\npeer")

    rows = [Row("bad", 1, fail), Row("good", 1, lambda plan: [])]  # type: ignore[arg-type]
    assert not measure_all(rows, plan)
    assert "| bad | not measured: RuntimeError: no such peer |" in plan.section.text()
    assert measure_all(rows[1:], plan)


def test_each_round_begins_with_another_one(plan: Plan) -> None:
    """So that no one has the warm machine always."""
    taken: list[str] = []

    def take(name: str) -> float:
        taken.append(name)
        return len(taken)

    found = plan.in_turns(a=lambda: take("a"), b=lambda: take("b"))
    assert taken == ["a", "b", "b", "a"]
    assert found == {"a": [1, 4], "b": [2, 3]}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two rounds of nothing."""
    return Plan(
        folder=tmp_path,
        rounds=2,
        steps=1,
        pictures=1,
        device="cpu",
        size=64,
        large=lambda number: pytest.fail("not asked for"),
        large_size=64,
        large_steps=(1, 2),
        recipes=1,
        saves=1,
        idle_seconds=1.0,
        published=1,
        section=Section("a table", "a command"),
    )
