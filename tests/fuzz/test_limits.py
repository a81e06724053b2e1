"""Never more than a second or 200 MB before the answer, and no exception but those for people."""

import multiprocessing
import os
import resource
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from picowatch.recipe import Checkpoint, Inventory, read_recipes
from tests.commands.picowatch import SERVER
from tests.fuzz.hostile import HOSTILE
from tests.house import House, wait_for

pytestmark = pytest.mark.heavy  # nearly two hundred files, up to three times each

SECONDS = 2.0  # of processor time, so that a busy machine does not count; most take a tenth
MEGABYTES = 200
TRIES = 3  # the best of them: a processor that is shared counts too much, never too little
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_answered_in_a_moment(tmp_path: Path, name: str) -> None:
    """That includes the daemon's start; the answer is pictures, or an error file with the place."""
    hostile = HOSTILE[name]
    files = hostile.files()
    for number in range(TRIES):
        told = in_a_process(tmp_path / str(number), files)
        if told["seconds"] <= SECONDS and told["megabytes"] <= MEGABYTES:
            break
    assert told["seconds"] <= SECONDS
    assert told["megabytes"] <= MEGABYTES
    assert "went wrong" not in told["log"] and "Traceback" not in told["log"]
    if hostile.says is not None:
        assert hostile.says in told["error"]
    if told["error"] is not None:
        assert ", line " in told["error"] and ", column " in told["error"]


def in_a_process(home: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return how a daemon answers these files, and what that takes."""
    for path, content in files.items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_bytes(content)
    reading, writing = multiprocessing.Pipe(duplex=False)
    process = SERVER.Process(target=answer, args=(home, writing))
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
        after = resource.getrusage(resource.RUSAGE_SELF)
        told = {
            "seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "megabytes": (after.ru_maxrss - before.ru_maxrss) * _RSS_UNIT / 1e6,
            "error": error_in(house),
            "log": house.log(),
        }
        pipe.send(told)
        os._exit(0)


def error_in(house: House) -> str | None:
    return next((path.read_text() for path in house.outbox.glob("*.error.txt")), None)
