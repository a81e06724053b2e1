"""`picowatch run --once` on the digest engine, in processes that may be killed."""

import multiprocessing
import os
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
from tests.house import House

SETTINGS = {"settle_seconds": 0.05, "batch_size": 3, "sidecar": "txt"}
# Importing picowatch takes longer than a run: one process does, and forks another for each run.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "tests.crash.dying_daemon"])


def run_daemon(house: House, fault: str = "", **settings: str) -> int:
    """Return a run's exit code, or minus the signal that killed it.

    `fault` says where the run dies (tests/fault_points.py).
    """
    process = FORKS.Process(target=_run_and_end, args=(house.folder, fault, settings))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def fail_on_bad(batch: Batch) -> None:
    if any(request.prompt == "bad" for request in batch):
        raise RenderFailed("Bad.")


def _warn_of_cats(request: ImageRequest, batch_size: int) -> RenderedImage:
    warnings = ("It is black.",) if "cat" in request.prompt else ()
    return replace(digest_picture(request, batch_size), warnings=warnings)


def _run_and_end(folder: Path, fault: str, values: dict[str, str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    digest_engine.digest_picture = _warn_of_cats
    if fault:
        arm(fault)
    folders = {name: folder / name for name in ("inbox", "outbox", "models")}
    engine = DigestEngine(before_batch=fail_on_bad)
    settings = load_settings({**folders, **SETTINGS, **values}, {})
    os._exit(run(settings, once=True, make_engine=lambda options: engine))
