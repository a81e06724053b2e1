"""The inbox as the daemon sees it: saves, deletions and renames, each reported once.

Events are hints; the truth is scan, quiet time and content: docs/design.md. Only `remove` and
`recover` change files.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path

from picowatch.files import pictures
from picowatch.files.blocks import checked_blocks, sha256_of
from picowatch.files.inside import bring_back, unlink_below
from picowatch.files.natural import natural_key
from picowatch.inbox.answered import AnsweredRecipes
from picowatch.inbox.dropped import (
    companion_of,
    companions_of,
    dropped_in,
    pictures_named,
    stamp_at,
    template_above,
    unreadable_path,
)
from picowatch.inbox.evidence import Evidence, Saved
from picowatch.inbox.files import (
    FileChanged,
    FileUnreadable,
    complete_file,
    defaults_for,
    scan,
)
from picowatch.inbox.folder import Change, InboxFolder
from picowatch.inbox.names import (
    PROBE_PREFIX,
    is_dropped,
    is_reached,
    is_recipe_path,
    is_searched,
    is_template,
    may_be_dropped,
    may_be_unreadable,
    why_not_dropped,
    why_path_skipped,
)
from picowatch.inbox.reader import Reader
from picowatch.inbox.settling import Pending, Settling
from picowatch.inbox.templates import Templates
from picowatch.inbox.waiting import POLLING_REST, WaitingRecipes
from picowatch.inbox.watching import OPENED, RESCAN
from picowatch.recipe import priority_of
from picowatch.save import KnownRecipe, Stamp

log = logging.getLogger("picowatch")

PROBES_KEPT = 8
POLLING_SECONDS = 1.0


class Inbox:
    """Watches the inbox; `poll` returns what has settled since the last call.

    `answered`, `templates` and `waiting` are what it remembers.
    """

    def __init__(
        self,
        root: Path,
        known: dict[str, KnownRecipe],
        *,
        wake: threading.Event,
        settle_seconds: float,
        rescan_seconds: float,
        watch: str = "auto",
        last_seen: str | None = None,
        only: Collection[str] | None = None,
    ) -> None:
        """`known` is what the ledger answered before, `last_seen` what `last_seen` was then.

        `only` these recipes are checked, if any are named: by polling, without a watch.
        """
        self.path = root  # as the settings name it
        self._only = only
        self._unchecked: set[str] = set()  # known recipes that are not checked
        if only is not None:
            self._unchecked = known.keys() - {*only}
            watch, known = "polling", {path: known[path] for path in only if path in known}
        self.answered = AnsweredRecipes(known)
        self.templates = Templates({p: one.digest for p, one in known.items() if is_template(p)})
        self.waiting = WaitingRecipes()
        self._settling = Settling(settle_seconds)
        self._rescan_seconds = rescan_seconds
        self._folder = InboxFolder(root, watch, wake)
        self._reader = Reader(
            folder=self._folder,
            settling=self._settling,
            answered=self.answered,
            templates=self.templates,
            waiting=self.waiting,
            only_some=only is not None,
        )
        self._next_scan = 0.0
        self._compared_at = 0.0
        self._scan_took = 0.0
        self._skipped: dict[str, str] = {}
        self._last_seen = last_seen
        self.is_watched = False  # between `start` and `close`
        self.probes: deque[str] = deque(maxlen=PROBES_KEPT)  # names of those that were noticed

    def set_times(self, settle_seconds: float, rescan_seconds: float) -> None:
        """Use these from now on."""
        self._settling.settle_seconds = settle_seconds
        self._rescan_seconds = rescan_seconds
        self._next_scan = min(self._next_scan, self._compared_at + self._scan_interval())

    @property
    def _root(self) -> Path:
        """Without links."""
        return self._folder.root

    @property
    def last_seen(self) -> str | None:
        """For the next start: JSON of the folder's inode and the known recipes not seen in it.

        None while the folder is missing, or where only some of the recipes are checked and all of
        them were before.
        """
        inode = self._folder.inode
        if inode is None or (self._only is not None and self._last_seen is not None):
            return None
        return self.answered.last_seen(inode, self._unchecked)

    @property
    def polling(self) -> bool:
        """Whether the inbox is compared every second, instead of by events."""
        return self._folder.polling

    def is_settled(self) -> bool:
        """Whether no file is waiting for its quiet time."""
        released = self.templates.released
        return not (len(self._settling) or released or self.waiting.is_changing())

    def expected_saves(self) -> Iterator[str]:
        """The pending files that differ from their last answered versions.

        One that could not be read is looked at with each scan, which is no save.
        """
        for one in self._settling:
            if (
                one.stamp
                and self._differs(one.path, one.stamp)
                and not self._reader.is_known_as_unreadable(one.path, one.stamp)
            ):
                yield one.path

    def ready_in(self, now: float) -> float | None:
        """Seconds until `poll` may find something settled; None if nothing is pending."""
        return self._settling.ready_in(now)

    def close(self) -> None:
        self.is_watched = False
        self._folder.close()

    def start(self, now: float) -> None:
        """Begin: every existing recipe is checked, with its content."""
        self._folder.watch()
        if self._last_seen is not None:
            self.answered.see_as_before(self._last_seen, self._folder.inode)
        found = self._scan()
        # To read ten thousand pictures takes minutes: of these, size and time say enough.
        news = {p: s for p, s in found.items() if not is_dropped(p) or self._differs(p, s)}
        self._note_found(news, now, by_event=False)
        self._note_missing(found, now)
        self._compared_at, self._next_scan = now, now + self._scan_interval()
        self.is_watched = True

    def poll(self, now: float, above: int | None = None) -> list[Evidence]:
        """What has settled: the highest priority first, else in the order of its first evidence.

        Priorities are those of the folders. `above`: only saves of a higher one than that.
        """
        self._check_folder(now)
        self._take_hints(now)
        if now >= self._next_scan:
            self.rescan(now)
        self._take_waiting(now)
        self._take_released(now)
        settled = self._settling.settled(now, self._stamp, self._priority_in, above)
        if self.polling and any(file.stamp is None for file in settled):
            self._rescan_for_moved(settled, now)
        return self._reader.evidence(settled, now)

    def _rescan_for_moved(self, settled: Sequence[Pending], now: float) -> None:
        """A missing file may have been moved twice since the last comparison.

        So may one that was postponed, because a file was found that could be it.
        """
        missed = [file.quiet_since for file in settled if file.stamp is None]
        if max(missed) >= self._compared_at:
            self.rescan(now)

    def listen(self, now: float) -> None:
        """Note events without acting on them, while something else takes long."""
        self._take_hints(now)

    def blocks(self, path: str, digest: str) -> Iterator[bytes]:
        """The recipe's bytes; raises OtherBytes if they are not (any more) those of this sha256."""
        return checked_blocks(self._root, path, digest, pictures.MAX_BYTES)

    def companions(self, path: str) -> dict[str, str] | None:
        """The files that belong to a dropped picture alone, with the sha256 of each.

        None if one has come, changed or gone since the picture was answered.
        """
        if not is_dropped(path):
            return {}
        known, stamp = self.answered.get(path), self._stamp(path)
        if known is None or stamp is None or stamp.companions != known.stamp.companions:
            return None
        try:
            return {file: self._digest(file) for file in companions_of(self._root, path)}
        except (FileUnreadable, FileChanged, FileNotFoundError):
            return None

    def _digest(self, path: str) -> str:
        with complete_file(self._root, path) as (file, _):
            return sha256_of(file, pictures.MAX_BYTES)

    def remove(self, path: str, digest: str) -> bool:
        """Delete a recipe if its bytes have this sha256; its absence is no evidence then.

        Returns whether they were. Raises OSError if it cannot be deleted, or is a link.
        """
        removed = unlink_below(
            self._root, path, lambda file: sha256_of(file, pictures.MAX_BYTES) == digest
        )
        if removed:
            self._reader.forget(path)
        return removed

    def recover(self) -> None:
        """Restore what a crash left in the middle of `remove`."""
        bring_back(self._root)

    def release_template(self, template: str) -> None:
        """It is right: look for pictures that are not answered yet."""
        for picture in self.templates.release(template):
            self.answered.hold(picture)

    def is_as_seen(self, saved: Saved) -> bool:
        """Whether the file, and what lies beside a dropped picture, is still what was read."""
        return self._stamp(saved.path) == saved.stamp

    def answer_when_back(self, path: str) -> None:
        """Treat a dropped picture that was away as saved once it is there.

        Nobody has to write to it for that: it may have been moved, or its folder unmounted.
        """
        self.answer_again_after(path, "away", lambda: "there" if self._stamp(path) else "away")

    def answer_again_after(self, path: str, before: str, look: Callable[[], str]) -> None:
        """Treat the recipe as saved once `look` returns something else than `before` and is quiet.

        That ends with its next save. While the recipe is away, so may be what it is waiting for.
        """
        self.waiting.wait(path, before, lambda: look() if self._stamp(path) else before)

    def _check_folder(self, now: float) -> None:
        change = self._folder.check()
        if change in (Change.MISSING, Change.REPLACED):
            self.answered.seen_here.clear()
        if change in (Change.REPLACED, Change.WATCH_LOST):
            self.rescan(now)

    # -- noticing

    def _stamp(self, path: str) -> Stamp | None:
        return stamp_at(self._root, path)

    def _scan_interval(self) -> float:
        if not self.polling:
            return self._rescan_seconds
        return max(POLLING_SECONDS, POLLING_REST * self._scan_took)

    def _scan(self, below: str = "") -> dict[str, Stamp]:
        """All existing recipes."""
        started = time.perf_counter()
        skipped: dict[str, str] = {}
        if self._only is None:
            under_template = bool(below) and template_above(self._root, f"{below}/.") is not None
            in_template = partial(dropped_in, self._root)
            found = dict(scan(self._root, below, skipped, in_template, under_template))
        else:
            found = {path: stamp for path in self._only if (stamp := self._stamp(path))}
        self._warn_of_skipped(skipped)
        self.answered.see(found.keys())
        self._scan_took = time.perf_counter() - started
        return found

    def _warn_of_skipped(self, skipped: Mapping[str, str]) -> None:
        """Once, as long as picowatch runs."""
        for path in skipped.keys() - self._skipped.keys():
            log.warning("%s is not run: %s", path, skipped[path])
        self._skipped |= skipped

    def rescan(self, now: float) -> None:
        """Compare all existing files with what is known."""
        found = self._scan()
        if self.polling:
            self._look_for_probes()
        self._note_found(self._different(found), now, by_event=False)
        self._note_missing(found, now)
        self._compared_at, self._next_scan = now, now + self._scan_interval()

    def _note_found(self, found: Mapping[str, Stamp], now: float, *, by_event: bool) -> None:
        """Files that existed before the first look are answered in the order of their times."""
        paths = sorted(found, key=lambda path: found[path].mtime_ns)
        # A natural key takes a kilobyte: most times are different.
        for _, at_once in groupby(paths, key=lambda path: found[path].mtime_ns):
            for path in sorted(at_once, key=natural_key):
                self._settling.note(path, found[path], now, by_event=by_event)

    def _different(self, found: Mapping[str, Stamp]) -> dict[str, Stamp]:
        return {path: stamp for path, stamp in found.items() if self._differs(path, stamp)}

    def _differs(self, path: str, stamp: Stamp) -> bool:
        return self.answered.differs(path, stamp) and not self.templates.refuses(self._root, path)

    def _take_released(self, now: float) -> None:
        for folder in self.templates.released:
            self._note_found(self._different(self._scan(folder)), now, by_event=False)
        self.templates.released.clear()

    def _note_missing(self, found: Mapping[str, Stamp], now: float) -> None:
        for path in self.answered.seen_here - found.keys():
            if self._stamp(path) is None:  # what is there is no request under today's templates
                self._settling.note(path, None, now, by_event=False)

    def _take_hints(self, now: float) -> None:
        hints = self._folder.hints()
        if RESCAN in hints:
            log.warning("file events were lost; the whole inbox is compared")
        if RESCAN in hints or OPENED in hints:
            # Lost events may have been of new folders: compare after all are watched again.
            self._folder.watch()
            self.rescan(now)
        root = f"{self._root}/"
        paths = [hint.removeprefix(root) for hint in hints if hint.startswith(root)]
        self._take_folder_hints({path[:-1] for path in paths if path.endswith("/")}, now)
        for path in paths:
            if path.startswith(PROBE_PREFIX):
                self._note_probe(path)
            elif path:
                self._take_hint(path, now)

    def _take_hint(self, path: str, now: float) -> None:
        """Note the recipe or the dropped pictures that an event may tell of."""
        if is_template(path) and is_reached(path):
            self._note_event(path, now)
            if self._stamp(path) is None:  # what lies there may be recipes now
                self._take_folder_hints({path.rpartition("/")[0]} - {""}, now)
        elif path in self.answered:
            self._note_event(path, now)
        elif not is_reached(path) or self._take_hint_of_dropped(path, now):
            return
        elif is_recipe_path(path):
            self._note_event(path, now)
        elif (reason := why_path_skipped(path)) and self._stamp(path):
            self._warn_of_skipped({path: reason})

    def _take_hint_of_dropped(self, path: str, now: float) -> bool:
        """Whether the path lies under a template, where there are no recipes."""
        name = path.rpartition("/")[2]
        belongs_to = companion_of(path)
        is_picture, is_unreadable = may_be_dropped(name), may_be_unreadable(name)
        reason = why_not_dropped(name)
        if not (is_picture or is_unreadable or belongs_to or reason):
            return False
        if template_above(self._root, path) is None:
            return False
        if reason and self._stamp(path):
            self._warn_of_skipped({path: reason})
        if is_picture:
            self._note_event(path, now)
        elif is_unreadable:
            self._note_event(unreadable_path(path.rpartition("/")[0]), now)
        elif belongs_to:
            for picture in pictures_named(self._root, belongs_to):
                self._note_event(picture, now)
        return True

    def _note_event(self, path: str, now: float) -> None:
        self._settling.note(path, self._stamp(path), now, by_event=True)

    def _take_waiting(self, now: float) -> None:
        """What a recipe was waiting for has no event of its own."""
        for path in self.waiting.take_ready(now, self._settling.settle_seconds):
            self._settling.note(path, self._stamp(path), now, by_event=False)

    def _look_for_probes(self) -> None:
        """Polling notices a probe as it notices a recipe: by scanning."""
        with suppress(OSError):
            for child in self._root.iterdir():
                if child.name.startswith(PROBE_PREFIX):
                    self._note_probe(child.name)

    def _note_probe(self, probe: str) -> None:
        if probe not in self.probes:
            self.probes.append(probe)

    def _take_folder_hints(self, folders: Collection[str], now: float) -> None:
        """A folder that appeared or vanished may hold recipes that had no event of their own."""
        if not folders:
            return
        found: dict[str, Stamp] = {}
        for folder in sorted(folders):
            if all(map(is_searched, folder.split("/"))) and not _lies_below(folder, folders):
                found |= self._scan(folder)
        self._note_found(self._different(found), now, by_event=True)
        for path in self.answered.paths() - found.keys():
            if _lies_below(path, folders) and self._stamp(path) is None:
                self._settling.note(path, None, now, by_event=True)

    def _priority_in(self, folder: str) -> int:
        """Of recipes in a folder, as far as its `_defaults.yaml` can be read now."""
        try:
            return priority_of(defaults_for(self._root, f"{folder}/_" if folder else "_"))
        except (FileUnreadable, FileChanged, OSError):
            return 0


def _lies_below(path: str, folders: Collection[str]) -> bool:
    """Whether one of the folders is a parent of the path."""
    end = path.rfind("/")
    while end > 0:
        if path[:end] in folders:
            return True
        end = path.rfind("/", 0, end)
    return False
