"""What the daemon's thread has to do: evidence to answer, and what follows an answer."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from picowatch.inbox.evidence import Evidence, Renamed, Saved
from picowatch.recipe import priority_of


class Backlog:
    """Evidence is answered from the front, of equal priority in the order in which it came.

    Urgent saves overtake others, but not those of the same path. `follow_ups` are the actions that
    follow answers. `finished` are recipes of which an image has ended; other threads add to it.
    """

    def __init__(self) -> None:
        self.evidence: list[Evidence] = []
        self._priorities: list[int] = []  # of each
        self.follow_ups: deque[Callable[[], None]] = deque()
        self.finished: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self.evidence or self.follow_ups or self.finished)

    @property
    def priority(self) -> int | None:
        """Of what is answered next, None if there is nothing."""
        return self._priorities[0] if self._priorities else None

    def unanswered(self) -> set[str]:
        """The paths that the evidence is about."""
        return {path for seen in self.evidence for path in _paths(seen)}

    def answered(self, follow_ups: Sequence[Callable[[], None]]) -> None:
        """As many from the front are answered; this follows."""
        del self.evidence[: len(follow_ups)], self._priorities[: len(follow_ups)]
        self.follow_ups.extend(follow_ups)

    def add(self, evidence: Iterable[Evidence]) -> None:
        """A save of a higher priority goes before others, unless these are about its file, too."""
        named = self.unanswered()
        for seen in evidence:
            priority = _priority(seen)
            index = len(self.evidence)
            if index and not (isinstance(seen, Saved) and seen.path not in named):
                priority = min(priority, self._priorities[-1])  # it stays after all of them
            while index and self._priorities[index - 1] < priority:
                index -= 1
            self.evidence.insert(index, seen)
            self._priorities.insert(index, priority)
            named |= _paths(seen)


def _paths(seen: Evidence) -> set[str]:
    return {seen.path, seen.old} if isinstance(seen, Renamed) else {seen.path}


def _priority(seen: Evidence) -> int:
    """Of its folder: what the recipe itself says is not read yet."""
    saved = seen.saved if isinstance(seen, Renamed) else seen
    return priority_of(saved.defaults) if isinstance(saved, Saved) else 0
