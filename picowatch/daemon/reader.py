"""Reads files of the inbox in threads of its own, ahead of the daemon's round.

A file may take long: it is large, its share is slow, or a recipe names such a picture. So nothing
is read where engines, the status or other saves would wait for it.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count

from picowatch.daemon.model_hashes import ModelHashes, NotHashed
from picowatch.daemon.save_outcome import Asked, SaveOutcome
from picowatch.inbox.inbox import Inbox
from picowatch.inbox.read import Saved
from picowatch.inbox.settle import Pending

# Files are read one by one, as more threads would only share a processor, but for slow ones.
SLOW_SECONDS = 0.5
MOST_THREADS = 16
MOST_AHEAD = 500  # entries of saves that wait for the round
# The round is woken once the first of them has waited for so long, or all is read.
WAKE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a file gave: a save and what it asks for, or the error that it ended with."""

    pending: Pending
    saved: Saved | None = None  # None: an empty file, or a deletion
    outcome: SaveOutcome | None = None  # None then, too, and for bytes that the ledger has
    error: Exception | None = None

    @property
    def entries(self) -> int:
        return 1 + (len(self.outcome.entries) if isinstance(self.outcome, Asked) else 0)


# A file, and what puts it before others: `place`, its folder's priority, and when it came.
_Item = tuple[tuple[bool, int, int, int], Pending]


class Reader:
    """Threads that read what is offered: folders of high priority first, then in its order."""

    def __init__(
        self,
        inbox: Inbox,
        hashes: ModelHashes,
        read: Callable[[Pending], Reading],
        wake: threading.Event,
    ) -> None:
        self._inbox, self._hashes, self._read, self._wake = inbox, hashes, read, wake
        self._lock = threading.Lock()
        self._offered: dict[str, list[Pending]] = {}  # by folder
        self._queue: list[_Item] = []  # a heap
        self._lacking: list[tuple[object, _Item]] = []  # … and the models that they wait for
        self._gone: deque[Reading] = deque()  # deletions, which are not read
        self._results: deque[Reading] = deque()
        self._ahead = 0  # entries in them
        self._first_at = 0.0  # when the round began to wait for them
        # Set while the round rests: two threads that compute would only take Python's lock from
        # each other, at each call of SQLite and of the system.
        self._turn = threading.Event()
        self._count = count()  # of threads, and of files in the queue
        self._busy_since: dict[int, float] = {}  # by thread
        self._is_closed = False

    def offer(self, changes: Iterable[Pending]) -> None:
        """Have files read, and let another thread take over from slow files."""
        with self._lock:
            for pending in changes:
                if pending.size_and_time is None:
                    self._gone.append(Reading(pending))
                else:
                    folder = pending.path.rpartition("/")[0]
                    self._offered.setdefault(folder, []).append(pending)
            slow = time.monotonic() - SLOW_SECONDS
            is_read = any(since > slow for since in self._busy_since.values())
            has_room = len(self._busy_since) < MOST_THREADS and self._ahead < MOST_AHEAD
            if is_read or not has_room or not self.has_more():
                return
            me = next(self._count)
            self._busy_since[me] = time.monotonic()
        threading.Thread(target=self._work, name="reader", args=(me,), daemon=True).start()

    def results(self) -> list[Reading]:
        """Return what was read, oldest first, and then deletions, until they are dropped."""
        with self._lock:
            return [*self._results, *self._gone]

    def drop(self, taken: Iterable[Reading]) -> None:
        """Drop the oldest results, which were taken."""
        with self._lock:
            self._first_at = time.monotonic()  # also of what was read meanwhile
            for reading in taken:
                if reading.pending.size_and_time is None:
                    self._gone.popleft()
                else:
                    self._results.popleft()
                    self._ahead -= reading.entries

    def has_more(self) -> bool:
        """Whether files wait to be read."""
        missing = self._hashes.being_read()
        is_back = any(model not in missing for model, _ in self._lacking)
        return bool(self._offered or self._queue or is_back)

    def reads_more(self) -> bool:
        """Whether files wait that a thread will read; none begins when enough is read ahead."""
        return bool(self._busy_since) and self.has_more()

    def is_busy(self) -> bool:
        return bool(self._busy_since) or self.has_more()

    def read_for(self, seconds: float) -> None:
        """Let the threads read for so long, or until `wake` is set."""
        self._turn.set()
        self._wake.wait(seconds)
        self._turn.clear()

    def close(self) -> None:
        """Begin with no other file; what is being read is not waited for."""
        self._is_closed = True
        self._turn.set()

    def _work(self, me: int) -> None:
        while item := self._next(me):
            reading = self._read(item[-1])
            if isinstance(reading.error, NotHashed):
                model = self._hashes.begin(reading.error)
                with self._lock:
                    self._lacking.append((model, item))
                continue
            with self._lock:
                if any(waited < item for waited in self._take_back()):
                    heappush(self._queue, item)  # its model was hashed, as for those before
                    continue
                if not self._results:
                    self._first_at = time.monotonic()
                self._results.append(reading)
                self._ahead += reading.entries
            if time.monotonic() - self._first_at >= WAKE_SECONDS:
                self._wake.set()
        self._wake.set()

    def _next(self, me: int) -> _Item | None:
        """Return the file to be read next; None ends the thread."""
        while True:
            self._turn.wait()
            with suppress(Exception):  # whatever it is, reading a file says so
                self._hashes.look_again()  # it may take long
            with self._lock:
                self._busy_since[me] = time.monotonic()
                self._take_back()
                is_over = self._is_closed or self._ahead >= MOST_AHEAD
                if is_over or not (self._offered or self._queue):
                    del self._busy_since[me]
                    return None
                if not self._offered:
                    return heappop(self._queue)
                folder, files = self._offered.popitem()
            priority = self._inbox.priority(folder)
            with self._lock:
                for pending in files:
                    is_later, place = self._inbox.place(pending)
                    key = is_later, -priority, place, next(self._count)
                    heappush(self._queue, (key, pending))

    def _take_back(self) -> list[_Item]:
        """Queue files whose models are hashed now, and return them."""
        if not self._lacking:
            return []
        missing = self._hashes.being_read()
        taken = [item for model, item in self._lacking if model not in missing]
        for item in taken:
            heappush(self._queue, item)
        self._lacking = [pair for pair in self._lacking if pair[0] in missing]
        return taken
