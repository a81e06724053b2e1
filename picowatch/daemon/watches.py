"""What changes around a running daemon: the clock is set, the outbox is moved or unmounted."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(eq=False)
class OutboxWatch:
    """Notices that the outbox is away; meanwhile nothing is written anywhere."""

    lock: OutboxLock
    outbox: Outbox
    ledger: Ledger
    retry: Retry
    result: RunResult
    is_away: bool = False

    def is_in_place(self) -> bool:
        """Check. Another outbox or ledger at the path of the daemon's own ends the run."""
        where = self.lock.whereabouts()
        if where is Whereabouts.AWAY:
            if not self.is_away:
                log.warning(
                    "the outbox %s is not there, or another folder is in its place; nothing is "
                    "written until it is back",
                    self.outbox.root,
                )
            self.is_away = True
            self.retry.wait_begins("outbox", FolderAway(self.outbox.root))
            return False
        if where is Whereabouts.REPLACED:
            words = f"the outbox {self.outbox.root} was replaced, or its .picowatch deleted"
            self.result.cannot_go_on(words, outbox_replaced=True)
            return False
        if not self.ledger.is_in_place():
            words = "the ledger was deleted or replaced"
            self.result.cannot_go_on(words, outbox_replaced=True)
            return False
        if self.is_away:
            self.is_away = False
            log.info("the outbox %s is back", self.outbox.root)
            self.retry.wait_ends("outbox")
        return True
