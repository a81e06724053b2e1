"""`picowatch run`: start watching, end at a signal, and say with which exit code."""

import logging
import os
import threading
from argparse import Namespace
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from picowatch.daemon.build import (
    MakeEngine,
    build_daemon,
    check_folders,
    checked,
    is_hopeless,
    load_at_start,
    restart,
)
from picowatch.daemon.daemon import Mode
from picowatch.daemon.run import RunResult
from picowatch.daemon.settings_file import SettingsFile
from picowatch.engine.child import ChildEngine
from picowatch.errors import FAILED, INTERRUPTED, CommandFailed
from picowatch.files.retry import PASSING, Ended
from picowatch.observers.console import Console, Verbosity, open_console
from picowatch.settings import FILE_NAME, Settings
from picowatch.signals import ended_by_signals

log = logging.getLogger("picowatch")

LAST_SECONDS = 0.5  # to leave things in order, where the end is overdue
RESTART = -1  # instead of an exit code: a new process is to replace this one


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    if options.debug or options.verbose:
        logging.getLogger("picowatch").setLevel(logging.DEBUG)
    verbosity: Verbosity = "normal"
    if options.quiet or options.verbose:
        verbosity = "quiet" if options.quiet else "verbose"
    file = SettingsFile(options.settings or Path(FILE_NAME), lambda: checked(load()))
    settings = load_at_start(file.load)
    code = run(
        settings,
        once=options.once,
        verbosity=verbosity,
        settings_file=None if options.once else file,
    )
    if code == RESTART:
        restart(settings)
    return code


def run(
    settings: Settings,
    once: bool,
    make_engine: MakeEngine = ChildEngine,
    verbosity: Verbosity = "normal",
    settings_file: SettingsFile | None = None,
) -> int:
    """Watch until SIGTERM or Ctrl-C, or render once; returns the exit code, or RESTART.

    `settings_file` is read again when it is saved.
    """
    check_folders(settings, waits=not once)
    code = INTERRUPTED if once else 0
    with ExitStack() as shown:
        console = open_console(verbosity, settings.log_format)
        shown.callback(console.close)
        result, interrupted = run_daemon(
            settings,
            make_engine,
            console,
            Mode(once=once, settings_file=settings_file),
            overdue=lambda: _leave(console, code),
        )
    if result.restart and not interrupted and not is_hopeless(result):
        return RESTART
    if not once:
        starts_over = interrupted and result.restart  # a signal came just before that
        return FAILED if result.reason and not starts_over else 0
    if interrupted:
        return code
    return 0 if result.succeeded else FAILED


def _leave(console: Console, code: int) -> None:
    """End in the middle of something that cannot be interrupted: the next start goes on with it.

    The disk and the terminal may be what is waited for: neither keeps it alive.
    """

    def finish() -> None:
        log.info("ending in the middle of something; the next start goes on with it")
        console.close()

    try:
        last = threading.Thread(target=finish, daemon=True)
        last.start()
        last.join(LAST_SECONDS)
    finally:
        os._exit(code)


def run_daemon(
    settings: Settings,
    make_engine: MakeEngine,
    console: Console,
    mode: Mode,
    overdue: Callable[[], None] = lambda: None,
) -> tuple[RunResult, bool]:
    """Run a daemon; return its result, and whether a signal ended it.

    `overdue` is called if it has not ended soon after a signal.
    """
    stop, wake = threading.Event(), threading.Event()
    try:
        with ended_by_signals(stop, wake, overdue) as signals, ExitStack() as stack:
            daemon = build_daemon(
                settings,
                make_engine,
                console,
                stack,
                stop=stop,
                wake=wake,
                mode=mode,
                signals=signals,
            )
            result = daemon.run()
    except Ended:  # while it waited for the outbox
        return RunResult(), True
    except PASSING as error:
        raise CommandFailed(
            f"The outbox {settings.outbox} cannot be written: {error}.",
            "Free some space or allow writing, and start picowatch again.",
        ) from error
    return result, bool(signals)
