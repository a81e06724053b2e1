"""`picowatch run` on the digest engine that kills itself at a chosen place.

    python -m tests.crash.dying_daemon FOLDER PLACE COUNT

PLACE is a key of PLACES; the process is gone with SIGKILL just before the COUNT-th call there.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from picowatch.commands.run import run
from picowatch.engine.digest import DigestEngine
from picowatch.ledger.ledger import Ledger
from picowatch.outbox.outbox import Outbox
from picowatch.settings import Settings

PLACES: dict[str, tuple[Any, str]] = {
    "before a save is accepted": (Ledger, "accept"),
    "before an image is claimed": (Ledger, "_reserve"),
    "in the middle of rendering": (DigestEngine, "describe"),  # replaced by a hook below
    "before a picture is written": (Outbox, "publish"),
    "before a picture's rename": (Path, "replace"),
    "before the ledger says done": (Ledger, "finish"),
    "before a picture is enlisted": (Outbox, "enlist"),
    "before the list is remembered": (Ledger, "mark_listed"),
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before(owner: Any, name: str, count: int) -> None:
    """Let the `count`-th call of a method be the process's last act."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            die()
        return original(*arguments, **named)

    setattr(owner, name, dying)


def main(folder: Path, place: str, count: int) -> int:
    engine = DigestEngine()
    if place == "in the middle of rendering":
        engine.after_step = lambda done: die() if len(engine.batches) == count else None
    elif place:
        die_before(*PLACES[place], count)
    settings = Settings(
        inbox=folder / "inbox",
        outbox=folder / "outbox",
        models=folder / "models",
        settle_seconds=0.05,
        batch_size=3,
    )
    return run(settings, once=True, make_engine=lambda options: engine)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
