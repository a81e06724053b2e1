"""Builds a daemon from its parts, each after those that it needs; checks the folders first."""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from picowatch.daemon.attempts import Attempts, safely
from picowatch.daemon.backlog import Backlog
from picowatch.daemon.control import Control
from picowatch.daemon.finishing import Finishing
from picowatch.daemon.intake import INBOX_LAST_SEEN, Intake
from picowatch.daemon.loop import Daemon
from picowatch.daemon.recovery import Recovery, open_ledger, set_aside
from picowatch.daemon.reporting import RecentErrors, Reporting
from picowatch.daemon.settings_file import SettingsFile, SettingsWatch
from picowatch.daemon.watches import ClockWatch, OutboxWatch
from picowatch.engine.local import LocalEngines
from picowatch.engine.options import EngineOptions, cache_folder
from picowatch.engine.protocol import Engine, Executor
from picowatch.errors import OutboxInUseByMake, SettingsInvalid
from picowatch.extras import install_command
from picowatch.files.atomic import held
from picowatch.files.retry import Ended, Retry
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import Ledger
from picowatch.observers.console import Console
from picowatch.observers.observers import Observers
from picowatch.outbox.commands import Commands
from picowatch.outbox.encoding import check_format
from picowatch.outbox.gallery import GalleryMaintenance
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.log import close_log, open_log
from picowatch.outbox.outbox import Outbox
from picowatch.settings import LocalSettings, RaySettings, Settings
from picowatch.systemd import ALIVE, Beat, notify
from picowatch.work.pool import WorkerPool
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

LEDGER = "ledger.sqlite"
LOCK_SECONDS = 0.5  # between attempts while a `picowatch make` holds the outbox

MakeEngine = Callable[[EngineOptions], Engine]


def build_daemon(
    settings: Settings,
    make_engine: MakeEngine,
    console: Console,
    stack: ExitStack,
    *,
    stop: threading.Event,
    wake: threading.Event,
    keeps_trying: bool,
    damaged: str = "",
    hurry: Callable[[], bool] = lambda: True,
    only: Collection[str] | None = None,
    settings_file: SettingsFile | None = None,
    now: Callable[[], float] = time.time,
) -> Daemon:
    """All parts of the daemon, connected; `stack` closes what has to be closed.

    `wake` is to be set after `stop`. `keeps_trying`: a full disk is waited for. `damaged` says what
    is wrong with the ledger, if that is known. At the end hooks may go on until `hurry`. `only`
    these recipes are answered and rendered, if any are named. `settings_file` is read again when it
    is saved. Raises OutboxInUse, LedgerUnusable, SettingsInvalid, Ended, or what prevents writing
    to the outbox, if that is not waited for.
    """
    retry = Retry(stop, settings.outbox, keeps_trying=keeps_trying)
    lock, result = _take_outbox(settings, retry, stop, console, stack, by_make=only is not None)
    after_crash = lock.after_crash
    outbox, ledger = _open_storage(settings, retry, damaged, stack, check=after_crash)
    observers = Observers(settings, outbox, result, is_daemon=keeps_trying)
    stack.callback(observers.close, hurry)
    inbox = retry.until_begun(lambda: _inbox(settings, ledger, wake, only))
    backlog = Backlog()
    pool = WorkerPool(
        settings=settings,
        ledger=ledger,
        outbox=outbox,
        executor=_executor(settings, make_engine),
        on_published=observers.published,
        on_finished=partial(_note_finished, backlog, wake),
        on_preview=observers.preview,
        retry=retry,
        result=result,
        only=only,
    )
    errors = RecentErrors(observers.failed)
    reporting = Reporting(console, observers, inbox, ledger, outbox, pool, errors, retry, now)
    go_on = _go_on(retry, partial(_show_life, inbox, reporting))
    finishing = Finishing(settings, inbox, ledger, outbox, errors, go_on)
    intake = retry.until_begun(
        lambda: Intake(settings, inbox, ledger, outbox, finishing, errors, go_on, result, now)
    )
    commands = retry.until_begun(lambda: Commands(settings.outbox))
    control = Control(
        settings, inbox, ledger, outbox, backlog, pool, finishing, commands, errors, go_on
    )
    recovery = Recovery(
        inbox, ledger, outbox, backlog, pool, intake, control, errors, retry, go_on, after_crash
    )
    settings_watch = None
    if settings_file:
        problems = outbox.problems
        settings_watch = SettingsWatch(
            settings_file, settings, inbox, intake, pool, problems, errors
        )
    return Daemon(
        recovery=recovery,
        inbox=inbox,
        backlog=backlog,
        intake=intake,
        finishing=finishing,
        control=control,
        pool=pool,
        reporting=reporting,
        attempts=Attempts(retry, go_on=go_on),
        outbox_watch=OutboxWatch(lock, outbox, ledger, retry, result),
        clock_watch=ClockWatch(now),
        settings_watch=settings_watch,
        result=result,
        stop=stop,
        wake=wake,
    )


