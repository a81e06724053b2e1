"""What the daemon's thread has to do: evidence to be answered, and what follows an answer."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from picowatch.inbox.inbox import Evidence, Renamed, Saved
from picowatch.recipe import priority_of


class Backlog:
    """Evidence is answered from the front, of equal priority in the order in which it came.

    What is urgent overtakes, but nothing of the same path. `to_tell` follows answers. `finished`
    are recipes of which an image has ended; other threads put them there.
    """

    def __init__(self) -> None:
        self.evidence: list[Evidence] = []
        self._priorities: list[int] = []  # of each
        self.to_tell: deque[Callable[[], None]] = deque()
        self.finished: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self.evidence or self.to_tell or self.finished)

    @property
    def priority(self) -> int | None:
        """Of what is answered next, None if there is nothing."""
        return self._priorities[0] if self._priorities else None

    def answered(self, to_tell: Sequence[Callable[[], None]]) -> None:
        """As many from the front are answered; this follows."""
        del self.evidence[: len(to_tell)], self._priorities[: len(to_tell)]
        self.to_tell.extend(to_tell)

    def add(self, evidence: Iterable[Evidence]) -> None:
        """A save of a higher priority goes before others, unless these are about its file, too."""
        named = {path for seen in self.evidence for path in _paths(seen)}
        for seen in evidence:
            priority = _priority(seen)
            place = len(self.evidence)
            if place and not (isinstance(seen, Saved) and seen.path not in named):
                priority = min(priority, self._priorities[-1])  # it stays behind all of them
            while place and self._priorities[place - 1] < priority:
                place -= 1
            self.evidence.insert(place, seen)
            self._priorities.insert(place, priority)
            named |= _paths(seen)


def _paths(seen: Evidence) -> set[str]:
    return {seen.path, seen.old} if isinstance(seen, Renamed) else {seen.path}


def _priority(seen: Evidence) -> int:
    """Of its folder: what the recipe itself says is not read yet."""
    saved = seen.saved if isinstance(seen, Renamed) else seen
    return priority_of(tuple(saved.defaults)) if isinstance(saved, Saved) else 0
