"""`picowatch run --once` on the digest engine, in processes that may be killed."""

import errno
import os
from dataclasses import replace
from pathlib import Path

from PIL import Image

from picowatch.engine.protocol import RenderedImage
from picowatch.recipe.request import ImageRequest
from tests import digest_engine
from tests.commands.picowatch import SERVER
from tests.digest_engine import digest_picture, fail_on_bad
from tests.fault_points import arm, preceded_by, wrap
from tests.house import House
from tests.pace import set_pace


def run_daemon(house: House, fault: str = "", **settings: str) -> int:
    """Return a run's exit code, or minus the signal that killed it.

    `fault` says where the run dies (tests/fault_points.py).
    """
    process = SERVER.Process(target=_run_and_end, args=(house.folder, fault, settings))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _warn_of_cats(request: ImageRequest, batch_size: int) -> RenderedImage:
    warnings = ("It is black.",) if "cat" in request.prompt else ()
    return replace(digest_picture(request, batch_size), warnings=warnings)


Image.init()  # once for all daemons, which are forks of a process that has this module
_REFUSALS = [OSError(errno.EROFS, "Read-only file system")]


def _refuse_once(*_: object) -> None:
    """Let the disk refuse a process its first contact sheet, which is tried again by itself."""
    if _REFUSALS:
        raise _REFUSALS.pop()


def _run_and_end(folder: Path, fault: str, values: dict[str, str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    set_pace()
    digest_engine.digest_picture = _warn_of_cats
    wrap("picowatch.outbox.outbox:Outbox.publish_sheet", preceded_by(_refuse_once))
    if fault:
        arm(fault)
    house = House(folder)
    house.engine.before_batch = fail_on_bad
    os._exit(house.run_once(batch_size=3, sidecar="txt", **values))
