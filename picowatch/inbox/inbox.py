"""The inbox as the daemon sees it: saves, deletions and renames, each reported once.

Events are hints; the truth is scan + quiet + content (watching.md). Nothing here writes.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from picowatch.errors import PictureUnreadable
from picowatch.files import pictures
from picowatch.files.inside import bring_back, unlink_below
from picowatch.files.natural import natural_key
from picowatch.inbox.dropped import (
    companion_of,
    dropped_in,
    is_gone_at,
    pictures_named,
    read_dropped,
    stamp_at,
    template_above,
    unreadable_path,
    why_unreadable,
    with_companions,
)
from picowatch.inbox.files import (
    MAX_BYTES,
    FileChanged,
    FileUnreadable,
    defaults_for,
    read_file,
    scan,
)
from picowatch.inbox.folder import Change, InboxFolder
from picowatch.inbox.names import (
    PICTURES_NAME,
    PROBE_PREFIX,
    is_dropped,
    is_reached,
    is_recipe_path,
    is_searched,
    is_template,
    may_be_dropped,
    may_be_unreadable,
    stands_for_unreadable,
    why_path_skipped,
)
from picowatch.inbox.settling import HELD_OPEN_LIMIT, Pending, Settling, held_open_for_writing
from picowatch.inbox.watching import RESCAN
from picowatch.recipe import DefaultsFile, Dropped, is_empty, priority_of
from picowatch.save import KnownRecipe, Stamp

log = logging.getLogger("picowatch")

PROBES_KEPT = 8
POLLING_SECONDS = 1.0
# Polling pauses this many times as long as a scan takes, to spare slow shares.
POLLING_REST = 10


@dataclass(frozen=True, slots=True)
class Saved:
    """A recipe was saved: its path below the inbox, its bytes, and their sha256 and stamp.

    `defaults` are the `_defaults.yaml` that hold for it; `defaults_unreadable` says in a sentence
    why one of them cannot be read. For a `dropped` picture `content` is empty; `unreadable` says
    why it is none. `is_again`: it is the picture that was answered, with nothing new beside it.
    """

    path: str
    content: bytes
    digest: str
    stamp: Stamp
    defaults: Sequence[DefaultsFile] = ()
    defaults_unreadable: str = ""
    dropped: Dropped | None = None
    unreadable: str = ""
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A recipe exists but cannot be read; `why` is a sentence for people."""

    path: str
    stamp: Stamp
    why: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A recipe was deleted."""

    path: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A recipe's file is at another path now, with the same bytes; `saved` is what it holds."""

    old: str
    saved: Saved

    @property
    def path(self) -> str:
        """Where it is now."""
        return self.saved.path

    @property
    def stamp(self) -> Stamp:
        """Of the file where it is now."""
        return self.saved.stamp


Evidence = Saved | Unreadable | Deleted | Renamed


@dataclass(slots=True)
class _Awaited:
    """What a refused recipe is waiting for: how it looked then and at the last look."""

    before: str
    look: Callable[[], str]
    seen: str
    since: float = 0.0


