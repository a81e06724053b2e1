"""`picowatch run`: build the parts, watch until told to stop."""

import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from picowatch import __version__
from picowatch.answering import Answers
from picowatch.catalog import Catalog
from picowatch.console import Console, open_console
from picowatch.daemon import Daemon
from picowatch.engine.child import ChildEngine
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Engine
from picowatch.errors import PicowatchError, SettingsInvalid
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.outbox.commands import Commands
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.log import close_log, open_log
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.start_images import FOLDER, StartImages
from picowatch.patience import PASSING, Ended, Patience
from picowatch.publishing import Publisher
from picowatch.restoring import open_ledger, set_aside
from picowatch.settings import Settings
from picowatch.worker import Worker

log = logging.getLogger("picowatch")

FAILED = 1
INTERRUPTED = 130
LEDGER = "ledger.sqlite"
# A new ledger that is damaged so soon is a broken disk, and a third one would be no better.
HOPELESS_SECONDS = 60.0


MakeEngine = Callable[[EngineOptions], Engine]


def run(settings: Settings, once: bool, make_engine: MakeEngine = ChildEngine) -> int:
    """Watch until SIGTERM or Ctrl-C, or `once`; gives the exit code."""
    if "PICOWATCH_FAULT" in os.environ:
        from picowatch.faults import arm

        arm(os.environ["PICOWATCH_FAULT"])
    stop, wake = threading.Event(), threading.Event()
    signals: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        signals.append(number)
        stop.set()
        wake.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    check_folders(settings)
    with ExitStack() as shown:
        console = open_console()
        shown.callback(console.close)
        try:
            daemon, succeeded = _run_daemons(
                settings, make_engine, console, once=once, stop=stop, wake=wake, signals=signals
            )
        except Ended:
            return INTERRUPTED if once else 0
        except PASSING as error:
            raise PicowatchError(
                f"The outbox {settings.outbox} cannot be written: {error}."
            ) from error
    if not once:
        return FAILED if daemon.broken else 0
    if signals:
        return INTERRUPTED
    return 0 if succeeded else FAILED


def _run_daemons(
    settings: Settings,
    make_engine: MakeEngine,
    console: Console,
    *,
    once: bool,
    stop: threading.Event,
    wake: threading.Event,
    signals: list[int],
) -> tuple[Daemon, bool]:
    """One daemon, and another one where its ledger turned out damaged; and whether it succeeded."""
    damaged = ""
    while True:
        started = time.monotonic()
        with ExitStack() as stack:
            daemon = build_daemon(
                settings,
                make_engine,
                console,
                stack,
                stop=stop,
                wake=wake,
                patient=not once,
                damaged=damaged,
            )
            log.info("picowatch %s watches %s", __version__, settings.inbox)
            succeeded = daemon.run(once)
            log.info("picowatch ended")
        hopeless = damaged and time.monotonic() - started < HOPELESS_SECONDS
        if signals or hopeless or not daemon.ledger_corrupt:
            return daemon, succeeded
        damaged = daemon.broken
        stop.clear()
        if signals:  # between the two lines above
            stop.set()


def build_daemon(
    settings: Settings,
    make_engine: MakeEngine,
    console: Console,
    stack: ExitStack,
    *,
    stop: threading.Event,
    wake: threading.Event,
    patient: bool,
    damaged: str = "",
    now: Callable[[], float] = time.time,
) -> Daemon:
    """All parts of the daemon, connected; `stack` closes what has to be closed.

    `wake` is to be set after `stop`. `patient`: a full disk is waited for. `damaged` says what
    is wrong with the ledger, if that is known. Raises OutboxInUse, LedgerUnusable, Ended, or
    what stands in the way of writing the outbox, if that is not waited for.
    """
    patience = Patience(stop, settings.outbox, patient=patient)
    lock = patience.until_done("start", lambda: OutboxLock(settings.outbox))
    stack.callback(lambda: lock.release(left_undone=patience.left_undone))
    open_log(settings.outbox / "picowatch.log", settings.log_format, console.handler)
    stack.callback(close_log)
    state = settings.outbox / ".picowatch"
    hash_cache = state / "hashes.json"
    if damaged:
        set_aside(state / LEDGER, damaged)
    outbox = patience.until_done("start", lambda: Outbox(settings.outbox, settings.file_name))
    ledger = patience.until_done(
        "start", lambda: open_ledger(state / LEDGER, outbox, check=lock.after_crash)
    )
    stack.callback(ledger.close)
    inbox = _inbox(settings, ledger, wake)
    catalog = Catalog(settings.models, hash_cache)
    start_images = StartImages(settings.inbox, settings.outbox)
    finished: deque[str] = deque()

    def on_finished(recipe: str) -> None:
        finished.append(recipe)
        wake.set()

    publisher = Publisher(
        ledger,
        outbox,
        catalog=Catalog(settings.models, hash_cache, keep_hashes=False),
        on_finished=on_finished,
        patience=patience,
    )
    engine = make_engine(_engine_options(settings, hash_cache, state / FOLDER))
    return Daemon(
        settings,
        inbox,
        ledger,
        outbox,
        Answers(settings, inbox, ledger, outbox, catalog, start_images, stop=stop, now=now),
        Worker(
            settings,
            ledger,
            outbox.names,
            engine,
            publisher,
            on_finished=on_finished,
            patience=patience,
        ),
        publisher,
        console,
        finished,
        patience,
        patience.until_done("start", lambda: Commands(settings.outbox)),
        after_crash=lock.after_crash,
        stop=stop,
        wake=wake,
        now=now,
    )


def _engine_options(settings: Settings, hash_cache: Path, start_images: Path) -> EngineOptions:
    return EngineOptions(
        models=settings.models,
        device=settings.device,
        precision=settings.precision,
        memory=settings.memory,
        hash_cache=hash_cache,
        start_images=start_images,
    )


def _inbox(settings: Settings, ledger: Ledger, wake: threading.Event) -> Inbox:
    known_inode = ledger.fact("inbox inode")
    return Inbox(
        settings.inbox,
        ledger.known_recipes(),
        wake=wake,
        settle_seconds=settings.settle_seconds,
        rescan_seconds=settings.rescan_seconds,
        watch=settings.watch,
        known_inode=int(known_inode) if known_inode else None,
    )


def check_folders(settings: Settings) -> None:
    """Refuse what cannot work, in words, before anything is touched."""
    inbox, outbox = settings.inbox.resolve(), settings.outbox.resolve()
    if not inbox.is_dir():
        raise SettingsInvalid(
            f"There is no inbox folder {settings.inbox}.",
            "Make it, or let `picowatch init` make all folders.",
        )
    if not os.access(inbox, os.R_OK | os.X_OK):
        raise SettingsInvalid(f"The inbox {settings.inbox} cannot be read.", _CHMOD)
    for outer, inner, words in (
        (inbox, outbox, "The outbox lies inside the inbox"),
        (outbox, inbox, "The inbox lies inside the outbox"),
    ):
        if inner.is_relative_to(outer):
            raise SettingsInvalid(
                f"{words} ({settings.inbox}, {settings.outbox}): pictures would be taken for "
                "recipes' files, and errors for recipes.",
                "Give them separate folders.",
            )
    _check_writable(outbox)


_CHMOD = "Give the user that runs picowatch the permission."


def _check_writable(outbox: Path) -> None:
    existing = outbox
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        raise SettingsInvalid(f"{existing} is a file; the outbox {outbox} must be a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SettingsInvalid(f"The outbox {outbox} cannot be written.", _CHMOD)
