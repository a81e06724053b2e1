"""The inbox as the daemon sees it: saves, deletions and renames.

Only scans count: a file that differs from its row of the ledger is reported, once it is quiet and
no writer has it open, until the ledger has it. Recipes whose paths come with events are looked at
before, and other events make the next scan come at once. Nothing here has to be remembered: after a
restart the same scan finds the same differences.
"""

import logging
import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from picowatch.files.names import is_picture_name, natural_key
from picowatch.inbox.differences import Differences, usable_templates
from picowatch.inbox.files import (
    FileChanged,
    FileUnreadable,
    defaults_for,
    is_gone,
    size_and_time_of,
)
from picowatch.inbox.names import is_dropped, is_recipe_path, is_template, may_matter
from picowatch.inbox.place import Place, place_of
from picowatch.inbox.reading import (
    Change,
    Deleted,
    Saved,
    named_in,
    read,
    size_and_time_at,
    template_above,
)
from picowatch.inbox.scan import scan
from picowatch.inbox.settling import HELD_OPEN_LIMIT, SINGLE_RUN_PATIENCE, Pending, note
from picowatch.inbox.watch import Watch
from picowatch.ledger import questions
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import KnownRecipe, SizeAndTime
from picowatch.outbox.commands import COMMANDS
from picowatch.outbox.start_images import NamedPictures
from picowatch.recipe import priority_of
from picowatch.settings import Settings

log = logging.getLogger("picowatch")

# Without events the next scan comes after this many seconds, or SCAN_REST times the last one's.
SCAN_SECONDS = 2.0
MOST_SCAN_SECONDS = 60.0
SCAN_REST = 100
EVENT_REST = 5  # the same, where events came


