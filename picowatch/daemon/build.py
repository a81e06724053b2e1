"""Builds a daemon from its parts, and checks the folders first."""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from picowatch.catalog import Catalog
from picowatch.daemon.accept import Accepting
from picowatch.daemon.batch_sizes import BatchSizes
from picowatch.daemon.clock import Clock
from picowatch.daemon.dropped import DroppedPictures
from picowatch.daemon.model_hashes import ModelHashes
from picowatch.daemon.pool import WorkerPool
from picowatch.daemon.publish import Publisher
from picowatch.daemon.round import Daemon
from picowatch.daemon.run import Lasting, Run, RunResult
from picowatch.daemon.save_outcome import SaveReader
from picowatch.daemon.worker import Shared
from picowatch.engine.process.child import CopyEngines, LocalEngines
from picowatch.engine.protocol import Engine, EngineOptions, Executor, cache_folder
from picowatch.errors import SettingsInvalid, install_command
from picowatch.files.atomic import held
from picowatch.files.essential import Writing
from picowatch.inbox.folder import GIVE_PERMISSION, InboxFolder
from picowatch.inbox.inbox import Inbox
from picowatch.inbox.named_pictures import NamedPictures
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rebuild import open_ledger, set_aside
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.log import LogFile, logging_to, set_log_format
from picowatch.outbox.outbox import Outbox
from picowatch.settings.settings import Settings
from picowatch.settings.values import LocalSettings, RaySettings

LEDGER = "ledger.sqlite"

MakeEngine = Callable[[EngineOptions], Engine]


def build_daemon(
    make_engine: MakeEngine, lasting: Lasting, lock: OutboxLock, writing: Writing, stack: ExitStack
) -> Daemon:
    """Connect all parts of a daemon; `stack` closes what has to be closed.

    A damaged ledger is set aside at the end. Raises SettingsInvalid, LedgerCorrupt, or the error
    that prevents writing to the outbox.
    """
    mode, settings, observers = lasting.mode, lasting.watch.settings, lasting.observers
    result, path = RunResult(), settings.state_folder / LEDGER
    stack.enter_context(held(settings.outbox, lock.is_in_place))
    file = LogFile(settings.outbox / "picowatch.log", writing)
    stack.callback(file.close)
    stack.enter_context(logging_to(file))
    set_log_format(settings.log_format)
    outbox = _outbox(settings, writing)
    stack.callback(_set_aside_if_damaged, lock, result, path)
    ledger = open_ledger(path, outbox.listing)
    stack.callback(ledger.close)
    observers.serve_metrics(None if mode.once else settings.metrics_address)
    observers.use(settings.inbox, outbox, writing, settings.hooks, settings.hook_seconds)
    stack.callback(observers.remove_preview)
    run = Run(
        **vars(lasting),
        when_done=settings.when_done,
        ledger=ledger,
        outbox=outbox,
        inbox=_inbox(settings, lasting, outbox, ledger),
        lock=lock,
        hashes=_hashes(settings, lasting, writing),
        writing=writing,
        result=result,
    )
    options = _options(settings)
    executor, copying = _executor(settings, options, make_engine), CopyEngines(options)
    stack.callback(executor.close)
    stack.callback(copying.close)
    pool = WorkerPool(run, executor, copying, _shared(settings, run))
    return Daemon(run, pool, _accepting(settings, run))


def _outbox(settings: Settings, writing: Writing) -> Outbox:
    return Outbox(
        settings.outbox,
        writing,
        file_name=settings.file_name,
        picture_format=settings.format,
        quality=settings.quality,
        sidecar=settings.sidecar,
        ai_mark=settings.ai_mark,
    )


def _inbox(settings: Settings, lasting: Lasting, outbox: Outbox, ledger: Ledger) -> Inbox:
    mode, wake, quiet = lasting.mode, lasting.wake, settings.settle_seconds
    given = settings.inbox, outbox.root, ledger, wake, quiet, mode.only
    most_pixels, folders = settings.most_photo_pixels, settings.named_folders
    return Inbox(*given, once=mode.once, most_pixels=most_pixels, folders=folders)


def _hashes(settings: Settings, lasting: Lasting, writing: Writing) -> ModelHashes:
    models, cache, named = settings.models, settings.hash_cache, settings.names_models
    catalog = Catalog(models, cache, must_exist=named, has_ended=writing.has_ended)
    return ModelHashes(catalog, settings.checkpoint, settings.settle_seconds, lasting.wake)


