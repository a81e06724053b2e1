"""Two days of a user, in a process whose system calls are recorded.

    python -m tests.power.scenario FOLDER
    python -m tests.power.scenario FOLDER archive
    python -m tests.power.scenario FOLDER NAME=NUMBER…

The first day: recipes of every kind are saved and made until nothing waits. The second day, in
another daemon: one save keeps a picture, wants three more and is replaced by a save that cancels
what still waits; another fixes the recipe that was invalid.

The second form is the first day under `when_done: archive`. The third is one start on what a
power cut left in FOLDER, with these files of these saves in the inbox.
"""

import os
import sys
import threading
from io import BytesIO
from pathlib import Path

from PIL import Image

from picowatch.outbox import pages
from picowatch.recipe.request import ImageRequest
from tests.house import House, wait_for

BATCH_SIZE = 2
PICTURES_PER_PAGE = 4  # of the gallery, so that pages are turned
SMALL = "size: 64x64\nsteps: 1\n"
CLOCK = 1_700_000_000  # a save's time: this and its number, so that it can be laid out again


def _picture() -> bytes:
    file = BytesIO()
    Image.new("RGB", (64, 64), (200, 120, 40)).save(file, "PNG")
    return file.getvalue()


# Every save: the n-th state of an inbox, of which only the files named are written.
SAVES: tuple[dict[str, bytes], ...] = (
    {
        "start.png": _picture(),
        "corgi.yaml": f"prompt: a corgi\ncount: 3\n{SMALL}".encode(),
        "shapes.txt": f"---\n{SMALL}---\na star\na circle\n".encode(),
        "from-start.yaml": f"prompt: a corgi\nimage: start.png\nseed: 5\n{SMALL}".encode(),
        "pets/sweep.yaml": f"prompt: a box\nseed: 7\nsweep: {{cfg_scale: [5,9]}}\n{SMALL}".encode(),
        "pets/dog.yaml": f"prompt: a dog\nseed: 8\nstesp: 2\n{SMALL}".encode(),
    },
    {
        "shapes.txt": f"---\n{SMALL}---\na star\na square\na ring\na heart\n".encode(),
        "pets/dog.yaml": f"prompt: a dog\nseed: 8\n{SMALL}".encode(),
    },
    {"shapes.txt": f"---\n{SMALL}---\na star\na square\na ring\n".encode()},
)
# How many images each version of a recipe asks for.
ASKED = {
    ("corgi.yaml", 0): 3,
    ("shapes.txt", 0): 2,
    ("shapes.txt", 1): 4,
    ("shapes.txt", 2): 3,
    ("from-start.yaml", 0): 1,
    ("pets/sweep.yaml", 0): 2,
    ("pets/dog.yaml", 0): 0,
    ("pets/dog.yaml", 1): 1,
}
INVALID = {("pets/dog.yaml", 0)}


def write_save(target: Path, name: str, number: int) -> None:
    """Write a file of a save, with the same time in every run."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(SAVES[number][name])
    os.utime(target, (CLOCK + number, CLOCK + number))


def save(house: House, number: int) -> None:
    """Rename a save's files into the inbox, each from a name with its number."""
    for name in SAVES[number]:
        staged = house.folder / "staged" / str(number) / name
        write_save(staged, name, number)
        (house.inbox / name).parent.mkdir(exist_ok=True)
        staged.rename(house.inbox / name)


def first_day(house: House) -> None:
    save(house, 0)
    house.once(batch_size=BATCH_SIZE)


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


def main(folder: Path, *saved: str) -> None:
    pages.PICTURES_PER_PAGE = PICTURES_PER_PAGE
    house = House(folder)
    if not saved:
        first_day(house)
        second_day(house)
        return
    if saved == ("archive",):
        save(house, 0)
        house.once(batch_size=BATCH_SIZE, when_done="archive")
        return
    for name, _, number in (each.partition("=") for each in saved):
        write_save(house.inbox / name, name, int(number))
    house.once(batch_size=BATCH_SIZE)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
