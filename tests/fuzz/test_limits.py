"""Never more than a second or 200 MB before the answer, and no exception but those for people."""

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from picowatch.errors import PictureUnreadable
from picowatch.files.decoding import decode_with_alpha
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.reading import read_recipes
from tests.commands.picowatch import SERVER
from tests.fuzz.hostile import HOSTILE, PHOTOS
from tests.house import House, wait_for

pytestmark = pytest.mark.heavy  # nearly two hundred files, up to three times each

SECONDS = 2.0  # of processor time, so that a busy machine does not count; most take a tenth
MEGABYTES = 200
TRIES = 3  # the best of them: a processor that is shared counts too much, never too little
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_answered_in_a_moment(tmp_path: Path, name: str) -> None:
    """That includes the daemon's start; the answer is pictures, or an error file with the place."""
    files, says = HOSTILE[name]
    told = within_limits(tmp_path, files(), answer, SECONDS)
    assert "went wrong" not in told["log"] and "Traceback" not in told["log"]
    if says is not None:
        assert says in told["error"]
    if told["error"] is not None:
        assert ", line " in told["error"] and ", column " in told["error"]


@pytest.mark.parametrize("name", PHOTOS)
def test_hostile_photos_become_pictures_or_errors(tmp_path: Path, name: str) -> None:
    """In the same memory, decoded as the engine does; a photo is read four times until then."""
    content, says = PHOTOS[name]
    files = {"inbox/p/_pictures.yaml": b"prompt: a star\n", "inbox/p/a.jpg": content()}
    settle = 1.0 if says == "damaged" else 0.1  # it waits eight times as long for what is cut
    told = within_limits(tmp_path, files, partial(made, settle_seconds=settle), 2 * SECONDS)
    assert bool(told["said"]) is bool(says) and says in told["said"]
    assert told["made"] is (says != "damaged")


def made(home: Path, pipe: Connection, settle_seconds: float) -> None:
    """Do a single run, and stop the clock when it has ended."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    house = House(home)
    before = resource.getrusage(resource.RUSAGE_SELF)
    house.once(settle_seconds=settle_seconds)
    with suppress(PictureUnreadable):
        decode_with_alpha((house.inbox / "p/a.jpg").read_bytes())
    said = "".join(path.read_text() for path in house.outbox.glob("p/*.*.txt"))
    pipe.send(spent(before) | {"said": said, "made": bool(house.pictures())})
    os._exit(0)


def within_limits(
    home: Path, files: Mapping[str, bytes], do: Callable[[Path, Connection], None], seconds: float
) -> dict[str, Any]:
    """Return the first answer that takes no more than it may."""
    for number in range(TRIES):
        told = in_a_process(home / str(number), files, do)
        if told["seconds"] <= seconds and told["megabytes"] <= MEGABYTES:
            break
    assert told["seconds"] <= seconds
    assert told["megabytes"] <= MEGABYTES
    return told


def in_a_process(
    home: Path, files: Mapping[str, bytes], do: Callable[[Path, Connection], None]
) -> dict[str, Any]:
    """Return how a daemon answers these files, and what that takes."""
    for path, content in files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(content)
    reading, writing = multiprocessing.Pipe(duplex=False)
    process = SERVER.Process(target=do, args=(home, writing))
    process.start()
    writing.close()
    told: dict[str, Any] = reading.recv()  # EOFError if the process dies of something else
    process.join()
    return told


def answer(home: Path, pipe: Connection) -> None:
    """Start a daemon, on an engine that never ends, and stop the clock when it has answered."""
    resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    read_recipes("a.yaml", b"prompt: a", Inventory(Checkpoint("demo", 128)))
    house = House(home)
    house.engine.before_batch = lambda batch: wait_for(lambda: False)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with house.running():
        wait_for(lambda: error_in(house) is not None or ": saved, " in house.log(), "an answer")
        pipe.send(spent(before) | {"error": error_in(house), "log": house.log()})
        os._exit(0)


def spent(before: resource.struct_rusage) -> dict[str, float]:
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "megabytes": (after.ru_maxrss - before.ru_maxrss) * _RSS_UNIT / 1e6,
    }


def error_in(house: House) -> str | None:
    return next((path.read_text() for path in house.outbox.glob("*.error.txt")), None)
