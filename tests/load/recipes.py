"""Recipes by the thousand, whose seeds say which version of which recipe a picture shows."""

from collections import Counter
from pathlib import Path

from tests.house import House

EDITED = 1_000_000  # is added to a recipe's seed by an edit


def name_of(number: int, of: int) -> str:
    """The first nine tenths lie side by side, the rest in a hundred folders."""
    name = f"r{number:05}.yaml"
    return name if number < of * 9 // 10 else f"folder{number % 100:02}/{name}"


def text_of(seed: int) -> str:
    return f"prompt: corgi {seed}\nseed: {seed}\nsize: 64x64\nsteps: 1\n"


def write_recipes(folder: Path, count: int) -> None:
    """`count` recipes with the seeds 0, 1, 2, …"""
    for number in range(count):
        path = folder / name_of(number, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(number))


class Pictures:
    """What images.jsonl, the log and the disk say of each recipe; they must agree."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.seeds: dict[str, list[int]] = {}
        for line in house.listed():
            self.seeds.setdefault(line["recipe"], []).append(line["seed"])
        self.queued: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.deleted: set[str] = set()
        for told in house.log().splitlines():
            self._read(told)

    def _read(self, line: str) -> None:
        recipe, _, told = line[20:].partition(": ")
        if told.startswith("deleted, "):
            self.deleted.add(recipe)
        if told.startswith(("saved, ", "deleted, ")):
            for part in told.split(", ")[1:]:
                count, *words = part.split()
                if words[-1] == "queued":
                    self.queued[recipe] += int(count)
                elif words[-1] == "cancelled":
                    self.cancelled[recipe] += int(count)

    def assert_consistent(self) -> None:
        """Each image that was asked for was made once or cancelled, and nothing else was made."""
        house = self._house
        assert all(len(set(seeds)) == len(seeds) for seeds in self.seeds.values()), "made twice"
        files = [line["file"] for line in house.listed()]
        assert sorted(files) == house.pictures()
        made = Counter({recipe: len(seeds) for recipe, seeds in self.seeds.items()})
        assert made == +(self.queued - self.cancelled)
        images = house.status()["images"]
        assert images == {
            "queued": 0,
            "running": 0,
            "done": len(files),
            "failed": 0,
            "cancelled": self.cancelled.total(),
        }
        assert list(house.outbox.rglob("*.error.txt")) == []
        assert list(house.outbox.rglob("*.tmp")) == []
