"""Recipes that wait for something besides their next save, as for a picture they name."""

import time
from collections.abc import Callable
from dataclasses import dataclass

# The pause between looks is this many times as long as they take, to spare slow shares.
POLLING_REST = 10


@dataclass(slots=True)
class _Waiting:
    """How it looked when the wait began, and at the last look."""

    before: str
    look: Callable[[], str]
    seen: str
    since: float = 0.0


class WaitingRecipes:
    """What each is waiting for. Files outside the inbox have no events: they are compared."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Waiting] = {}
        self._ready: set[str] = set()
        self._next_look = 0.0

    def is_changing(self) -> bool:
        """Whether anything differs from how it was."""
        return any(waiting.seen != waiting.before for waiting in self._waiting.values())

    def wait(self, path: str, before: str, look: Callable[[], str]) -> None:
        """Until `look` returns something else than `before` and is quiet."""
        self._waiting[path] = _Waiting(before, look, seen=before)

    def forget(self, path: str) -> None:
        """It was saved, or is gone."""
        self._waiting.pop(path, None)
        self._ready.discard(path)

    def is_ready(self, path: str) -> bool:
        """Whether it is to be answered again, though it was not saved since."""
        return path in self._ready

    def take_ready(self, now: float, settle_seconds: float) -> list[str]:
        """The recipes to be answered again; each is given once. Looks only now and then."""
        if now < self._next_look:
            return []
        ready = []
        began = time.perf_counter()
        for path, waiting in list(self._waiting.items()):
            seen = waiting.look()
            if seen != waiting.seen:
                waiting.seen, waiting.since = seen, now
            elif seen != waiting.before and now - waiting.since >= settle_seconds:
                del self._waiting[path]
                ready.append(path)
        self._ready.update(ready)
        took = time.perf_counter() - began
        self._next_look = now + max(settle_seconds, POLLING_REST * took)
        return ready
