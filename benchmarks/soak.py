"""A recipe a second for an hour: does the daemon's memory, its open files or its threads grow?

    python -m benchmarks.soak [--minutes 60] [--folder DIR]

Prints a line a minute and the figures at the end; exit code 1 if anything grew or anything asked
for is not there. The engine is the digest engine in its process, so that it is the daemon which
is looked at: of ten saves, five are new recipes, three edits, one a deletion, one a mistake.
From 200 recipes on an old one is deleted for each new one: what picowatch knows of a recipe takes
memory, and that is not what is asked here.
"""

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.house import House, wait_for
from tests.storm.picowatch import Picowatch, engines_of

KEPT = 200
WARM_UP = 0.15  # of the time: caches fill
LAST = 0.15
ALLOWED_KB = 4096  # that the median of the last part may lie above that of the first


@dataclass
class User:
    """Saves something each second, and counts the pictures that have to come of it."""

    inbox: Path
    dice: random.Random
    recipes: list[Path] = field(default_factory=list)
    pictures: int = 0
    saves: int = 0

    def act(self) -> None:
        self.saves += 1
        kind = self.saves % 10
        if kind in (1, 4, 7) and self.recipes:
            self._write(self.dice.choice(self.recipes))
        elif kind == 5 and len(self.recipes) > 20:
            self.recipes.pop(self.dice.randrange(len(self.recipes) - 10)).unlink()
        elif kind == 9:
            (self.inbox / "mistake.yaml").write_text(f"promt: {self.saves}\n")
        else:
            if len(self.recipes) >= KEPT:
                self.recipes.pop(0).unlink()
            path = self.inbox / f"{self.saves % 50:02}" / f"{self.saves:06}.txt"
            path.parent.mkdir(exist_ok=True)
            self.recipes.append(path)
            self._write(path)

    def _write(self, path: Path) -> None:
        path.write_text(f"picture {self.saves} --seed {self.saves} --size 64x64 --steps 3\n")
        self.pictures += 1


@dataclass(frozen=True, slots=True)
class Sample:
    """The daemon at one moment."""

    rss_kb: int
    files: int
    threads: int

    @classmethod
    def of(cls, process: int) -> "Sample":
        status = Path(f"/proc/{process}/status").read_text()
        values = dict(line.split(":", 1) for line in status.splitlines())
        files = len(list(Path(f"/proc/{process}/fd").iterdir()))
        return cls(int(values["VmRSS"].split()[0]), files, int(values["Threads"]))


def soak(folder: Path, minutes: float) -> int:
    (folder / "inbox").mkdir(parents=True)
    house = House.__new__(House)
    house.folder, house.inbox = folder, folder / "inbox"
    house.outbox, house.models = folder / "outbox", folder / "models"
    house.models.mkdir()
    user = User(house.inbox, random.Random(1))
    picowatch = Picowatch(folder)
    wait_for(lambda: house.status()["images"] is not None, "the first status")
    samples = save_each_second(user, picowatch, minutes)
    wait_for(lambda: len(house.listed()) == user.pictures, "the last picture")
    engines = len(engines_of(picowatch.process.pid))
    code = picowatch.end()
    made = house.pictures()
    print(f"{user.saves} saves, {user.pictures} pictures asked for, {len(made)} there")
    print(f"ended with exit code {code}; {engines} engine process")
    wrong = verdict(samples)
    wrong += [] if len(made) == user.pictures and not code else ["pictures or the exit code"]
    print("flat" if not wrong else f"NOT flat: {', '.join(wrong)}")
    return 1 if wrong else 0


def save_each_second(user: User, picowatch: Picowatch, minutes: float) -> list[Sample]:
    """One sample a second, after the save of that second."""
    samples: list[Sample] = []
    started, pause = time.monotonic(), threading.Event()
    while len(samples) < minutes * 60:
        user.act()
        pause.wait(max(0.0, started + len(samples) + 1 - time.monotonic()))
        samples.append(Sample.of(picowatch.process.pid))
        if len(samples) % 60 == 0:
            print(f"minute {len(samples) // 60}: {samples[-1]}", flush=True)
    return samples


def verdict(samples: list[Sample]) -> list[str]:
    """What grew from the first part, after the warm-up, to the last part."""
    size = max(1, int(len(samples) * LAST))
    start = int(len(samples) * WARM_UP)
    first, last = samples[start : start + size], samples[-size:]
    wrong = []
    for name in Sample.__slots__:
        before = statistics.median(getattr(sample, name) for sample in first)
        after = statistics.median(getattr(sample, name) for sample in last)
        highest = max(getattr(sample, name) for sample in samples)
        print(f"{name}: median {before:g} at first, {after:g} at last, highest {highest:g}")
        if after - before > (ALLOWED_KB if name == "rss_kb" else 0):
            wrong.append(name)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description="A recipe a second, and what grows.")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return soak(options.folder or Path(temporary) / "soak", options.minutes)


if __name__ == "__main__":
    sys.exit(main())
