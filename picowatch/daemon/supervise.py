"""Runs one daemon after the other in this process, under one lock of the outbox.

A daemon ends to start over when its settings were saved, or its ledger or outbox was lost. The next
one goes on with what is there then, and with the new settings; if it cannot be built with them, the
settings stay as they were. Signals, hooks and metrics outlast each daemon.
"""

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from picowatch.daemon.build import MakeEngine, build_daemon
from picowatch.daemon.round import Daemon
from picowatch.daemon.run import Lasting, Mode, RunResult
from picowatch.daemon.settings_file import SettingsFile, SettingsWatch
from picowatch.errors import CommandFailed, OutboxInUseByMake
from picowatch.files.atomic import FolderAway
from picowatch.files.essential import PASSING, RETRY_SECONDS, Ended, Writing, passes
from picowatch.ledger.ledger import CommitUnknown
from picowatch.observers.console import Console
from picowatch.observers.observers import Observers
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.log import logging_to, set_log_format
from picowatch.service import notify
from picowatch.settings.settings import Settings
from picowatch.signals import ended_by_signals

log = logging.getLogger("picowatch")

START = ("start", "")  # the step, for `Writing`
SINGLE_RUN = 10  # settle times that `run --once` waits for anything
LOCK_SECONDS = 0.5  # between attempts while a `picowatch make` holds the outbox
# A new ledger that is damaged so soon means a broken disk: a third ledger would not help. A single
# run does not start over for another commit that may be written or not, either.
HOPELESS_SECONDS = 60.0


def run_daemon(
    settings: Settings,
    make_engine: MakeEngine,
    console: Console,
    mode: Mode,
    file: SettingsFile | None = None,
    overdue: Callable[[], None] = lambda: None,
) -> tuple[RunResult, bool]:
    """Run daemons until one ends for good; return its result, and whether a signal ended it."""
    supervisor = Supervisor(settings, make_engine, console, mode, file)
    with ended_by_signals(supervisor.stop, supervisor.wake, overdue) as supervisor.signals:
        result = supervisor.run()
    return result, bool(supervisor.signals)


