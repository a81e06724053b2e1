"""`picowatch run --once` on the digest engine, in processes that may be killed.

    python -m tests.crash.dying_daemon

Each line of its input is JSON: a folder, where the run dies (tests/fault_points.py, or nothing),
and settings. For each it prints how the process of that run ended. Such a process is forked:
importing picowatch takes longer than a run.
"""

import json
import os
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import PIL.PngImagePlugin  # noqa: F401 - a run would import it

from picowatch.commands.run import run
from picowatch.engine.protocol import RenderedImage
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.settings import load_settings
from tests import digest_engine
from tests.digest_engine import Batch, DigestEngine, digest_picture
from tests.fault_points import arm

SETTINGS = {"settle_seconds": 0.05, "batch_size": 3, "sidecar": "txt"}


def fail_on_bad(batch: Batch) -> None:
    if any(request.prompt == "bad" for request in batch):
        raise RenderFailed("Bad.")


def warn_of_cats(request: ImageRequest, batch_size: int) -> RenderedImage:
    warnings = ("It is black.",) if "cat" in request.prompt else ()
    return replace(digest_picture(request, batch_size), warnings=warnings)


def main() -> None:
    """Fork a run for each line until there are no more."""
    digest_engine.digest_picture = warn_of_cats
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _run_and_end(*json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


def _run_and_end(folder: str, fault: str, values: dict[str, str]) -> None:
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
    os.dup2(sys.stdin.fileno(), sys.stdout.fileno())
    try:
        if fault:
            arm(fault)
        folders = {name: Path(folder) / name for name in ("inbox", "outbox", "models")}
        settings = load_settings({**folders, **SETTINGS, **values}, {})
        engine = DigestEngine(before_batch=fail_on_bad)
        os._exit(run(settings, once=True, make_engine=lambda options: engine))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main()
