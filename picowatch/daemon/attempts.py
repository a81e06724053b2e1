"""Actions of the daemon's thread, each tried by itself: one that fails holds up no other."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TypeVar

from picowatch.files import retry
from picowatch.files.retry import PASSING, Retry, passes, unexpected

log = logging.getLogger("picowatch")

T = TypeVar("T")


class Attempts:
    """Tries actions, and again later those that a full disk or a locked ledger prevented."""

    def __init__(
        self,
        retry: Retry,
        *,
        go_on: Callable[[], None],
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        """`go_on` is called between two actions; it may raise Ended."""
        self._retry = retry
        self._go_on = go_on
        self._steady = steady
        self._next_at = 0.0

    def are_due(self) -> bool:
        """Whether it is not too soon after a failure."""
        return self._steady() >= self._next_at

    def all_of(self, actions: Sequence[Callable[[], None]]) -> None:
        """Try each of them. A single run waits for nothing: it raises the first error."""
        errors = [error for action in actions if (error := _passing_error(action))]
        if errors:
            self._retry.wait_begins("daemon", errors[0])
            self._next_at = self._steady() + retry.RETRY_SECONDS
        else:
            self._retry.wait_ends("daemon")

    def each(self, queue: deque[T], do: Callable[[T], None], seconds: float = inf) -> None:
        """Do what is in the queue, for so long at most; what failed stays in it.

        Raises the first error.
        """
        errors: list[Exception] = []
        end = self._steady() + seconds
        for _ in range(len(queue)):
            self._go_on()
            if self._steady() >= end:
                break  # a save may have come meanwhile
            if error := _passing_error(partial(do, queue[0])):
                errors.append(error)
                queue.rotate(-1)
            else:
                queue.popleft()
        if errors:
            raise errors[0]


def _passing_error(action: Callable[[], None]) -> Exception | None:
    """Do it; returns its error, if that is worth waiting for."""
    try:
        action()
    except PASSING as error:
        if not passes(error):
            raise
        return error
    return None


def safely(action: Callable[[], None]) -> None:
    """Do what the next round or start can do as well: only what passes is waited for."""
    try:
        action()
    except Exception as error:
        log.error("%s", unexpected(error))
