"""Paths of the inbox that differ from the ledger, until they are quiet."""

from dataclasses import dataclass

from picowatch.inbox.names import is_dropped
from picowatch.ledger.rows import SizeAndTime

HELD_OPEN_LIMIT = 30.0
# Pictures, which are large and may come over slow connections, have to be quiet this much longer.
PICTURE_PATIENCE = 6
# … and in a single run, which waits ten times `settle_seconds` at most, one that is incomplete.
SINGLE_RUN_PATIENCE = 8


@dataclass(slots=True)
class Pending:
    """A path that differs from what the ledger knows. `size_and_time` None: no such file.

    `waits_for` is the state of what the recipe waits for, if that has changed. It has to be quiet
    for `patience` seconds. `first` is when it began to differ, `since` when it last changed.
    `lacks` is the model without whose hash it could not be accepted.
    """

    path: str
    size_and_time: SizeAndTime | None
    waits_for: str | None
    patience: float
    first: float
    since: float
    lacks: object = None

    @property
    def quiet_at(self) -> float:
        """When the file will be complete, if it does not change again."""
        return self.since + self.patience


def note(
    pending: dict[str, Pending],
    path: str,
    size_and_time: SizeAndTime | None,
    now: float,
    settle_seconds: float,
    waits_for: str | None = None,
) -> None:
    """Note that a path differs; its quiet time starts again if it has changed since."""
    patience = settle_seconds * (PICTURE_PATIENCE if is_dropped(path) else 1)
    before = pending.get(path)
    if not before or (before.size_and_time, before.waits_for) != (size_and_time, waits_for):
        first = before.first if before else now
        pending[path] = Pending(path, size_and_time, waits_for, patience, first, now)