class Inbox:
    """Compares the inbox with the ledger; `wake` is set by events."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        wake: threading.Event,
        first: Sequence[str] = (),
        *,
        once: bool = False,
    ) -> None:
        """Report recipes and folders of `first` before all others; `once`: for a single run."""
        self._once = once
        self._first = tuple(f"{one}/" for one in first)
        self._settings = settings
        self.path = settings.inbox  # it may be a link
        self._ledger = ledger
        self._root = self.path.resolve()
        self._place: Place | None = None  # None: the inbox is missing
        self._pending: dict[str, Pending] = {}  # by path, in the order in which they were noted
        self._wake = wake
        self._watch = Watch(wake, settings.outbox / COMMANDS)
        self.skipped: Mapping[str, str] = {}  # files that are never run, with reasons
        self._differences = Differences(self.pictures_of, self._root, {})
        self._texts: Collection[str] = ()  # … of pictures whose template has gone
        self._known: Mapping[str, KnownRecipe] = {}
        self._known_at = -1  # the ledger's changes
        self._priorities: dict[str, int] = {}  # of folders, until the next scan
        self._wanted = True  # a scan
        self.scanned_at = float("-inf")
        self._scan_took = 0.0

    @property
    def folder(self) -> str:
        """Identifies the folder that is the inbox now; "" while it is missing."""
        return self._place.folder if self._place else ""

    def close(self) -> None:
        self._watch.stop()

    # -- the folder

    def is_there(self) -> bool:
        """Whether the inbox is there: no event reports an unmount or a replaced folder."""
        before = self._place
        try:
            root = Path(os.path.realpath(self.path, strict=True))
            self._place = place_of(root)
            os.scandir(root).close()
        except OSError:
            if before:
                words = "the inbox %s has vanished; nothing is cancelled; waiting for it to return"
                log.warning(words, self.path)
            elif self._wanted:
                log.warning("the inbox %s is not there; waiting for it", self.path)
            self._place = None
            self._wanted = False
            self._watch.stop()
            return False
        if self._place != before or root != self._root:
            if self.scanned_at > 0:
                log.warning(
                    "the inbox %s is another folder now, which is watched instead", self.path
                )
            self._root = self._differences.root = root
            self._watch.start(root)
            self._wanted = True
        return True

    # -- looking

    def want_scan(self) -> None:
        """Scan in the next round, which begins at once."""
        self._wanted = True
        self._wake.set()

    def has_looked(self) -> bool:
        """Whether a scan has begun since one was wanted, or none can, as the inbox is not there."""
        return not (self.folder and self._wanted)

    def template_folder(self, path: str) -> str:
        """Return the folder of a dropped picture's template, or the picture's own without one."""
        return self._differences.template_folder(path) or path.rpartition("/")[0]

    def look(self, now: float) -> None:
        """Note what differs from the ledger: recipes that events named, or all if it is time."""
        if paths := self._watch.taken_paths():
            self._look_at(paths, time.monotonic())
        if now >= self._next_scan():
            self._scan(now)

    def _look_at(self, paths: Collection[str], now: float) -> None:
        """Note single recipes that differ; what else has changed is found by a scan."""
        recipes = {path for path in paths if self._is_recipe(path)}
        if any(path not in recipes and may_matter(path) for path in paths):
            self._watch.has_news.set()
        found = {path: size_and_time_of(self._root, path) for path in recipes}
        there = {path: size_and_time for path, size_and_time in found.items() if size_and_time}
        known = {
            path: row for path in recipes if (row := questions.known_recipe(self._ledger, path))
        }
        self._note_differing(there, known, now)
        self._note_missing(recipes - there.keys(), known, now)

    def _is_recipe(self, path: str) -> bool:
        """Whether a scan would take this file for a recipe, if it is there."""
        if not is_recipe_path(path) or path in self._texts:
            return False
        is_under_template = self._differences.template_folder(path)
        return not is_under_template and template_above(self._root, path) is None

    def _scan(self, now: float) -> None:
        self._wanted = False
        self._watch.has_news.clear()
        self._watch.taken_paths()
        self._priorities = {}
        began = time.perf_counter()
        known = self._known_recipes()
        there = scan(self._root, known)
        self.skipped = there.skipped
        self._texts = there.texts
        self._scan_took = time.perf_counter() - began
        # A file may have been written shortly before the scan came to it.
        self._compare(there.found, known, time.monotonic())
        self.scanned_at = now

    def _known_recipes(self) -> Mapping[str, KnownRecipe]:
        """Return the ledger's rows, which are read again only if any row has changed."""
        changes = self._ledger.changes
        if changes != self._known_at:
            self._known, self._known_at = {}, -1  # free the old rows first: there may be thousands
            self._known, self._known_at = questions.known_recipes(self._ledger), changes
        return self._known

    def _next_scan(self) -> float:
        """Return the time from which on a scan is due."""
        if self._wanted:
            return float("-inf")
        rest = max(SCAN_SECONDS, SCAN_REST * self._scan_took)
        if self._watch.has_news.is_set():
            rest = EVENT_REST * self._scan_took
        return self.scanned_at + min(MOST_SCAN_SECONDS, rest)

    def _compare(
        self, found: Mapping[str, SizeAndTime], known: Mapping[str, KnownRecipe], now: float
    ) -> None:
        folder = self.folder
        if here := [path for path in found if path in known and known[path].folder != folder]:
            questions.seen_in(self._ledger, folder, here)
        templates = self._differences.templates = usable_templates(found, known)
        named = {path for one in templates for path in named_in(self._root, one)}
        self._differences.named = named
        self._note_differing(found, known, now)
        self._note_missing(known.keys() - found.keys(), known, now)
        for path in self._pending.keys() - found.keys() - known.keys():
            del self._pending[path]

    def _note_differing(
        self, found: Mapping[str, SizeAndTime], known: Mapping[str, KnownRecipe], now: float
    ) -> None:
        differing: dict[str, str | None] = {}  # what they wait for
        for path, size_and_time in found.items():
            differs, waits_for = self._differences.differs(path, size_and_time, known.get(path))
            if differs:
                differing[path] = waits_for
            else:
                self._pending.pop(path, None)

        def time_of(path: str) -> int:
            return found[path].mtime_ns

        # In the order of their times, also for those that were there before the first scan.
        by_time = groupby(sorted(differing.keys() - self._pending, key=time_of), time_of)
        new = (path for _, paths in by_time for path in sorted(paths, key=natural_key))
        settle_seconds = self._settings.settle_seconds
        for path in (*(differing.keys() & self._pending.keys()), *new):
            note(self._pending, path, found[path], now, settle_seconds, differing[path])

    def _note_missing(
        self, paths: Collection[str], known: Mapping[str, KnownRecipe], now: float
    ) -> None:
        """Note recipes that were in this inbox and are not there any more."""
        for path in paths:
            is_of_this = path in known and known[path].folder == self.folder
            if is_of_this and size_and_time_at(self._root, path) is None:
                note(self._pending, path, None, now, self._settings.settle_seconds)

    def pictures_of(self, recipe: str) -> NamedPictures:
        return NamedPictures(self._settings, recipe)

    # -- reporting

    def __len__(self) -> int:
        """How many paths differ from the ledger."""
        return len(self._pending)

    def pending(self) -> list[str]:
        """Return the files that differ from the ledger, in no order."""
        return [one.path for one in self._pending.values() if one.size_and_time]

    def ready_in(self, now: float) -> float:
        """Return the seconds until a file may be complete, or until the next scan."""
        times = [one.quiet_at for one in self._pending.values()]
        return max(0.0, min([self._next_scan(), *times]) - now)

    def changes(self, now: float, missing: Collection[object] = ()) -> Iterator[Change]:
        """Yield complete changes, those of folders with the highest priority first, deletions last.

        Callers call `taken` for a change that the ledger has; the others come again, those that
        were `put_off` once they lack none of the `missing`.
        """
        pending = list(self._pending.values())
        quiet = [one for one in pending if now >= one.quiet_at and one.lacks not in missing]
        there = self._by_priority([one for one in quiet if one.size_and_time])
        gone = [one for one in quiet if one.size_and_time is None]
        new: set[SizeAndTime | None] = set()
        has_template = gone and any(is_template(one.path) for one in pending)
        for one in there:
            if known := questions.known_recipe(self._ledger, one.path):
                new = new or {one.size_and_time for one in pending if one.path not in self._known}
                if known.size_and_time in new:
                    continue  # its new name comes first
            if change := self._read(one, known, now):
                yield change
        rest = list(self._pending.values()) if gone else ()
        unsettled = {one.size_and_time[:2] for one in rest if one.size_and_time}
        for one in gone:
            if has_template and is_dropped(one.path):  # pictures come after their template
                one.since = now
            elif deleted := self._deletion(one, unsettled, now):
                yield deleted

    def taken(self, path: str) -> None:
        self._pending.pop(path, None)

    def put_off(self, path: str, lacks: object) -> None:
        """Note what a change lacks."""
        self._pending[path].lacks = lacks

    def let_rest(self, path: str, until: float) -> None:
        """Offer a change, which a disk refused, not before this time."""
        self._pending[path].since = until - self._pending[path].patience

    def _by_priority(self, ready: Sequence[Pending]) -> Sequence[Pending]:
        folders = {one.path.rpartition("/")[0] for one in ready}
        for folder in folders - self._priorities.keys():
            self._priorities[folder] = self._priority_in(folder)
        if not self._first and len({self._priorities[folder] for folder in folders}) < 2:
            return ready

        def place(one: Pending) -> tuple[bool, int]:
            is_first = f"{one.path}/".startswith(self._first)
            return not is_first, -self._priorities[one.path.rpartition("/")[0]]

        return sorted(ready, key=place)

    def _priority_in(self, folder: str) -> int:
        """Return the priority of recipes in a folder; 0 if its `_defaults.yaml` cannot be read."""
        try:
            return priority_of(defaults_for(self._root, f"{folder}/_" if folder else "_"))
        except (FileUnreadable, FileChanged, OSError):
            return 0

    # -- reading

    def _read(self, one: Pending, known: KnownRecipe | None, now: float) -> Saved | None:
        """Read a complete file; None if it is empty, or not complete after all.

        A picture that cannot be decoded may still be incomplete: it counts as damaged only if it
        was left alone for long, or if the ledger has the same bytes.
        """
        assert one.size_and_time is not None
        try:
            noted, heeds = one.size_and_time, now - one.first < HELD_OPEN_LIMIT
            saved = read(self._root, self.folder, one.path, noted, known, heeds_writers=heeds)
            template = self._differences.template_of(one.path)
            if saved and saved.dropped and saved.template != template:
                self._wanted = True
                raise FileChanged  # the template is being saved, and comes first
            old = self._renamed_from(saved) if saved and saved.digest and not known else None
        except (FileChanged, FileNotFoundError):
            one.since = now
            return None
        if saved is None:
            self._pending.pop(one.path, None)
            return None
        is_new = known is None or known.digest != saved.digest
        if saved.damage and is_new and is_picture_name(one.path):
            quiet = SINGLE_RUN_PATIENCE * self._settings.settle_seconds
            one.patience = min(HELD_OPEN_LIMIT, quiet) if self._once else HELD_OPEN_LIMIT
            if now < one.quiet_at:
                return None
        return replace(saved, old=old) if old else saved

    def _renamed_from(self, saved: Saved) -> str | None:
        """Return the recipe whose file this was under another name, or None.

        It had the same bytes and the same time, and is not there any more.
        """
        for old, known in questions.with_version(
            self._ledger, saved.digest, saved.size_and_time
        ).items():
            if not self._asks_the_same(old, known, saved):
                continue
            if is_gone(self._root, old):
                if not self._is_in_place():
                    raise FileChanged
                return old
            if (
                saved.size_and_time == known.size_and_time
                and size_and_time_at(self._root, old) != known.size_and_time
            ):
                return old  # another file is at its path now
        return None

    def _is_in_place(self) -> bool:
        """Whether the inbox has not vanished since `is_there`, with all its files."""
        try:
            return place_of(self._root) == self._place
        except OSError:
            return False

    def _asks_the_same(self, old: str, known: KnownRecipe, saved: Saved) -> bool:
        """Whether a moved file requests the same; under another template it is a new request."""
        if is_template(old) != is_template(saved.path) or is_dropped(old) != is_dropped(saved.path):
            return False
        return saved.template in (known.template, self._differences.template_of(old))

    def _deletion(
        self, one: Pending, unsettled: Collection[tuple[int, int]], now: float
    ) -> Deleted | None:
        """Return a deletion, unless the file is not gone after all, or may have been renamed.

        `unsettled` are sizes and times of files that are not read yet.
        """
        known = questions.known_recipe(self._ledger, one.path)
        is_gone_now = is_gone(self._root, one.path) and self._is_in_place()
        if known is None or known.folder != self.folder or not is_gone_now:
            self._pending.pop(one.path, None)
            return None
        if self.scanned_at <= one.since:  # that scan may have missed its new name; see another's
            self._wanted = True
            return None
        if known.size_and_time[:2] in unsettled:
            one.since = now
            return None
        return Deleted(one.path)
