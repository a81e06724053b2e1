"""The scripts that measure the tables, with as little of everything as shows that they work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.measuring import RESULTS, Section
from benchmarks.plan import Plan, Row, measure_all
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
def test_the_cpu_table_is_measured(tmp_path: Path) -> None:
    """Every row; and nothing of it gets into RESULTS.md."""
    before, results = RESULTS.read_bytes(), tmp_path / "cpu.md"
    result = benchmark("cpu", "--small", "--rounds", "1", "--results", results)
    lines = measured(results, result)
    assert len([line for line in lines if line.startswith("3 demo pictures")]) == 2
    assert len([line for line in lines if line.startswith("a picture's ")]) == 2
    assert len([line for line in lines if line.startswith("a tiny Stable Diffusion XL")]) == 2
    for start in ("30 recipes accepted", "save to first step while", "idle daemon", "`picowatch",
                  "first picture after the start", "switching to another checkpoint"):  # fmt: skip
        assert any(line.startswith(start) for line in lines), (start, lines)
    likeness = re.search(r"Both made the same pictures: .* the worst by ([\d.e-]+)\.$",
                         results.read_text(), re.MULTILINE)  # fmt: skip
    assert likeness and float(likeness[1]) < 1
    assert RESULTS.read_bytes() == before


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
    one_of_each_kind([("cpu", ["--small"]), ("scale", ["--small"])], [("cpu", ["--small"])]),
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
