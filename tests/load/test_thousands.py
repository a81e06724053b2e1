"""Thousands of recipes at once: exactly the right pictures, in little memory.

What a save, a rename or a deletion means is for tests/meetings; here there are many of them.
`make test-heavy` takes ten thousand.
"""

import random
import re
import subprocess
from itertools import islice

import pytest

from benchmarks.daemon import Home, at_work, name_of, write_recipes
from tests.commands.picowatch import PROJECT
from tests.house import House, faults

pytestmark = pytest.mark.timeout(900)

MEBIBYTES = 100  # that the daemon may hold; it held 95.0 to 96.5
LOUD = re.compile("(warning|error) ")
EDITED = 1_000_000  # is added to a recipe's seed by an edit


def text_of(seed: int) -> str:
    return f"prompt: corgi {seed}\nseed: {seed}\nsize: 64x64\nsteps: 1\n"


class Crowd:
    """Many recipes in progress, some edited or deleted once; seeds tell their versions apart."""

    def __init__(self, house: House, count: int) -> None:
        self._house = house
        self._count = count
        self._left = iter(random.Random(4).sample(range(count), count))
        self.final = {name_of(number, count): number for number in range(count)}
        self.gone: set[str] = set()

    def change(self) -> None:
        """Edit some in place, some by renaming a temporary file, and delete some."""
        for turn, number in enumerate(islice(self._left, self._count // 40)):
            name = name_of(number, self._count)
            path = self._house.inbox / name
            target = path if turn % 2 else path.with_name(f".{path.name}.tmp")
            target.write_text(text_of(number + EDITED))
            target.replace(path)
            self.final[name] = number + EDITED
        for number in islice(self._left, self._count // 100):
            name = name_of(number, self._count)
            (self._house.inbox / name).unlink()
            del self.final[name]
            self.gone.add(name)

    def seeds(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for line in self._house.listed():
            found.setdefault(line["recipe"], []).append(line["seed"])
        return found

    def is_done(self) -> bool:
        """Whether every existing recipe has its last picture, and no other has one."""
        log, seeds = self._house.log(), self.seeds()
        missed = all(f"{name}: deleted, " in log for name in self.gone if f"{name}: saved" in log)
        return missed and all(seed in seeds.get(name, ()) for name, seed in self.final.items())


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_a_crowd_edited_and_deleted_meanwhile_ends_exactly_right(house: House, count: int) -> None:
    """Each has the picture of its last bytes; memory stays small, and another run has no work."""
    home, crowd = Home(PROJECT, house.folder), Crowd(house, count)
    write_recipes(house.folder / "source", count, text_of)
    home.hold()
    with at_work(home) as daemon:
        subprocess.run(["cp", "-r", f"{house.folder}/source/.", house.inbox], check=True)
        daemon.seconds_until(lambda: home.waiting() > count // 5, "a part of the crowd")
        crowd.change()
        daemon.seconds_until(lambda: home.waiting() > count // 2, "half of the crowd")
        home.release()
        daemon.seconds_until(lambda: home.made() > count // 10, "a tenth of the pictures")
        crowd.change()
        daemon.seconds_until(lambda: home.waiting() == 0, "an empty queue")
        daemon.seconds_until(crowd.is_done, "the last picture of each")
        assert daemon.mebibytes("VmHWM") < MEBIBYTES
    seeds = crowd.seeds()
    for recipe, seed in crowd.final.items():
        assert seeds[recipe] in ([seed], [seed % EDITED, seed]), recipe
    assert all(len(seeds.get(recipe, ())) <= 1 for recipe in crowd.gone)
    assert list(faults(house.outbox)) == []
    assert [line for line in house.log().splitlines() if LOUD.match(line[20:])] == []
    assert house.once()
    assert house.engine.batches == []
