"""What the parts of a running daemon share."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from picowatch.daemon.model_hashes import ModelHashes
from picowatch.daemon.settings_file import SettingsWatch
from picowatch.errors import LedgerCorrupt
from picowatch.files.essential import PASSING, RETRY_SECONDS, Ended, Writing
from picowatch.inbox.inbox import Inbox
from picowatch.ledger.ledger import CommitUnknown, Ledger
from picowatch.observers.console import Console
from picowatch.observers.observers import Observers
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.outbox import Outbox

log = logging.getLogger("picowatch")

# The longest transaction of accepted saves, unless a single save takes longer: no engine gets its
# next batch meanwhile. Of finished recipes as many are looked at, so that no save waits for all.
SLICE_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Mode:
    """How a daemon runs."""

    once: bool = False  # until what is in the inbox is done; it waits for no full disk
    only: tuple[str, ...] = ()  # the recipes and folders that a `picowatch make` runs it for
    until: Callable[[], bool] = lambda: False  # … or this returns true


class RunResult:
    """The outcome of one run of the daemon; all its threads write to it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.failed = 0  # images, and saves that were refused
        self.kept_waiting = 0  # images that a pause keeps queued at the end of a single run
        self.summary = ""  # the last block of summary.txt that it wrote
        self.last = ""  # the first line of the newest one, also if another run wrote it
        self.reason = ""  # why it cannot continue
        self.restart = False  # … and the next daemon can
        self.pause = 0.0  # … after this many seconds
        self.ledger_corrupt = False  # … because the ledger is damaged
        self.unexpected = False  # an error in a thread that nobody foresaw ended it

    @property
    def succeeded(self) -> bool:
        """Whether everything that this run had to do is done."""
        return not (self.reason or self.failed or self.kept_waiting)

    def cannot_go_on(
        self, reason: str, *, restart: bool = False, pause: float = 0, ledger_corrupt: bool = False
    ) -> None:
        """End the run. The first reason counts, or the first reason that a restart solves."""
        with self._lock:
            if self.restart or (self.reason and not restart):
                return
            self.reason, self.restart, self.pause = reason, restart, pause
            self.ledger_corrupt = ledger_corrupt

    def count_failure(self, count: int = 1) -> None:
        with self._lock:
            self.failed += count


def uptime() -> float:
    """Return seconds that go on while the machine sleeps, and whatever its clock is set to."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, eq=False)
class Lasting:
    """What outlasts a daemon and is handed to the next daemon."""

    mode: Mode
    console: Console
    observers: Observers
    watch: SettingsWatch
    stop: threading.Event  # ends every wait for a disk
    wake: threading.Event  # set after `stop`; ends the wait between two rounds
    began: float = field(default_factory=uptime)


@dataclass(kw_only=True, frozen=True, eq=False)
class Run(Lasting):
    """What the parts of one daemon share."""

    when_done: str  # the setting
    ledger: Ledger
    outbox: Outbox
    inbox: Inbox
    lock: OutboxLock
    hashes: ModelHashes
    writing: Writing
    result: RunResult
    to_count: set[str] = field(default_factory=set)  # recipes that changed since the totals
    new_names: dict[str, str] = field(default_factory=dict)  # of renamed recipes, by the former
    lacking_room: set[str] = field(default_factory=set)  # refused until fewer of their folder wait
    # … and accepted nevertheless, to be cancelled in the same round.
    to_cancel: set[str] = field(default_factory=set)

    @contextmanager
    def ended_by_errors(self, *, unexpected: bool = True) -> Iterator[None]:
        """End the run on an error that stops its work; the next start resumes the work."""
        try:
            yield
        except CommitUnknown as error:
            self.result.cannot_go_on(str(error), restart=True, pause=RETRY_SECONDS)
        except Ended:
            pass
        except LedgerCorrupt as error:
            self.result.cannot_go_on(str(error), restart=True, ledger_corrupt=True)
        except PASSING as error:
            self.result.cannot_go_on(f"cannot write: {error}")
        except Exception as error:
            if not unexpected:  # somebody else sees it, unlike what a thread raises
                raise
            log.debug("unexpected", exc_info=True)
            self.result.unexpected = True
            self.result.cannot_go_on(f"unexpected error: {type(error).__name__}: {error}")
