"""`picowatch run` on the digest engine, in a process of its own that holds nothing else.

    python -m tests.load.held_daemon FOLDER SETTINGS [SECONDS]

SETTINGS is JSON, SECONDS is how long a batch takes at least. No batch is rendered while FOLDER/hold
is there.
"""

import json
import sys
import threading
from pathlib import Path

from picowatch.commands.run import run
from picowatch.settings import Settings
from tests.digest_engine import Batch, DigestEngine

LOOK_SECONDS = 0.05


def main(folder: Path, settings: str, seconds: float = 0.0) -> int:
    engine = DigestEngine()
    hold, pause = folder / "hold", threading.Event()

    def before_batch(batch: Batch) -> None:
        while hold.exists():
            pause.wait(LOOK_SECONDS)
        engine.batches.clear()  # what a test keeps of them is no memory of the daemon

    def after_step(done: int) -> None:
        pause.wait(seconds)

    engine.before_batch, engine.after_step = before_batch, after_step
    return run(
        Settings(
            inbox=folder / "inbox",
            outbox=folder / "outbox",
            models=folder / "models",
            **json.loads(settings),
        ),
        once=False,
        make_engine=lambda options: engine,
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:])))
