"""Runs one daemon from its start to its end; a restart replaces the whole process."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NoReturn

from picowatch import __version__
from picowatch.daemon.build import MakeEngine, build_daemon
from picowatch.daemon.settings_file import SettingsFile
from picowatch.errors import LedgerCorrupt
from picowatch.observers.console import Console
from picowatch.settings import Settings
from picowatch.signals import ENDING
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

# What is still queued there is in another outbox's ledger, which this one does not know.
TAKES_AWAY = (
    "when_done: %s removes finished recipes from the inbox: no other picowatch may watch it, or it "
    "would treat them as deleted"
)
# A new ledger that is damaged so soon means a broken disk: a third one would not help.
HOPELESS_SECONDS = 60.0
_RESTARTED = "PICOWATCH_RESTARTED"  # the variable that says when, in Unix seconds


def build_and_run(
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
    """Run a daemon to its end; if its result says `restart`, another one can be started at once.

    `signals` are those that have come to end it. Raises Ended if one came while nothing could be
    written yet.
    """
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
                hurry=lambda: not once or bool(signals),
                by_make=by_make,
                until=until,
                settings_file=settings_file,
            )
        except LedgerCorrupt as error:  # what its parts read first is damaged
            result = RunResult()
            result.cannot_go_on(str(error), ledger_corrupt=True)
            return result
        log.info("picowatch %s is watching %s", __version__, settings.inbox)
        if settings.when_done != "keep" and not once:
            log.warning(TAKES_AWAY, settings.when_done)
        result = daemon.run(once)
        log.info("picowatch ended")
    return result


def is_hopeless(result: RunResult) -> bool:
    """Whether the ledger was damaged again, so soon after this process was restarted."""
    restarted = float(os.environ.get(_RESTARTED, 0))
    return result.ledger_corrupt and time.time() - restarted < HOPELESS_SECONDS


def restart() -> NoReturn:
    """Replace this process by a new one with the same arguments; its number stays.

    Signals that come meanwhile wait until the new one heeds them.
    """
    os.environ[_RESTARTED] = str(time.time())
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