class Inbox:
    """Watches the inbox; `poll` returns what has settled since the last call."""

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
        if only is not None:
            watch, known = "polling", {path: known[path] for path in only if path in known}
        self._known = dict(known)
        self._by_digest: dict[str, set[str]] = {}  # the paths of `_known`
        for path, one in known.items():
            self._by_digest.setdefault(one.digest, set()).add(path)
        self._settling = Settling(settle_seconds)
        self._settle_seconds = settle_seconds
        self._rescan_seconds = rescan_seconds
        self._folder = InboxFolder(root, watch, wake)
        self._next_scan = 0.0
        self._compared_at = 0.0
        self._scan_took = 0.0
        self._skipped: dict[str, str] = {}
        self._awaited: dict[str, _Awaited] = {}
        self._next_look = 0.0  # at what refused recipes are waiting for
        self._to_answer_again: set[str] = set()
        # Known recipes that were seen in the very folder that is the inbox now. Only their
        # absence means deletion; elsewhere the inbox may just not be mounted.
        self._seen_here: set[str] = set()
        self._last_seen = last_seen
        # Templates for dropped pictures: all that were seen, with their digests; those that are
        # refused, under which nothing is answered; folders in which one is right again.
        self._templates = {path: one.digest for path, one in known.items() if is_template(path)}
        self._refused_templates: set[str] = set()
        self._released: set[str] = set()
        self._awaiting: dict[str, set[str]] = {}  # pictures without a request, by template
        self.is_watched = False  # between `start` and `close`
        self.probes: deque[str] = deque(maxlen=PROBES_KEPT)  # names of those that were noticed

    @property
    def _root(self) -> Path:
        """Without links."""
        return self._folder.root

    @property
    def inode(self) -> int | None:
        """The inode of the watched folder, None while it is missing."""
        return self._folder.inode

    @property
    def last_seen(self) -> str | None:
        """For the next start: JSON of the folder's inode and the known recipes not seen in it.

        None while the folder is missing, or where only some of the recipes are checked.
        """
        if self.inode is None or self._only is not None:
            return None
        all_here = len(self._seen_here) == len(self._known)
        elsewhere = () if all_here else sorted(self._known.keys() - self._seen_here)
        return json.dumps([self.inode, elsewhere])

    @property
    def polling(self) -> bool:
        """Whether the inbox is compared every second, instead of by events."""
        return self._folder.polling

    def is_settled(self) -> bool:
        """Whether no file is waiting for its quiet time."""
        changing = any(awaited.seen != awaited.before for awaited in self._awaited.values())
        return not (len(self._settling) or self._released or changing)

    def expects_saves(self) -> bool:
        """Whether a pending file differs from its last answered version."""
        return any(one.stamp and self._differs(one.path, one.stamp) for one in self._settling)

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
            inode, elsewhere = json.loads(self._last_seen)
            if inode == self.inode:
                self._seen_here = self._known.keys() - elsewhere
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
        if now >= self._next_look:
            self._check_awaited(now)
        self._take_released(now)
        settled = self._settling.settled(now, self._stamp, self._priority_in, above)
        if self.polling and any(file.stamp is None for file in settled):
            self._rescan_for_moved(settled, now)
        return self._evidence(settled, now)

    def _rescan_for_moved(self, settled: Sequence[Pending], now: float) -> None:
        """A missing file may have been moved twice since the last comparison."""
        first_missed = [file.first_noted for file in settled if file.stamp is None]
        if max(first_missed) >= self._compared_at:
            self.rescan(now)

    def listen(self, now: float) -> None:
        """Note events without acting on them, while something else takes long."""
        self._take_hints(now)

    def content(self, path: str, digest: str) -> bytes | None:
        """The recipe's bytes, if they are (still) those with this sha256."""
        try:
            most = pictures.MAX_BYTES if is_dropped(path) else MAX_BYTES
            content, _ = read_file(self._root, path, most)
        except (FileUnreadable, FileChanged, OSError):
            return None
        return content if hashlib.sha256(content).hexdigest() == digest else None

    def remove(self, path: str, digest: str) -> bool:
        """Delete a recipe if its bytes have this sha256; its absence is no evidence then.

        Returns whether they were. Raises OSError if it cannot be deleted, or is a link.
        """
        removed = unlink_below(
            self._root, path, lambda content: hashlib.sha256(content).hexdigest() == digest
        )
        if removed:
            self.forget(path)
        return removed

    def recover(self) -> None:
        """Restore what a crash left in the middle of `remove`."""
        bring_back(self._root)

    def forget(self, path: str) -> None:
        """The recipe was removed from the inbox on purpose; its absence is no evidence."""
        self._forget_known(path)
        self._seen_here.discard(path)
        self._awaited.pop(path, None)

    def refuse_template(self, template: str) -> None:
        """Answer no picture under it until it is released."""
        self._refused_templates.add(template)

    def release_template(self, template: str) -> None:
        """It is right: look for pictures that are not answered yet."""
        self._refused_templates.discard(template)
        for path in self._awaiting.pop(template, ()):
            self.hold(path)
        self._released.add(template.rpartition("/")[0])

    def answer_with_template(self, path: str, template: str) -> None:
        """A dropped picture has no request yet: look at it again when its template is saved."""
        self._awaiting.setdefault(template, set()).add(path)

    def hold(self, path: str) -> None:
        """A dropped picture was not answered after all: its template is refused."""
        self._forget_known(path)
        self._known[path] = KnownRecipe(Stamp(0, 0, 0), "")
        self._by_digest.setdefault("", set()).add(path)

    def answer_again_after(self, path: str, before: str, look: Callable[[], str]) -> None:
        """Treat the recipe as saved once `look` returns something else than `before` and is quiet.

        That ends with its next save.
        """
        self._awaited[path] = _Awaited(before, look, seen=before)

    def _check_folder(self, now: float) -> None:
        change = self._folder.check()
        if change in (Change.MISSING, Change.REPLACED):
            self._seen_here.clear()
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
        self._seen_here.update(found.keys() & self._known.keys())
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
        in_order = sorted(found.items(), key=lambda one: (one[1].mtime_ns, natural_key(one[0])))
        for path, stamp in in_order:
            self._settling.note(path, stamp, now, by_event=by_event)

    def _different(self, found: Mapping[str, Stamp]) -> dict[str, Stamp]:
        return {path: stamp for path, stamp in found.items() if self._differs(path, stamp)}

    def _differs(self, path: str, stamp: Stamp) -> bool:
        known = self._known.get(path)
        is_new = known is None or not known.digest or stamp.written_since(known.stamp)
        return is_new and not self._is_held(path)

    def _is_held(self, path: str) -> bool:
        """Whether it is a picture under a refused template."""
        return (
            bool(self._refused_templates)
            and is_dropped(path)
            and template_above(self._root, path) in self._refused_templates
        )

    def _take_released(self, now: float) -> None:
        for folder in self._released:
            self._note_found(self._different(self._scan(folder)), now, by_event=False)
        self._released.clear()

    def _note_missing(self, found: Mapping[str, Stamp], now: float) -> None:
        for path in self._seen_here - found.keys():
            if self._stamp(path) is None:  # what is there is no request under today's templates
                self._settling.note(path, None, now, by_event=False)

    def _take_hints(self, now: float) -> None:
        hints = self._folder.hints()
        if RESCAN in hints:
            log.warning("file events were lost; the whole inbox is compared")
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
        elif path in self._known:
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
        if not (is_picture or is_unreadable or belongs_to):
            return False
        if template_above(self._root, path) is None:
            return False
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

    def _check_awaited(self, now: float) -> None:
        """Files outside the inbox, and those that are not recipes, have no events: compare them."""
        began = time.perf_counter()
        for path, awaited in list(self._awaited.items()):
            seen = awaited.look()
            if seen != awaited.seen:
                awaited.seen, awaited.since = seen, now
            elif seen != awaited.before and now - awaited.since >= self._settle_seconds:
                del self._awaited[path]
                self._to_answer_again.add(path)
                self._settling.note(path, self._stamp(path), now, by_event=False)
        took = time.perf_counter() - began
        self._next_look = now + max(self._settle_seconds, POLLING_REST * took)

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
        for path in self._known.keys() - found.keys():
            if _lies_below(path, folders) and self._stamp(path) is None:
                self._settling.note(path, None, now, by_event=True)

    # -- evidence

    def _evidence(self, settled: list[Pending], now: float) -> list[Evidence]:
        if not settled:
            return []
        evidence: list[Evidence] = []
        held = self._held_open(settled)
        missing = [file for file in settled if file.stamp is None]
        renamed: dict[str, deque[str]] = {}  # by digest: known recipes still to be checked
        for file in settled:
            if file.path in held and now - file.first_noted < HELD_OPEN_LIMIT:
                self._settling.postpone(file, now)
            elif file.stamp and (found := self._read(file, renamed, now)):
                evidence.append(found)
        unsettled = self._settling if missing else ()
        unsettled_sizes = {one.stamp.size for one in unsettled if one.stamp}
        for file in missing:
            if deleted := self._deletion(file, unsettled_sizes, now):
                evidence.append(deleted)
        return evidence

    def _forget_known(self, path: str) -> None:
        known = self._known.pop(path, None)
        if known is not None:
            paths = self._by_digest[known.digest]
            paths.discard(path)
            if not paths:
                del self._by_digest[known.digest]

    def _missing(self, paths: deque[str], saved: Saved) -> str | None:
        """The first of them whose file does not exist now; each is checked once.

        One that was not seen in the folder that is the inbox now was renamed while the inbox was
        away, if the file that came has its time, too: a rename keeps it. A picture that would be
        another request here is left for others with its bytes.
        """
        for _ in range(len(paths)):
            path = paths.popleft()
            known = self._known.get(path)
            if known is None or not is_gone_at(self._root, path):
                continue
            if not self._asks_the_same(path, saved):
                paths.append(path)
                continue
            if path in self._seen_here or not saved.stamp.written_since(known.stamp):
                return path
        return None

    def _held_open(self, settled: list[Pending]) -> set[str]:
        ids = {}
        for file in settled:
            try:
                status = os.stat(f"{self._root}/{file.path}")  # noqa: PTH116 (no Path for each)
            except OSError:
                continue
            ids[status.st_dev, status.st_ino] = file.path
        return {ids[held] for held in held_open_for_writing(ids)}

    def _read(self, file: Pending, renamed: dict[str, deque[str]], now: float) -> Evidence | None:
        try:
            if stands_for_unreadable(file.path):
                return self._unreadable(file, why_unreadable(self._root, file.path))
            saved = self._saved_picture(file, now) if is_dropped(file.path) else self._saved(file)
        except (FileChanged, FileNotFoundError):
            self._settling.postpone(file, now)
            return None
        except FileUnreadable as error:
            return self._unreadable(file, str(error))
        if saved is None:
            return None
        digest = saved.digest
        if digest not in renamed:
            # All that have these bytes: the event of the name that is gone may come later than
            # the file of the new name does.
            renamed[digest] = deque(sorted(self._by_digest.get(digest, ())))
        old = self._missing(renamed[digest], saved)
        self._remember(file.path, saved.stamp, digest)
        if old is not None:
            self.forget(old)
            return Renamed(old, saved)
        return saved

    def _saved(self, file: Pending) -> Saved | None:
        """The recipe as it is now, None if it is empty or was answered."""
        content, stamp = read_file(self._root, file.path)
        if is_empty(content):
            return None
        digest = hashlib.sha256(content).hexdigest()
        if not self._is_to_answer(file, stamp, digest):
            return None
        return Saved(file.path, content, digest, stamp, *self._defaults_for(file.path))

    def _saved_picture(self, file: Pending, now: float) -> Saved | None:
        """The dropped picture as it is now, None if it is empty, was answered, or is held back.

        One that is no picture may not be complete: that is believed once it was left alone for
        HELD_OPEN_LIMIT.
        """
        if not file.stamp or not file.stamp.size or self._is_held(file.path):
            return None
        dropped = read_dropped(self._root, file.path)
        if dropped is None:
            return None
        content, stamp = read_file(self._root, file.path, pictures.MAX_BYTES)
        stamp = with_companions(stamp, self._root, file.path)
        digest = hashlib.sha256(content).hexdigest()
        known = self._known.get(file.path)
        is_same = known is not None and known.digest == digest
        if not self._is_to_answer(file, stamp, digest):
            return None
        if is_same and known and known.stamp.beside and not stamp.beside:
            self._remember(file.path, stamp, digest)  # what lay beside it was tidied up
            return None
        why = ""
        try:
            pictures.check_picture(content)
        except PictureUnreadable as error:
            if now - file.same_since < HELD_OPEN_LIMIT:
                self._settling.postpone(file, now)
                return None
            why = str(error)
        defaults, defaults_unreadable = self._defaults_for(file.path)
        return Saved(
            file.path,
            b"",
            digest,
            stamp,
            defaults,
            defaults_unreadable,
            dropped=dropped,
            unreadable=why,
            is_again=is_same and known is not None and known.stamp.beside == stamp.beside,
        )

    def _is_to_answer(self, file: Pending, stamp: Stamp, digest: str) -> bool:
        known = self._known.get(file.path)
        again = file.path in self._to_answer_again
        return known is None or again or self._is_new(known, stamp, digest, file.by_event)

    def _asks_the_same(self, old: str, saved: Saved) -> bool:
        """Whether a file that was moved is no new request: under another template it is one."""
        if is_dropped(old) != is_dropped(saved.path) or is_template(old) != is_template(saved.path):
            return False
        if saved.dropped is None:
            return True
        folder = old.rpartition("/")[0]
        while folder:
            template = self._templates.get(f"{folder}/{PICTURES_NAME}")
            if template is not None:
                content = saved.dropped.template.content
                return template == hashlib.sha256(content).hexdigest()
            folder = folder.rpartition("/")[0]
        return False

    def _priority_in(self, folder: str) -> int:
        """Of recipes in a folder, as far as its `_defaults.yaml` can be read now."""
        try:
            return priority_of(tuple(defaults_for(self._root, f"{folder}/_" if folder else "_")))
        except (FileUnreadable, FileChanged, OSError):
            return 0

    def _defaults_for(self, path: str) -> tuple[Sequence[DefaultsFile], str]:
        """The `_defaults.yaml` above it, or else why one of them cannot be read.

        Raises FileChanged while one of them is being written.
        """
        try:
            return defaults_for(self._root, path), ""
        except FileUnreadable as error:
            return (), str(error)

    @staticmethod
    def _is_new(known: KnownRecipe, stamp: Stamp, digest: str, by_event: bool) -> bool:
        """Whether this shows a write that was not answered yet.

        Inodes count only beside an event: they are not stable across mounts everywhere.
        """
        replaced = by_event and stamp.inode != known.stamp.inode
        return digest != known.digest or stamp.written_since(known.stamp) or replaced

    def _unreadable(self, file: Pending, why: str) -> Unreadable | None:
        stamp = file.stamp
        known = self._known.get(file.path)
        if stamp is None or (known is not None and known == KnownRecipe(stamp, "")):
            return None
        self._remember(file.path, stamp, "")
        return Unreadable(file.path, stamp, why)

    def _deletion(self, file: Pending, unsettled_sizes: set[int], now: float) -> Deleted | None:
        known = self._known.get(file.path)
        if known is None or file.path not in self._seen_here or self.inode is None:
            return None
        if not is_gone_at(self._root, file.path):
            return None
        if known.stamp.size in unsettled_sizes:
            self._settling.postpone(file, now)
            return None
        self.forget(file.path)
        return Deleted(file.path)

    def _remember(self, path: str, stamp: Stamp, digest: str) -> None:
        self._forget_known(path)
        if is_template(path):
            self._templates[path] = digest
        for awaiting in self._awaiting.values():
            awaiting.discard(path)
        self._known[path] = KnownRecipe(stamp, digest)
        self._by_digest.setdefault(digest, set()).add(path)
        self._seen_here.add(path)
        self._awaited.pop(path, None)
        self._to_answer_again.discard(path)


def _lies_below(path: str, folders: Collection[str]) -> bool:
    """Whether one of the folders is a parent of the path."""
    end = path.rfind("/")
    while end > 0:
        if path[:end] in folders:
            return True
        end = path.rfind("/", 0, end)
    return False
