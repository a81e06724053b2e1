"""`picowatch run` on the digest engine, in a process of its own that holds nothing else.

    python -m tests.load.held_daemon FOLDER SETTINGS

SETTINGS is JSON. No batch is rendered while FOLDER/hold is there. The time of each first step is
appended to FOLDER/steps: the recipe's seed and the Unix time.
"""

import json
import sys
import threading
import time
from pathlib import Path

from picowatch.commands.run import run
from picowatch.engine.digest import Batch, DigestEngine
from picowatch.settings import Settings

LOOK_SECONDS = 0.05


def main(folder: Path, settings: str) -> int:
    engine = DigestEngine()
    hold, steps = folder / "hold", (folder / "steps").open("a", buffering=1)

    def before_batch(batch: Batch) -> None:
        while hold.exists():
            threading.Event().wait(LOOK_SECONDS)
        steps.write(f"{batch[0].seed} {time.time()}\n")
        engine.batches.clear()  # what a test keeps of them is no memory of the daemon

    engine.before_batch = before_batch
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
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
