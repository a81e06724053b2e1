"""Starts the daemon, and another one when the ledger was damaged or the outbox replaced."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from picowatch import __version__
from picowatch.daemon.build import MakeEngine, build_daemon
from picowatch.daemon.settings_file import SettingsFile
from picowatch.errors import LedgerCorrupt
from picowatch.files.retry import Ended
from picowatch.observers.console import Console
from picowatch.settings import Settings
from picowatch.systemd import notify
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

CHECK_SECONDS = 0.5  # between checks whether the outbox is there
# What is still queued there is in another outbox's ledger, which this one does not know.
TAKES_AWAY = (
    "when_done: %s removes finished recipes from the inbox: no other picowatch may watch it, or it "
    "would treat them as deleted"
)
# A new ledger that is damaged so soon means a broken disk: a third one would not help.
HOPELESS_SECONDS = 60.0


def supervise(
    settings: Settings,
    make_engine: MakeEngine,
    console: Console,
    once: bool,
    by_make: bool = False,
    until: Callable[[], bool] = lambda: False,
    *,
    settings_file: SettingsFile | None = None,
    stop: threading.Event,
    wake: threading.Event,
    signals: list[int],
) -> RunResult:
    """Run a daemon, and another one when its ledger was damaged or its outbox replaced.

    Returns the result of the last one.
    """
    damaged = ""
    while True:
        started = time.monotonic()
        with ExitStack() as stack:
            try:
                daemon = build_daemon(
                    settings,
                    make_engine,
                    console,
                    stack,
                    stop=stop,
                    wake=wake,
                    keeps_trying=not once,
                    damaged=damaged,
                    hurry=lambda: not once or bool(signals),
                    by_make=by_make,
                    until=until,
                    settings_file=settings_file,
                )
            except LedgerCorrupt as error:  # what its parts read first is damaged
                if damaged:
                    raise
                damaged = str(error)
                continue
            log.info("picowatch %s is watching %s", __version__, settings.inbox)
            if settings.when_done != "keep" and not once:
                log.warning(TAKES_AWAY, settings.when_done)
            folder = _folder_id(settings.outbox)
            result = daemon.run(once)
            log.info("picowatch ended")
        hopeless = damaged and time.monotonic() - started < HOPELESS_SECONDS
        if signals or hopeless or not result.can_restart:
            return result
        damaged = result.reason if result.ledger_corrupt else ""
        stop.clear()
        if signals:  # between the two lines above
            stop.set()
        if not once:
            _wait_for_outbox(settings.outbox, folder, stop)


def _folder_id(folder: Path) -> tuple[int, int] | None:
    """Device and inode of a folder, if it is there."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _wait_for_outbox(outbox: Path, before: tuple[int, int] | None, stop: threading.Event) -> None:
    """Create nothing where an outbox may be mounted again: see `OutboxLock.whereabouts`.

    The outbox is there if the folder is the same as before, or has picowatch's own folder.
    """
    while (found := _folder_id(outbox)) is None or found != before:
        if _folder_id(outbox / ".picowatch"):
            return
        notify("WATCHDOG=1")
        if stop.wait(CHECK_SECONDS):
            raise Ended