class Supervisor:
    """Runs daemons until one ends for good, or there are `signals`, after which `stop` is set."""

    def __init__(
        self,
        settings: Settings,
        make_engine: MakeEngine,
        console: Console,
        mode: Mode,
        file: SettingsFile | None,
        stop: threading.Event | None = None,
        wake: threading.Event | None = None,
    ) -> None:
        self.signals: Sequence[int] = ()
        self.stop, self.wake = stop or threading.Event(), wake or threading.Event()
        self._make_engine, self._mode = make_engine, mode
        self._watch = SettingsWatch(settings, file)
        self._observers = Observers()
        self._lasting = Lasting(mode, console, self._observers, self._watch, self.stop, self.wake)
        self._lock: OutboxLock | None = None
        self._used: Path | None = None  # the last daemon's outbox
        self._damaged_at = float("-inf")  # the ledger
        self._said = ""  # about a `picowatch make`
        self._working_directory = Path.cwd()

    def run(self) -> RunResult:
        """Return the last daemon's result, or an empty result if a signal came before it was built.

        Raises OutboxInUse, SettingsInvalid or CommandFailed if a daemon cannot be built.
        """
        with logging_to(self._lasting.console.handler):
            set_log_format(self._watch.settings.log_format)
            try:
                while (result := self._run_one()).restart:
                    self.stop.clear()
                    if self.signals:  # they came before that
                        self.stop.set()
                    self.stop.wait(result.pause)
                return result
            finally:
                self._observers.close(self._hurries)
                if self._lock:
                    self._lock.release()

    def _run_one(self) -> RunResult:
        with suppress(OSError):  # a backup may be in its place, and engines start there
            os.chdir(self._working_directory)
        with ExitStack() as parts:
            try:
                daemon = self._built(parts)
            except Ended:
                return RunResult()
            result = daemon.run()
            daemon.lock.ended_well = not result.unexpected
            if result.ledger_corrupt or (result.pause and self._mode.once):
                before, self._damaged_at = self._damaged_at, time.monotonic()
                result.restart = self._damaged_at - before > HOPELESS_SECONDS
                if not result.restart:
                    log.error("picowatch exits: %s", result.reason)
            if not result.restart:
                self._observers.close(self._hurries)  # as long as there is a log
            return result

    def _built(self, parts: ExitStack) -> Daemon:
        """Return a daemon with the newest settings that work, once disks and a `make` allow it."""
        settings: Settings | None = None
        while not self.stop.is_set():
            if settings is not self._watch.take():
                settings = self._watch.settings
                limit = SINGLE_RUN * settings.settle_seconds if self._mode.once else None
                writing = Writing(self.stop, settings.outbox, limit)
            with ExitStack() as attempt:
                try:
                    daemon = self._build(writing, attempt)
                except Exception as error:  # whatever it is, the settings from before work
                    pause = self._pause_after(error, writing)
                else:
                    writing.works(START)
                    self._watch.keep()
                    parts.enter_context(attempt.pop_all())
                    return daemon
            self.stop.wait(pause)
            self._watch.look()
        raise Ended

    def _build(self, writing: Writing, stack: ExitStack) -> Daemon:
        outbox = self._watch.settings.outbox
        lock = self._lock_of(outbox)
        try:
            daemon = build_daemon(self._make_engine, self._lasting, lock, writing, stack)
        except BaseException as error:
            if not self._is_another(outbox):  # nobody else begins there while it is waited for
                self._keep(lock)
            elif lock is not self._lock:
                lock.release()
            if isinstance(error, CommitUnknown):  # the next attempt reads what counts
                raise sqlite3.OperationalError(str(error)) from error
            raise
        self._keep(lock)
        self._used = outbox
        return daemon

    def _keep(self, lock: OutboxLock) -> None:
        """Hold this lock from now on, and no other."""
        if self._lock and lock is not self._lock:
            self._lock.release()
        self._lock = lock

    def _lock_of(self, outbox: Path) -> OutboxLock:
        """Return the lock that is held, or another outbox's. Raises FolderAway if it is away."""
        if self._lock and self._lock.is_of(outbox):
            self._lock.outbox = outbox  # perhaps a new name
            return self._lock
        if self._lock and self._lock.outbox == outbox and not self._lock.is_replaced():
            raise FolderAway(outbox)
        return OutboxLock(outbox, by_make=bool(self._mode.only))

    def _is_another(self, outbox: Path) -> bool:
        """Whether there was a daemon before, with another outbox."""
        return self._used not in (None, outbox)

    def _pause_after(self, error: Exception, writing: Writing) -> float:
        """Return the seconds until another attempt, or raise the error if none would help."""
        outbox = self._watch.settings.outbox
        if isinstance(error, PASSING):
            # Another outbox has to work at once: the one from before does, and says what is wrong.
            if passes(error) and writing.keeps_trying and not self._is_another(outbox):
                writing.refused(START, error)
                return RETRY_SECONDS
            words = f"The outbox {outbox} cannot be written: {error}."
            error = CommandFailed(words, "Free some space, or allow writing.")
        if not isinstance(error, Ended) and self._watch.refuse(error):
            return 0.0
        if isinstance(error, OutboxInUseByMake) and writing.keeps_trying:
            # A service manager, which would give up on a slow start, is told that it is ready.
            notify("READY=1", "WATCHDOG=1", f"STATUS=waiting: {error.message}")
            if error.message != self._said:
                log.warning("waiting: %s", error.message)
                self._said = error.message
            return LOCK_SECONDS
        raise error

    def _hurries(self) -> bool:
        """Whether hooks are not waited for."""
        return not self._mode.once or bool(self.signals)