def _shared(settings: Settings, run: Run) -> Shared:
    catalog = Catalog(settings.models, settings.hash_cache)
    keep_exif, ai_mark = settings.keep_exif, settings.ai_mark
    return Shared(
        publisher=Publisher(run, catalog, keep_exif=keep_exif, ai_mark=ai_mark),
        batch_sizes=BatchSizes(settings.batch_size, run.ledger),
        clock=Clock(run.ledger),
        dropped=DroppedPictures(run.inbox.files, settings.start_images, run.ledger),
        shares=settings.shares,
        models=settings.models,
        unload_after_minutes=settings.unload_after_minutes,
        stall_seconds=settings.stall_seconds,
        max_attempts=settings.max_attempts,
    )


def _accepting(settings: Settings, run: Run) -> Accepting:
    folders = settings.inbox, settings.outbox
    pixels = settings.most_picture_pixels, settings.most_photo_pixels
    pictures_of = partial(NamedPictures, *folders, *pixels, opened=run.inbox.reasons.opened)
    most = settings.max_images_per_save
    saves = SaveReader(run.inbox.files, run.hashes, pictures_of, most, settings.max_priority)
    return Accepting(run, saves, settings.start_images, settings.max_queued)


def _set_aside_if_damaged(lock: OutboxLock, result: RunResult, ledger: Path) -> None:
    """Set a damaged ledger, which is closed by now, aside: the next start makes a new ledger."""
    if result.ledger_corrupt and lock.is_in_place():
        with suppress(OSError):
            set_aside(ledger, result.reason)


def _options(settings: Settings) -> EngineOptions:
    return EngineOptions(
        models=settings.models,
        device=settings.device,
        precision=settings.precision,
        memory=settings.memory,
        hash_cache=settings.hash_cache,
        start_images=settings.start_images,
        compile=settings.compile,
        graphs=settings.graphs,
        cache=cache_folder(),
        preview_seconds=settings.preview_seconds,
        debug=logging.getLogger("picowatch").isEnabledFor(logging.DEBUG),
    )


def _executor(settings: Settings, options: EngineOptions, make_engine: MakeEngine) -> Executor:
    match settings.executor:
        case LocalSettings(engines=engines):
            own = (replace(options, ordinal=at, engines=engines) for at in range(engines))
            return LocalEngines(map(make_engine, own))
        case RaySettings() as cluster:
            if find_spec("ray") is None:
                raise SettingsInvalid(
                    "executor: ray needs Ray, which is not installed.",
                    f"Install it: {install_command('ray')}",
                )
            from picowatch.engine.process.ray import RayEngines

            return RayEngines(options, cluster)


def check_folders(settings: Settings, *, waits: bool = False, writes: bool = True) -> Settings:
    """Return the settings; refuse folders that cannot work, before anything is written.

    A daemon `waits` for folders that it has used before: a share may be mounted later, and a disk
    may become writable again. Who only makes requests writes nothing in the outbox.
    """
    inbox, outbox = settings.inbox.resolve(), settings.outbox.resolve()
    is_used = os.path.exists(settings.state_folder / LEDGER)  # noqa: PTH110  (never raises)
    if os.path.isdir(inbox):  # noqa: PTH112  (never raises)
        InboxFolder(settings.inbox).check_readable()
    elif os.path.exists(inbox) or not (waits and is_used):  # noqa: PTH110  (never raises)
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
    if writes and not (waits and is_used and os.statvfs(outbox).f_flag & os.ST_RDONLY):
        _check_writable(outbox)
        _check_own_files(settings.outbox, waits=waits)
    return settings


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
        raise SettingsInvalid(f"The outbox {outbox} cannot be written.", GIVE_PERMISSION)


# What the daemon needs in the outbox and writes in place, and folders; missing folders are created.
_FILES = (
    "images.jsonl", ".picowatch/lock", f".picowatch/{LEDGER}", f".picowatch/{LEDGER}-journal",
)  # fmt: skip
_FOLDERS = (".picowatch", ".picowatch/commands", ".picowatch/start-images")


def _check_own_files(outbox: Path, *, waits: bool) -> None:
    """Refuse what a daemon would wait for forever.

    Opening a pipe blocks until its other end is opened; for SQLite, a folder in place of its file
    is a disk that may come back; a file of another user, as after sudo, is like a full disk.
    """
    for path in (outbox / name for name in (*_FILES, *_FOLDERS)):
        if not os.path.exists(path):  # noqa: PTH110  (never raises)
            continue
        is_folder = str(path.relative_to(outbox)) in _FOLDERS
        if not (os.path.isdir(path) if is_folder else os.path.isfile(path)):  # noqa: PTH112, PTH113
            what = "folder" if is_folder else "regular file"
            raise SettingsInvalid(f"{path} is not a {what}.", "Move it away.")
        if waits and not os.access(path, os.W_OK | (os.X_OK if is_folder else 0)):
            words = f"The outbox {outbox} cannot be written: no permission for {path}."
            raise SettingsInvalid(words, GIVE_PERMISSION)
