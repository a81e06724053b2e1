"""What the daemon's thread does each by itself: what cannot be done now holds up nothing else."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TypeVar

from picowatch.errors import LedgerCorrupt
from picowatch.files import retry
from picowatch.files.retry import PASSING, Ended, Retry, passes

log = logging.getLogger("picowatch")

T = TypeVar("T")


class Attempts:
    """Tries what there is to do, and what a full disk or a locked ledger hinders again later."""

    def __init__(
        self,
        retry: Retry,
        *,
        go_on: Callable[[], None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`go_on` is called between two of many; it may raise Ended."""
        self._retry = retry
        self._go_on = go_on
        self._steady = steady
        self._next_at = 0.0

    def are_due(self) -> bool:
        """Whether it is not too soon after something was hindered."""
        return self._steady() >= self._next_at

    def all_of(self, actions: Sequence[Callable[[], None]]) -> None:
        """Try each of them; nothing is waited for in a single run, so that the error is raised."""
        hindrances = [error for action in actions for error in _hindrance(action)]
        if hindrances:
            self._retry.wait_begins("daemon", hindrances[0])
            self._next_at = self._steady() + retry.RETRY_SECONDS
        else:
            self._retry.wait_ends("daemon")

    def each(self, queue: deque[T], do: Callable[[T], None], seconds: float = inf) -> None:
        """Do what is in the queue, for so long at most; what is hindered stays in it.

        Raises the first hindrance.
        """
        hindrances: list[Exception] = []
        end = self._steady() + seconds
        for _ in range(len(queue)):
            self._go_on()
            if self._steady() >= end:
                break  # a save may have come meanwhile
            if found := _hindrance(partial(do, queue[0])):
                hindrances += found
                queue.rotate(-1)
            else:
                queue.popleft()
        if hindrances:
            raise hindrances[0]


def _hindrance(action: Callable[[], None]) -> list[Exception]:
    """Do it, and give the error that is waited for, if there is one."""
    try:
        action()
    except PASSING as error:
        if not passes(error):
            raise
        return [error]
    return []


def safely(action: Callable[[], None]) -> None:
    """Do what the next round or start can do as well: only what passes is waited for."""
    try:
        action()
    except (Ended, LedgerCorrupt):
        raise
    except Exception as error:
        if passes(error):
            raise
        log.error("unexpected error: %s: %s", type(error).__name__, error)
        log.debug("unexpected", exc_info=True)