def _take_outbox(
    settings: Settings,
    retry: Retry,
    stop: threading.Event,
    console: Console,
    stack: ExitStack,
    *,
    by_make: bool,
) -> tuple[OutboxLock, RunResult]:
    """The outbox for this process alone, with its log, and how the run goes.

    The lock says at the end whether something was left undone.
    """
    lock = _lock(settings, retry, stop, by_make=by_make)
    result = RunResult(left_undone=lock.after_crash)
    stack.callback(lambda: lock.release(left_undone=result.left_undone))
    stack.enter_context(held(settings.outbox, lock.is_in_place))
    open_log(settings.outbox / "picowatch.log", settings.log_format, console.handler)
    stack.callback(close_log)
    return lock, result


def _open_storage(
    settings: Settings, retry: Retry, damaged: str, stack: ExitStack, *, check: bool
) -> tuple[Outbox, Ledger]:
    """The outbox and the ledger, which is rebuilt if it is lost or `damaged`."""
    file = settings.state_folder / LEDGER
    if damaged:
        set_aside(file, damaged)
    go_on = _go_on(retry, lambda: notify(*ALIVE))
    outbox = retry.until_begun(lambda: Outbox(settings, go_on))
    ledger = retry.until_begun(lambda: open_ledger(file, outbox, check=check, go_on=go_on))
    stack.callback(ledger.close)
    stack.callback(GalleryMaintenance(outbox.gallery, outbox.problems).close)
    return outbox, ledger


def _note_finished(backlog: Backlog, wake: threading.Event, recipe: str) -> None:
    """The last image of a recipe has ended."""
    backlog.finished.append(recipe)
    wake.set()


def _show_life(inbox: Inbox, reporting: Reporting) -> None:
    """In the middle of long work: events are noted and the status is shown, once that began."""
    if inbox.is_watched:
        inbox.listen(time.monotonic())
        safely(reporting.report)
    else:
        notify(*ALIVE)


def _go_on(retry: Retry, show_life: Callable[[], None]) -> Callable[[], None]:
    """What is called in the middle of long work: it must not look like a hang.

    It raises Ended once picowatch ends.
    """
    beat = Beat()

    def go_on() -> None:
        retry.go_on()
        if beat.is_due():
            show_life()

    return go_on


def _lock(settings: Settings, retry: Retry, stop: threading.Event, *, by_make: bool) -> OutboxLock:
    """The outbox's lock; a daemon waits for a `picowatch make` that holds it.

    A `make` may replace a daemon that crashed, which a service manager starts again. The manager
    is told that all is well: it would give up on a start that takes long.
    """
    warned = False
    while True:
        try:
            return retry.until_begun(lambda: OutboxLock(settings.outbox, by_make=by_make))
        except OutboxInUseByMake as error:
            if not retry.keeps_trying:
                raise
            if not warned:
                log.warning("waiting: %s", error.message)
            warned = True
            notify("READY=1", "WATCHDOG=1", f"STATUS=waiting: {error.message}")
            if stop.wait(LOCK_SECONDS):
                raise Ended from error


