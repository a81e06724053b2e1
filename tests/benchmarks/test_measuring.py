"""What the tables of benchmarks/ are made of."""

import argparse
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.against_peers import mean_difference
from benchmarks.measuring import (
    Figure,
    Goal,
    Section,
    compared,
    measured,
    number,
    percentile,
    wait_until,
    with_section,
)
from benchmarks.plan import Row, choose


def test_a_comparison_takes_the_ratio_of_each_round() -> None:
    """Not of the medians: what slowed both in a round says nothing."""
    figure = compared("a", [1.0, 10.0, 2.0], [2.0, 40.0, 3.0], "peer", Goal("at least", 2))
    assert figure == Figure("a", "2 s", "3 s (peer)", "2 (1.5 to 4)", "at least 2", True)
    assert not compared("a", [1.0], [1.9], "peer", Goal("at least", 2)).reached


def test_a_share_is_ours_by_the_other() -> None:
    """Less is better there."""
    figure = compared("a", [3.0], [2.0], "peer", Goal("at most", 1.5), times_faster=False)
    assert (figure.ratio, figure.reached) == ("1.5", True)


def test_a_figure_without_a_goal_reaches_nothing() -> None:
    """Its cell stays empty."""
    assert measured("a", [1, 2, 4], "MiB").line() == "| a | 2 (1 to 4) MiB |  |  |  |  |"
    assert measured("a", [1], "MiB", Goal("at most", 2)).line().endswith("| at most 2 MiB | yes |")


@pytest.mark.parametrize(
    ("value", "shown"), [(1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (99.96, "100")]
)
def test_numbers_have_three_digits_that_count(value: float, shown: str) -> None:
    """Large ones all before the point."""
    assert number(value) == shown


def test_a_percentile_leaves_the_worst_out() -> None:
    """Of a hundred values the 99th percentile has one above it at most."""
    assert percentile(list(range(100)), 0.99) == 99
    assert percentile(list(range(200)), 0.99) == 198
    assert percentile([5], 0.99) == 5


def test_a_section_goes_first_below_its_subject(tmp_path: Path) -> None:
    """With date, machine, load, command, table and notes."""
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nAll.\n\n## A table\n\nOf a.\n\n### before\n\n## Another\n")
    section = Section("A table", "python -m benchmarks.x --rows a")
    section.add([measured("a", [1], "s")])
    section.note("A note.")
    section.write(results)
    text = results.read_text()
    assert text.startswith("# Results\n\nAll.\n\n## A table\n\nOf a.\n\n### 20")
    for part in (" cores, ", ". Load ", "--rows a\n```", "| a | 1 s |"):
        assert part in text
    assert text.endswith("\nA note.\n\n### before\n\n## Another\n")


def test_a_new_subject_goes_before_all_others() -> None:
    """After the introduction; and it may be the first of all."""
    assert with_section("", "A", "### 1\n") == "## A\n\n### 1\n"
    assert with_section("## A\n\n### 1\n", "A", "### 2\n") == "## A\n\n### 2\n\n### 1\n"
    text = with_section("# All\n\n## A\n\n### 1\n", "B", "### 2\n")
    assert text == "# All\n\n## B\n\n### 2\n\n## A\n\n### 1\n"


def test_rows_are_chosen_by_name() -> None:
    """All of them without a name; what is none is answered with those there are."""
    rows = [Row(name, 1, lambda plan: []) for name in ("one", "two", "three")]
    assert choose(rows, "") == rows
    assert [row.name for row in choose(rows, "three,one")] == ["three", "one"]
    with pytest.raises(argparse.ArgumentTypeError, match="'for'; there are one, two, three"):
        choose(rows, "for")


def test_other_pictures_are_told_apart(tmp_path: Path) -> None:
    """What says that both made the same ones has to see it when they did not."""
    for name, value in (("one", 10), ("same", 10), ("other", 14)):
        pixels = np.full((8, 8, 3), value, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    one = tmp_path / "one.png"
    assert mean_difference(one, tmp_path / "same.png") == 0
    assert mean_difference(one, tmp_path / "other.png") == 4


def test_waiting_ends() -> None:
    """With what was waited for."""
    wait_until(lambda: True, "nothing", patience=1)
    with pytest.raises(TimeoutError, match="the moon"):
        wait_until(lambda: False, "the moon", patience=0.01)
