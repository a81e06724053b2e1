"""The process dies by SIGKILL at each step from save to picture; the next start mends it."""

import signal
import subprocess
import sys

import pytest

from tests.crash.dying_daemon import PLACES
from tests.house import House

RECIPES = {"a.yaml": "prompt: a corgi\nseed: 1\ncount: 5\n", "b.txt": "a star\na circle\n"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("count", [1, 4])
def test_every_image_is_there_exactly_once(house: House, place: str, count: int) -> None:
    """Nothing lost, nothing twice, no temporary left, every picture in the list once."""
    for name, text in RECIPES.items():
        house.save(name, text)
    if place in ("before a save is accepted", "in the middle of rendering"):
        count = min(count, 2)
    died = subprocess.run(
        [sys.executable, "-m", "tests.crash.dying_daemon", house.folder, place, str(count)],
        timeout=120,
    )
    assert died.returncode == -signal.SIGKILL
    assert house.once()
    assert house.seeds("a") == [1, 2, 3, 4, 5]
    assert sorted(house.prompts("b")) == ["a circle", "a star"]
    assert sorted(line["file"] for line in house.listed()) == house.pictures()
    assert list(house.outbox.rglob("*.tmp")) == []
    assert house.once()
    assert len(house.pictures()) == 7, "a further start makes nothing"


def test_seeds_stay_as_drawn_across_a_crash(house: House) -> None:
    """A random seed is drawn once, when the save is accepted."""
    house.save("a.yaml", "prompt: a corgi\ncount: 6\n")
    command = [sys.executable, "-m", "tests.crash.dying_daemon", str(house.folder)]
    subprocess.run([*command, "before the ledger says done", "2"], timeout=120)
    house.once()
    seeds = house.seeds()
    assert len(seeds) == 6
    first = min(seeds)
    assert sorted(seeds) == list(range(first, first + 6))


def test_an_image_in_work_at_five_deaths_in_a_row_is_set_aside(house: House) -> None:
    """It is not tried at every start for ever, and the rest of the queue is made."""
    house.save("a.yaml", "prompt: deadly\nseed: 1\n")
    house.save("b.yaml", "prompt: a star\nseed: 2\nsteps: 9\n")
    command = [sys.executable, "-m", "tests.crash.dying_daemon", str(house.folder)]
    for _ in range(5):
        subprocess.run([*command, "in the middle of rendering", "1"], timeout=120)
    house.once()
    assert house.pictures() == ["b/0001-2.png"]
    assert "died 5 times in a row" in (house.error("a.yaml") or "")
