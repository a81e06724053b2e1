"""`picowatch run --once` on the digest engine, in a process that may be killed.

    python -m tests.crash.dying_daemon FOLDER [SETTING=VALUE…]

PICOWATCH_FAULT says where it dies. A prompt of "bad" fails.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from picowatch.commands.run import run
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.settings import load_settings
from picowatch.testing.digest_engine import DigestEngine


def fail_on_bad(batch: Sequence[ImageRequest]) -> None:
    if any(request.prompt == "bad" for request in batch):
        raise RenderFailed("Bad.")


def main(folder: Path, *values: str) -> int:
    engine = DigestEngine(before_batch=fail_on_bad)
    settings = load_settings(
        {
            "inbox": folder / "inbox",
            "outbox": folder / "outbox",
            "models": folder / "models",
            "settle_seconds": 0.05,
            "batch_size": 3,
            **dict(value.split("=") for value in values),
        },
        {},
    )
    return run(settings, once=True, make_engine=lambda options: engine)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
