"""Paths of the inbox that differ from the ledger, until they are quiet."""

from dataclasses import dataclass

from picowatch.inbox.names import is_dropped
from picowatch.ledger.rows import SizeAndTime

HELD_OPEN_LIMIT = 30.0
# Pictures, which are large and may come over slow connections, have to be quiet this much longer.
PICTURE_PATIENCE = 6


@dataclass(slots=True)
class Pending:
    """A path that differs from what the ledger knows. `size_and_time` None: no such file.

    `waits_for` is the state of what the recipe waits for, if that has changed. It has to be quiet
    for `patience` seconds. `first` is when it began to differ, `since` when it last changed.
    """

    path: str
    size_and_time: SizeAndTime | None
    waits_for: str | None
    patience: float
    first: float
    since: float

    @property
    def quiet_at(self) -> float:
        """When the file will be complete, if it does not change again."""
        return self.since + self.patience


class Settling:
    """Paths that differ, until they are quiet. Times are passed in."""

    def __init__(self, settle_seconds: float) -> None:
        self._settle_seconds = settle_seconds
        self._pending: dict[str, Pending] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def all(self) -> list[Pending]:
        """Return what is pending, in the order in which it was noticed."""
        return list(self._pending.values())

    def note(
        self,
        path: str,
        size_and_time: SizeAndTime | None,
        now: float,
        waits_for: str | None = None,
    ) -> None:
        """Note that a path differs; its quiet time starts again if it has changed since."""
        patience = self._settle_seconds * (PICTURE_PATIENCE if is_dropped(path) else 1)
        before = self._pending.get(path)
        if not before or (before.size_and_time, before.waits_for) != (size_and_time, waits_for):
            first = before.first if before else now
            self._pending[path] = Pending(path, size_and_time, waits_for, patience, first, now)

    def drop(self, path: str) -> None:
        """Forget a path that does not differ any more, or that the ledger has."""
        self._pending.pop(path, None)

    def quiet(self, now: float) -> list[Pending]:
        """Return what has not changed for long enough."""
        return [one for one in self._pending.values() if now >= one.quiet_at]