def _executor(settings: Settings, make_engine: MakeEngine) -> Executor:
    options = engine_options(settings)
    match settings.executor:
        case LocalSettings(engines=engines):
            return LocalEngines(options, engines, make_engine)
        case RaySettings():
            if find_spec("ray") is None:
                raise SettingsInvalid(
                    "executor: ray needs Ray, which is not installed.",
                    f"Install it: {install_command('ray')}",
                )
            from picowatch.engine.ray import RayEngines

            return RayEngines(options, settings.executor)


def engine_options(settings: Settings) -> EngineOptions:
    """What engines need of the settings."""
    return EngineOptions(
        models=settings.models,
        device=settings.device,
        precision=settings.precision,
        memory=settings.memory,
        hash_cache=settings.hash_cache,
        start_images=settings.start_images,
        compile=settings.compile,
        cache=cache_folder(),
    )


def _inbox(
    settings: Settings, ledger: Ledger, wake: threading.Event, only: Collection[str] | None
) -> Inbox:
    return Inbox(
        settings.inbox,
        ledger.known_recipes(),
        wake=wake,
        settle_seconds=settings.settle_seconds,
        rescan_seconds=settings.rescan_seconds,
        watch=settings.watch,
        last_seen=ledger.fact(INBOX_LAST_SEEN),
        only=only,
    )


def check_folders(settings: Settings, *, waits: bool = False) -> None:
    """Refuse what cannot work, in words, before anything is touched.

    A daemon `waits` for folders that it has used before: a share may be mounted later, and a disk
    writable again.
    """
    inbox, outbox = settings.inbox.resolve(), settings.outbox.resolve()
    is_used = os.path.exists(settings.state_folder / LEDGER)  # noqa: PTH110  (never raises)
    if os.path.isdir(inbox):  # noqa: PTH112  (never raises)
        if not os.access(inbox, os.R_OK | os.X_OK):
            raise SettingsInvalid(f"The inbox {settings.inbox} cannot be read.", _CHMOD)
    elif not (waits and is_used):
        raise SettingsInvalid(
            f"There is no inbox folder {settings.inbox.absolute()}.",
            "Create it, or run `picowatch init` to create all folders.",
        )
    for outer, inner, words in (
        (inbox, outbox, "The outbox lies inside the inbox"),
        (outbox, inbox, "The inbox lies inside the outbox"),
    ):
        if inner.is_relative_to(outer):
            raise SettingsInvalid(
                f"{words} ({settings.inbox}, {settings.outbox}): pictures would be taken for "
                "start images, and error files for recipes.",
                "Use separate folders.",
            )
    if not (waits and is_used and os.statvfs(outbox).f_flag & os.ST_RDONLY):
        _check_writable(outbox)
        if waits:
            _check_own_files(settings.outbox)
    check_format(settings)


_CHMOD = "Give the user that runs picowatch the necessary permission."
# What is in the outbox and written in place; a missing one is created.
_OWN = (
    "picowatch.log", "images.jsonl", ".picowatch", ".picowatch/lock", f".picowatch/{LEDGER}",
    ".picowatch/memos.jsonl", ".picowatch/stars.jsonl", ".picowatch/commands",
    ".picowatch/gallery", ".picowatch/gallery/thumbs", ".picowatch/start-images",
)  # fmt: skip


def _check_writable(outbox: Path) -> None:
    existing = outbox
    while not os.path.exists(existing):  # noqa: PTH110  (never raises)
        existing = existing.parent
    if not existing.is_dir():
        raise SettingsInvalid(f"{existing} is a file; the outbox {outbox} must be a folder.")
    if os.statvfs(existing).f_flag & os.ST_RDONLY:
        raise SettingsInvalid(
            f"The outbox {outbox} cannot be written: Read-only file system.",
            "Mount it writable, or in a service name it in ReadWritePaths= (docs/service.md).",
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise SettingsInvalid(f"The outbox {outbox} cannot be written.", _CHMOD)


def _check_own_files(outbox: Path) -> None:
    """Another user's, as after a start with sudo, would be waited for like a full disk."""
    for path in (outbox / own for own in _OWN):
        mode = os.W_OK | (os.X_OK if path.is_dir() else 0)
        if os.path.lexists(path) and not os.access(path, mode):
            words = f"The outbox {outbox} cannot be written: no permission for {path}."
            raise SettingsInvalid(words, _CHMOD)
