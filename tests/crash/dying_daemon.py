"""`picowatch run --once` on the digest engine, in processes that may be killed.

    python -m tests.crash.dying_daemon

Each line of its input is JSON: a folder, where the run dies (PICOWATCH_FAULT, or nothing), and
settings. For each it prints how the process of that run ended. Such a process is forked: importing
picowatch takes longer than a run. A prompt of "bad" fails.
"""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.PngImagePlugin  # noqa: F401 - a run would import it

from picowatch.commands.run import run
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.settings import load_settings
from tests.fault_points import arm
from tests.digest_engine import DigestEngine


def fail_on_bad(batch: Sequence[ImageRequest]) -> None:
    if any(request.prompt == "bad" for request in batch):
        raise RenderFailed("Bad.")


def main() -> None:
    """Fork a run for each line until there are no more."""
    for line in sys.stdin:
        folder, fault, settings = json.loads(line)
        child = os.fork()
        if not child:
            _run_and_end(Path(folder), fault, settings)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _run_and_end(folder: Path, fault: str, settings: dict[str, Any]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
    os.dup2(sys.stdin.fileno(), sys.stdout.fileno())
    if fault:
        arm(fault)
    try:
        os._exit(_run(folder, settings))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _run(folder: Path, values: dict[str, Any]) -> int:
    engine = DigestEngine(before_batch=fail_on_bad)
    settings = load_settings(
        {
            "inbox": folder / "inbox",
            "outbox": folder / "outbox",
            "models": folder / "models",
            "settle_seconds": 0.05,
            "batch_size": 3,
            **values,
        },
        {},
    )
    return run(settings, once=True, make_engine=lambda options: engine)


if __name__ == "__main__":
    main()
