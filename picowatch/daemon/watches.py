"""What changes around a running daemon: the clock is set, the outbox is moved or unmounted."""

import logging
import time
from collections.abc import Callable

from picowatch.files.atomic import FolderAway
from picowatch.files.retry import Retry
from picowatch.ledger.ledger import Ledger
from picowatch.outbox.lock import OutboxLock, Whereabouts
from picowatch.outbox.outbox import Outbox
from picowatch.outbox.status import duration
from picowatch.work.result import RunResult

log = logging.getLogger("picowatch")

CLOCK_JUMP_SECONDS = 60.0  # of the wall clock against the monotonic one; less is not reported


class ClockWatch:
    """Notices that the clock was set, or that the machine slept."""

    def __init__(self, now: Callable[[], float]) -> None:
        """`now` is the wall clock."""
        self._now = now
        self._ahead = now() - time.monotonic()

    def has_jumped(self) -> bool:
        """Whether it has since the last look."""
        ahead = self._now() - time.monotonic()
        jump, self._ahead = ahead - self._ahead, ahead
        if abs(jump) < CLOCK_JUMP_SECONDS:
            return False
        log.warning(
            "the clock jumped %s by %s; the whole inbox is compared",
            "ahead" if jump > 0 else "back",
            duration(abs(jump)),
        )
        return True


class OutboxWatch:
    """Notices that the outbox is away; meanwhile nothing is written anywhere."""

    def __init__(
        self, lock: OutboxLock, outbox: Outbox, ledger: Ledger, retry: Retry, result: RunResult
    ) -> None:
        self._lock = lock
        self._outbox = outbox
        self._ledger = ledger
        self._retry = retry
        self._result = result
        self.is_away = False

    def is_in_place(self) -> bool:
        """Look. Another outbox or ledger in the place of the daemon's own ends the run."""
        where = self._lock.whereabouts()
        if where is Whereabouts.AWAY:
            if not self.is_away:
                log.warning(
                    "the outbox %s is not there, or another folder is in its place; nothing is "
                    "written until it is back",
                    self._outbox.root,
                )
            self.is_away = True
            self._retry.wait_begins("outbox", FolderAway(self._outbox.root))
            return False
        if where is Whereabouts.REPLACED:
            words = f"the outbox {self._outbox.root} was replaced, or its .picowatch deleted"
            self._result.cannot_go_on(words, outbox_replaced=True)
            return False
        if not self._ledger.is_in_place():
            words = "the ledger was deleted or replaced"
            self._result.cannot_go_on(words, outbox_replaced=True)
            return False
        if self.is_away:
            self.is_away = False
            log.info("the outbox %s is back", self._outbox.root)
            self._retry.wait_ends("outbox")
        return True
