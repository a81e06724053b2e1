"""`picowatch run`: start watching, end at a signal, and say with which exit code."""

import logging
import os
import signal
import threading
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Collection
from contextlib import ExitStack
from types import FrameType

from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.daemon.supervisor import supervise
from picowatch.engine.process.child import ChildEngine
from picowatch.errors import FAILED, INTERRUPTED, CommandFailed
from picowatch.files.retry import PASSING, Ended
from picowatch.observers.console import Console, Verbosity, open_console
from picowatch.settings import Settings
from picowatch.signals import ALWAYS_ENDING, ENDING
from picowatch.work.result import RunResult


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--once", action="store_true", help="render what is in the inbox now, then exit"
    )
    how_much = parser.add_mutually_exclusive_group()
    how_much.add_argument("--quiet", action="store_true", help="show only warnings and errors")
    how_much.add_argument("--verbose", action="store_true", help="show and log every detail")
    parser.add_argument(
        "--log-format", choices=("text", "json"), help="format of log and console lines"
    )


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    if options.debug or options.verbose:
        logging.getLogger("picowatch").setLevel(logging.DEBUG)
    verbosity: Verbosity = "normal"
    if options.quiet or options.verbose:
        verbosity = "quiet" if options.quiet else "verbose"
    return run(load(), once=options.once, verbosity=verbosity)


def run(
    settings: Settings,
    once: bool,
    make_engine: MakeEngine = ChildEngine,
    verbosity: Verbosity = "normal",
) -> int:
    """Watch until SIGTERM or Ctrl-C, or render once; returns the exit code."""
    check_folders(settings)
    with ExitStack() as shown:
        console = open_console(verbosity, settings.log_format)
        shown.callback(console.close)
        try:
            result, interrupted = run_daemon(settings, make_engine, console, once=once)
        except Ended:
            return INTERRUPTED if once else 0
    if not once:
        return FAILED if result.reason else 0
    if interrupted:
        return INTERRUPTED
    return 0 if result.succeeded else FAILED


def run_daemon(
    settings: Settings,
    make_engine: MakeEngine,
    console: Console,
    *,
    once: bool,
    only: Collection[str] | None = None,
) -> tuple[RunResult, bool]:
    """How it went, and whether a signal ended it.

    `only` these recipes are its matter, if any are named. Raises Ended if a signal came while the
    outbox could not be written yet.
    """
    if "PICOWATCH_FAULT" in os.environ:
        from picowatch.testing.fault_points import arm

        arm(os.environ["PICOWATCH_FAULT"])
    stop, wake = threading.Event(), threading.Event()
    signals: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        signals.append(number)
        stop.set()
        wake.set()

    for number in ENDING:
        # `nohup` and shells have some of them ignored.
        if number in ALWAYS_ENDING or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, on_signal)
    try:
        result = supervise(
            settings, make_engine, console, once, only, stop=stop, wake=wake, signals=signals
        )
    except PASSING as error:
        raise CommandFailed(
            f"The outbox {settings.outbox} cannot be written: {error}.",
            "Free some space or allow writing, and start picowatch again.",
        ) from error
    return result, bool(signals)
