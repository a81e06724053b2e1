"""The inbox as the daemon sees it: saves, deletions and renames.

Only looks count: a file that differs from its row of the ledger is read, once it is quiet and no
writer has it open, until the ledger has it (plan.py). Recipes whose paths come with events are
looked at by themselves, and other events make the next scan of everything come at once. Nothing
here has to be remembered: after a restart the same scan finds the same differences.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from picowatch.inbox import names
from picowatch.inbox.folder import MISSING, FileChanged, FileUnreadable, InboxFolder, place_of
from picowatch.inbox.matching import requests_in
from picowatch.inbox.plan import Found, Plan, plan, template_folder
from picowatch.inbox.read import Saved, names_in, read
from picowatch.inbox.reasons import Reasons
from picowatch.inbox.scan import scan
from picowatch.inbox.settle import HELD_OPEN_LIMIT, LACKED, SINGLE_RUN_PATIENCE, Pending, Waiting
from picowatch.inbox.watch import Watch
from picowatch.ledger import queries, rebuild
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import KnownRecipe, SizeAndTime
from picowatch.outbox.commands import COMMANDS
from picowatch.recipe.reading import priority_of

log = logging.getLogger("picowatch")

# Without events the next scan comes after this many seconds. With more than 500 files it comes
# later, by FILE_REST seconds for each, so that scans take a 1000th of a core. From 1,250 on they
# take more of it rather than that saves are noticed late: SCAN_REST times the last one's seconds.
SCAN_SECONDS, LATER_SECONDS, MOST_SCAN_SECONDS = 2.0, 5.0, 60.0
FILE_REST, SCAN_REST = 0.004, 100
EVENT_REST = 5  # the same, where events came
# How long what was refused for something outside its bytes rests, for each of these files.
REREAD_REST = 0.02
# Some file systems have times in steps of two seconds: a file that was read within one of them may
# be written again at the same time.
YOUNG_SECONDS = 2.0
WHOLE_SECOND = 1_000_000_000


class Inbox:
    """Compares the inbox with the ledger; `wake` is set by events."""

    def __init__(
        self,
        path: Path,
        outbox: Path,
        ledger: Ledger,
        wake: threading.Event,
        settle_seconds: float,
        first: Sequence[str],
        *,
        once: bool,
        most_pixels: int,
        folders: Mapping[str, str],
    ) -> None:
        """Watch `path`, and the folder of commands in the outbox to be awake.

        Recipes and folders of `first` are read before all others; `once`: for a single run.
        `folders` are those that settings name, each with a setting that does.
        """
        self._once = once
        self._first = tuple(f"{recipe}/" for recipe in first)
        self.files = InboxFolder(path, most_pixels)  # it may be a link
        self._ledger = ledger
        # None: the inbox is missing, or was not looked at yet.
        self._place: tuple[int, str] | None = None
        self._last: tuple[int, str] | None = None  # where the inbox was when it was last there
        self.trouble = ""  # "is not there" or "cannot be read (…)"
        self.waiting = Waiting(settle_seconds)  # what differs from the ledger
        self._wake = wake
        self._watch = Watch(wake, outbox / COMMANDS)
        self.skipped: Mapping[str, str] = {}  # files that are not taken, with reasons
        self.reasons = Reasons(outbox, ledger, folders, once=once)
        self._templates: Mapping[str, str] = {}  # their digests, by folder
        self._named: dict[str, tuple[str, Collection[str]]] = {}  # what templates name
        self._texts: Collection[str] = ()  # … of pictures whose template has gone
        self._young: dict[str, float] = {}  # files that are read again at this time
        self._known: Mapping[str, KnownRecipe] = {}  # the ledger's rows
        self._known_at = -1  # the ledger's changes, without which these stay the same
        self._wanted = True  # a scan
        self._reread_at = float("-inf")
        # Whether the ledger is: the whole inbox is compared with it first.
        self._is_new = self._has_restored = rebuild.is_to_be_compared(ledger)
        self._digests: dict[tuple[str, SizeAndTime], str] = {}  # of files that it asks for
        self.scanned_at = float("-inf")
        self._scan_took, self._count = 0.0, 0  # seconds and files of the last scan

    @property
    def inbox_id(self) -> str:
        """Identifies the folder that is the inbox now; "" while it is missing."""
        return self._place[1] if self._place else ""

    def close(self) -> None:
        self._watch.stop()

    # -- the folder

    def is_there(self) -> bool:
        """Whether the inbox is there: no event reports an unmount or a replaced folder."""
        path = self.files.root
        try:
            place = place_of(path)
            os.scandir(f"{path}/.").close()  # with the dot it has to be entered, too
        except OSError as error:
            words = "is not there"
            if error.errno not in MISSING:
                words = f"cannot be read ({error.strerror or error})"
            if words != self.trouble:
                log.warning("the inbox %s %s; nothing is cancelled; waiting for it", path, words)
            self._place, self.trouble = None, words
            self._wanted = False
            self._watch.stop()
            return False
        if place != self._place:
            if place == self._last:
                log.info("the inbox %s is back", path)
            elif self._last:
                log.warning("the inbox %s is another folder now, which is watched instead", path)
            self._watch.start(path.resolve())
            self._wanted = True
        self._place = self._last = place
        self.trouble = ""
        return True

    # -- looking

    def want_scan(self) -> None:
        """Scan in the next round, which begins at once."""
        self._wanted = True
        self._wake.set()

    def want_reread(self) -> None:
        """Read again, in the next round, what was refused for something outside its bytes."""
        self._reread_at = float("-inf")
        self.want_scan()

    def is_to_be_reread(self, path: str) -> bool:
        """Whether a refused file is read again now, as all that wait are after a start."""
        return self._reread_at == float("-inf") or path in self.waiting.all

    def has_looked(self) -> bool:
        """Whether a scan has begun since it was wanted, or none can, as the inbox is not there."""
        return not (self.inbox_id and self._wanted)

    def template_folder(self, path: str) -> str:
        """Return the folder of a dropped picture's template, or else the picture's own."""
        return template_folder(path, self._templates) or path.rpartition("/")[0]

    def template_of(self, path: str) -> str:
        """Return the digest of the template that applies to a path; "" without a usable one."""
        return self._templates.get(template_folder(path, self._templates), "")

    def look(self, now: float) -> None:
        """Note what differs from the ledger: recipes that events named, or all if it is time."""
        try:
            if paths := self._watch.taken_paths():
                self._look_at(paths)
            self._wanted |= self.reasons.waits and not self.waiting
            if now >= self._next_scan():
                self._scan(now)
        except BaseException:  # the ledger is locked, or a share away: what was looked for is lost
            self._wanted = True
            raise

    def has_noticed(self, name: str, chosen: Callable[[Iterable[str]], Collection[str]]) -> bool:
        """Whether the ledger has all that is saved in a folder, or as recipes that are `chosen`."""
        if not self.inbox_id:
            return False
        known = queries.known_in(self._ledger, name)  # no others: thousands would take seconds
        if not known or name in known:
            paths = [name] if known else chosen(requests_in(self.files.root))
            return not self._planned(paths, {}).pending
        is_under_template = self.files.template_above(f"{name}/{names.PICTURES_NAME}") is not None
        files = scan(self.files.root, known, name, is_under_template).found
        return not plan(self._found(files, known), known, {}, 0.0).pending

    def _look_at(self, paths: Collection[str]) -> None:
        """Note single recipes that differ; what else has changed is found by a scan."""
        recipes = set()
        for path in paths:
            is_recipe = names.is_recipe_path(path) and path not in self._texts
            is_recipe = is_recipe and not template_folder(path, self._templates)
            if is_recipe and self.files.template_above(path) is None:  # so a scan would take it
                recipes.add(path)
            elif names.may_matter(path):
                self._watch.has_news.set()
        self._note(recipes, self._planned(recipes, self.waiting.all))

    def _scan(self, now: float) -> None:
        """Note everything that differs, and say which files are not taken."""
        self._wanted = False
        self._watch.has_news.clear()
        self._watch.taken_paths()
        began = time.perf_counter()
        changes = self._ledger.changes
        if changes != self._known_at:
            self._known, self._known_at = {}, -1  # free the old rows first: there may be thousands
            self._known, self._known_at = queries.known_recipes(self._ledger), changes
        known = self._known
        there = scan(self.files.root, known)
        self._texts = there.texts
        self._young = {path: at for path, at in self._young.items() if path in there.found}
        self._scan_took, self._count = time.perf_counter() - began, len(there.found)
        self._plan(there.found, known, now)
        named = {path for _, paths in self._named.values() for path in paths}
        is_settled = all(pending.why == LACKED for pending in self.waiting.all.values())
        reasons = self.reasons.of(there, named, is_settled=is_settled)
        self.skipped = {**reasons, **self.waiting.still_written(time.monotonic())}
        is_unread = self._is_new and (self.waiting or there.found.keys() - known.keys() - named)
        if self._is_new and there.found and not is_unread:  # all took theirs from it
            rebuild.forget_absent(self._ledger)
            self._is_new = False
            # What is refused keeps its saves, and is read again later.
            self._has_restored = rebuild.is_to_be_compared(self._ledger)
            self._digests.clear()
        self.scanned_at = now

    def _plan(
        self, files: Mapping[str, SizeAndTime], known: Mapping[str, KnownRecipe], now: float
    ) -> None:
        """Note which of all files differ; what was refused for others is read again at times."""
        rereads = now >= self._reread_at
        found = replace(self._found(files, known), templates=None, rereads=rereads)
        # Not `now`: a file may have been written shortly before the scan came to it.
        planned = plan(found, known, self.waiting.all, time.monotonic())
        if planned.seen:
            versions = ((path, files[path]) for path in planned.seen)
            queries.seen(self._ledger, self.inbox_id, versions)
        self._templates = planned.templates
        self._note(self.waiting.all.keys(), planned)
        if rereads and not self.waiting.templates:  # else their pictures are not planned
            count = sum(pending.why == LACKED for pending in planned.pending.values())
            rest = min(MOST_SCAN_SECONDS, REREAD_REST * count)
            self._reread_at = float("inf") if self._once else now + rest

    def _found(self, files: Mapping[str, SizeAndTime], known: Collection[str]) -> Found:
        """Return what a look at some files found."""
        missing = (path for path in known if path not in files)
        present = {path for path in missing if self.files.size_and_time(path)}
        young = {path for path, at in self._young.items() if at <= time.monotonic()}
        return Found(files, self.inbox_id, present, self._named, young, self._templates)

    def _planned(self, paths: Collection[str], pending: Mapping[str, Pending]) -> Plan:
        """Compare single files with the ledger."""
        rows = ((path, queries.known_recipe(self._ledger, path)) for path in paths)
        known = {path: row for path, row in rows if row}
        versions = ((path, self.files.size_and_time(path)) for path in paths)
        files = {path: version for path, version in versions if version}
        return plan(self._found(files, known), known, pending, time.monotonic())

    def _next_scan(self) -> float:
        """Return the time from which on a scan is due."""
        if self._wanted:
            return float("-inf")
        later = min(LATER_SECONDS, FILE_REST * self._count)
        rest = max(SCAN_SECONDS, later, SCAN_REST * self._scan_took)
        if self._watch.has_news.is_set():
            rest = EVENT_REST * self._scan_took
        return self.scanned_at + min(MOST_SCAN_SECONDS, rest)

    def _note(self, looked_at: AbstractSet[str], planned: Plan) -> None:
        """Note which of the paths that were looked at differ; no others do."""
        for path in looked_at - planned.pending.keys():
            self.waiting.drop(path)
        for pending in planned.pending.values():
            self.waiting.note(pending)

    # -- what waits to be taken

    def pending(self) -> list[str]:
        """Return the files that differ from the ledger, in no order."""
        return [pending.path for pending in self.waiting.all.values() if pending.size_and_time]

    def ready_in(self, now: float) -> float:
        """Return the seconds until a file may be complete, or until the next scan."""
        return max(0.0, min(self._next_scan(), self.waiting.next_quiet_at()) - now)

    def place(self, pending: Pending) -> tuple[bool, int]:
        """Return what puts a file before others of the same priority, which have higher places."""
        return not f"{pending.path}/".startswith(self._first), pending.place

    def taken(self, path: str, saved: Saved | None) -> None:
        """Note that the ledger has this version, or that the file is gone."""
        self.waiting.drop(path)
        self._young.pop(path, None)
        if saved is None:
            return
        version = saved.size_and_time
        is_coarse = not version.mtime_ns % WHOLE_SECOND
        if is_coarse and abs(time.time() - version.mtime_ns / WHOLE_SECOND) < YOUNG_SECONDS:
            self._young[path] = time.monotonic() + YOUNG_SECONDS
        if names.is_template(path):
            self._named[path] = saved.digest, names_in(path, saved.content)
        if names.is_template(path) or (self._is_new and not self.waiting):
            self.want_scan()

    def may_be_incomplete(self, pending: Pending, now: float) -> bool:
        """Whether a picture that cannot be decoded was not left alone for long; then it waits."""
        quiet = SINGLE_RUN_PATIENCE * self.waiting.settle_seconds
        patience = min(HELD_OPEN_LIMIT, quiet) if self._once else HELD_OPEN_LIMIT
        if now >= pending.since + patience:
            return False
        self.waiting.read_again(pending, pending.since + patience)
        return True

    def renamed_from(self, saved: Saved, known: KnownRecipe | None) -> str:
        """Return the recipe whose file this was under another name, or "".

        It had the same bytes and the same time, and is not there any more. `known` has the new name
        in the ledger. Raises FileChanged if the inbox vanishes meanwhile.
        """
        if not saved.digest or (known and (known.is_of(saved) or names.is_template(saved.path))):
            return ""
        alike = queries.with_version(self._ledger, saved.digest, saved.size_and_time)
        for old, former in alike.items():
            paths = (old, saved.path)
            kinds = {(names.is_template(path), names.is_dropped(path)) for path in paths}
            asks_the_same = saved.template in (former.template, self.template_of(old))
            if len(kinds) > 1 or not asks_the_same:  # under another template it is a new request
                continue
            if known and not self.reads_alike(old, saved.path):
                continue
            if self.files.is_gone(old):
                if not self._is_in_place():
                    raise FileChanged
                return old
            there = self.files.size_and_time(old)
            is_another = there is None or not there.is_of_same_file(former.size_and_time)
            if saved.size_and_time.is_of_same_file(former.size_and_time) and is_another:
                return old  # another file is at its path now
        return ""

    def reads_alike(self, old: str, new: str) -> bool:
        """Whether a file reads the same under both names: there may be a template for each."""
        is_elsewhere = self.template_folder(old) != self.template_folder(new)
        is_same_syntax = names.syntax_of(old) == names.syntax_of(new)
        return is_same_syntax and not (is_elsewhere and self.template_of(old))

    def _is_in_place(self) -> bool:
        """Whether the inbox has not vanished since `is_there`, with all its files."""
        try:
            return place_of(self.files.root) == self._place
        except OSError:
            return False

    def is_deleted(self, pending: Pending, now: float) -> bool:
        """Whether a file is gone, and has no other name; if that is not certain, ask again."""
        known = queries.known_recipe(self._ledger, pending.path)
        is_gone_now = self.files.is_gone(pending.path) and self._is_in_place()
        if known is None or known.inbox_id != self.inbox_id or not is_gone_now:
            self.waiting.drop(pending.path)
            return False
        if self.waiting.may_be(known.size_and_time):
            self.waiting.settle_again(pending, now)
            return False
        return not self.is_searched(pending, now)

    def is_searched(self, pending: Pending, now: float) -> bool:
        """Whether a path's former file may have a name that was not seen yet; then ask again."""
        if names.is_dropped(pending.path) and self.waiting.templates:  # pictures come after those
            self.waiting.settle_again(pending, now)
            return True
        if self.scanned_at <= pending.since:
            self._wanted = True  # that scan may have missed it
            self.waiting.read_again(pending)
            return True
        return False

    # -- for other threads, as reading files may take long

    def read(self, pending: Pending) -> Saved | None:
        """Read a quiet file; None if it is empty. Raises FileNotFoundError or FileChanged."""
        path, noted = pending.path, pending.size_and_time
        assert noted is not None
        heeds = time.monotonic() - pending.first < HELD_OPEN_LIMIT
        saved = read(self.files, self.inbox_id, path, noted, heeds_writers=heeds)
        if saved and self._has_restored:
            paths = rebuild.former_paths(self._ledger, path, saved.digest)
            saved = replace(saved, formers={former: self._digest(former) for former in paths})
            if paths and not self._is_in_place():  # or all of them would seem to be gone
                raise FileChanged
        if saved and saved.unreadable and names.is_dropped(path):
            return replace(saved, template=self.template_of(path))
        return saved

    def _digest(self, path: str) -> str | None:
        """Return the sha256 of a file, "" if it cannot be read; None if it is not there."""
        version = self.files.size_and_time(path)
        if version is None:
            return None
        if (known := self._digests.get((path, version))) is not None:
            return known  # each of many equal files asks for all others
        try:
            digest = self.files.digest(path)
        except FileUnreadable:
            digest = ""
        except FileNotFoundError:
            return None
        self._digests[path, version] = digest
        return digest

    def priority(self, folder: str) -> int:
        """Return the priority of recipes in a folder; 0 if its `_defaults.yaml` cannot be read."""
        try:
            return priority_of(self.files.defaults_for(f"{folder}/_" if folder else "_"))
        except (FileUnreadable, FileChanged, OSError):
            return 0
