"""A process that answers saves in children of its own, and says what each answer took.

Each line it reads is a folder with `files/` in it: an inbox, perhaps with models. For each it
writes a line of JSON. Children are forked from a process that has everything imported, so what
is measured is a daemon's start and its answer, on an engine that never begins.
"""

import json
import os
import resource
import sys
import threading
import traceback
from pathlib import Path

from picowatch.recipe import Checkpoint, Inventory, read_recipes
from tests.house import House, wait_for

SECONDS = 60
BYTES = 6 << 30
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    """Answer until there is nothing more to read."""
    read_recipes("a.yaml", b"prompt: a", Inventory(Checkpoint("demo", 128)))
    for line in sys.stdin:
        sys.stdout.write(_in_a_child(Path(line.rstrip("\n"))) + "\n")
        sys.stdout.flush()


def _in_a_child(folder: Path) -> str:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _answer_and_end(folder, writing)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    return told or json.dumps({"died": os.waitstatus_to_exitcode(status)})


def _answer_and_end(folder: Path, pipe: int) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    try:
        _answer(folder, pipe)
    except BaseException:
        os.write(pipe, json.dumps({"died": traceback.format_exc()}).encode())
    finally:
        os._exit(1)


def _answer(folder: Path, pipe: int) -> None:
    """Start a daemon on the files, and stop the clock when the recipe is answered."""
    home = folder / "home"
    home.mkdir()
    house = House(home)
    house.inbox.rmdir()
    for part in (folder / "files").iterdir():
        part.rename(home / part.name)
    house.engine.before_batch = lambda batch: _never()
    before = resource.getrusage(resource.RUSAGE_SELF)
    with house.running():
        wait_for(lambda: _answer_in(house), "an answer")
        after = resource.getrusage(resource.RUSAGE_SELF)
        told = {
            "seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "megabytes": (after.ru_maxrss - before.ru_maxrss) * _RSS_UNIT / 1e6,
            "error": _error_in(house),
            "log": house.log(),
        }
        os.write(pipe, json.dumps(told).encode())
        os._exit(0)  # the engine would never end


def _answer_in(house: House) -> bool:
    return _error_in(house) is not None or ": saved, " in house.log()


def _error_in(house: House) -> str | None:
    for path in house.outbox.glob("*.error.txt"):
        return path.read_text()
    return None


def _never() -> None:
    threading.Event().wait()


if __name__ == "__main__":
    main()
