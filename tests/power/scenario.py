"""Two days of a user, in a process whose system calls are recorded.

    python -m tests.power.scenario FOLDER WHEN_DONE DAYS

The first day: the recipes in FOLDER's inbox, which are of every kind, are made until nothing waits.
The second day, in another daemon: one save keeps a picture, wants three more and is replaced by a
save that cancels what still waits; another fixes the recipe that was invalid.
"""

import os
import sys
import threading
from pathlib import Path

from picowatch.outbox import pages
from picowatch.recipe.request import ImageRequest
from tests.house import House, wait_for
from tests.meetings.recipes import png
from tests.pace import set_pace

BATCH_SIZE = 2
PICTURES_PER_PAGE = 4  # of the gallery, so that pages are turned
SMALL = b"size: 64x64\nsteps: 1\n"
LINES = b"---\n" + SMALL + b"---\n"
CLOCK = 1_700_000_000  # a save's time: this and its number, so that it can be laid out again


# The files that each save writes, and how many images they ask for: none if they are invalid.
SAVES: tuple[dict[str, tuple[bytes, int | None]], ...] = (
    {
        "start.png": (png(200), None),
        "corgi.yaml": (b"prompt: a corgi\ncount: 3\n" + SMALL, 3),
        "shapes.txt": (LINES + b"a star\na circle\n", 2),
        "from-start.yaml": (b"prompt: a corgi\nimage: start.png\nseed: 5\n" + SMALL, 1),
        "pets/sweep.yaml": (b"prompt: a box\nseed: 7\nsweep: {cfg_scale: [5,9]}\n" + SMALL, 2),
        "pets/dog.yaml": (b"prompt: a dog\nseed: 8\nstesp: 2\n" + SMALL, 0),
    },
    {
        "shapes.txt": (LINES + b"a star\na square\na ring\na heart\n", 4),
        "pets/dog.yaml": (b"prompt: a dog\nseed: 8\n" + SMALL, 1),
    },
    {"shapes.txt": (LINES + b"a star\na square\na ring\n", 3)},
)
ASKED = dict(version for save in SAVES for version in save.values())
TIMES = {content: CLOCK + n for n, save in enumerate(SAVES) for content, _ in save.values()}


def write(target: Path, content: bytes) -> None:
    """Write a file, one of a save with the same time in every run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)
    if time := TIMES.get(content):
        os.utime(target, (time, time))


def save(house: House, number: int) -> None:
    """Rename a save's files into the inbox, each from a name with its number."""
    for name, (content, _) in SAVES[number].items():
        staged = house.folder / "staged" / str(number) / name
        write(staged, content)
        staged.rename(house.inbox / name)


def second_day(house: House) -> None:
    go_on = threading.Event()

    def wait_for_the_next_save(batch: tuple[ImageRequest, ...]) -> None:
        if any(request.prompt == "a square" for request in batch):
            go_on.wait()

    house.engine.before_batch = wait_for_the_next_save  # type: ignore[assignment]
    save(house, 1)
    with house.running(batch_size=BATCH_SIZE):
        wait_for(lambda: "a square" in house.started(), "the first new picture in progress")
        save(house, 2)
        wait_for(lambda: "1 cancelled" in house.log(), "the save that cancels")
        go_on.set()
        wait_for(lambda: _is_idle(house), "all pictures")


def _is_idle(house: House) -> bool:
    images = house.console.shown[-1].images
    return images["queued"] == images["running"] == 0 and images["cancelled"] == 1


def main(folder: Path, when_done: str, days: int) -> None:
    pages.PICTURES_PER_PAGE = PICTURES_PER_PAGE
    set_pace()
    house = House(folder)
    house.once(batch_size=BATCH_SIZE, when_done=when_done)
    if days == 2:
        second_day(house)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
