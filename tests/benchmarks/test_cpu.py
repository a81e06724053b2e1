"""picowatch beside a diffusers script, with as little of everything as shows that it works."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.cpu import mean_difference
from benchmarks.measuring import compared
from tests.benchmarks.scripts import SECONDS, benchmark


@pytest.mark.heavy
@pytest.mark.timeout(SECONDS)
def test_the_table_is_measured() -> None:
    """Every row; and both programs make the same pictures."""
    result = benchmark("cpu", "--small", "--rounds", "1")
    assert result.returncode == 0, result.stdout + result.stderr
    for row in (
        "3 demo pictures, 2 steps, through the folder, each, warm",
        "3 demo pictures, 2 steps, through the folder, each, start-up included",
        "the demo model, 64x64, a step with guidance",
        "the demo model, 64x64, peak memory",
        "one demo picture from the start of the program",
    ):
        assert f"\n| {row} | " in result.stdout
    apart = re.search(r"\| the pictures differ, .*? \| ([\d.e-]+) \|", result.stdout)
    assert apart and float(apart[1]) < 1


def test_a_row_has_the_ratio_of_each_round() -> None:
    """Not of the medians: what slowed both in a round says nothing."""
    row = compared("a", [1.0, 10.0, 2.0], [2.0, 40.0, 3.0])
    assert row == "| a | 2 s | 3 s | 2 (1.5 to 4) |"
    assert compared("a", [1000.0], [1500.0], unit="MiB") == "| a | 1,000 MiB | 1,500 MiB | 1.5 |"


def test_other_pictures_are_told_apart(tmp_path: Path) -> None:
    """What says that both made the same ones has to see it when they did not."""
    for name, value in (("one", 10), ("same", 10), ("other", 14)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(tmp_path / f"{name}.png")
    one = tmp_path / "one.png"
    assert mean_difference(one, tmp_path / "same.png") == 0
    assert mean_difference(one, tmp_path / "other.png") == 4
