"""Evidence that is to be answered: what is urgent overtakes, but nothing of the same path."""

from collections.abc import Iterable, Iterator

from picowatch.inbox.inbox import Evidence, Renamed, Saved
from picowatch.recipe import priority_of


class Backlog:
    """Answered from the front; of equal priority in the order in which it came."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, Evidence]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Evidence]:
        return (seen for _, seen in self._waiting)

    @property
    def priority(self) -> int | None:
        """Of what is answered next, None if there is nothing."""
        return self._waiting[0][0] if self._waiting else None

    def drop(self, count: int) -> None:
        """So many from the front are answered."""
        del self._waiting[:count]

    def add(self, evidence: Iterable[Evidence]) -> None:
        """A save of a higher priority goes before others, unless these are about its file, too."""
        named = {path for _, seen in self._waiting for path in _paths(seen)}
        for seen in evidence:
            priority = _priority(seen)
            place = len(self._waiting)
            if place and not (isinstance(seen, Saved) and seen.path not in named):
                priority = min(priority, self._waiting[-1][0])  # it stays behind all of them
            while place and self._waiting[place - 1][0] < priority:
                place -= 1
            self._waiting.insert(place, (priority, seen))
            named |= _paths(seen)


def _paths(seen: Evidence) -> set[str]:
    return {seen.path, seen.old} if isinstance(seen, Renamed) else {seen.path}


def _priority(seen: Evidence) -> int:
    """Of its folder: what the recipe itself says is not read yet."""
    saved = seen.saved if isinstance(seen, Renamed) else seen
    return priority_of(tuple(saved.defaults)) if isinstance(saved, Saved) else 0
