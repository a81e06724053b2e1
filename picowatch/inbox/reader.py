"""What settled files say: a save, a rename or a deletion; or nothing that was not answered."""

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from picowatch.errors import PictureUnreadable
from picowatch.files import pictures
from picowatch.files.blocks import sha256_of
from picowatch.inbox.answered import AnsweredRecipes
from picowatch.inbox.dropped import (
    dropped_in,
    is_gone_at,
    read_dropped,
    why_unreadable,
    with_companions,
)
from picowatch.inbox.evidence import Deleted, Evidence, Renamed, Saved, Unreadable
from picowatch.inbox.files import (
    FileChanged,
    FileUnreadable,
    complete_file,
    defaults_for,
    is_listed,
    read_file,
    scan,
)
from picowatch.inbox.folder import InboxFolder
from picowatch.inbox.names import is_dropped, is_template, stands_for_unreadable
from picowatch.inbox.settling import HELD_OPEN_LIMIT, Pending, Settling, held_open_for_writing
from picowatch.inbox.templates import Templates
from picowatch.inbox.waiting import WaitingRecipes
from picowatch.recipe import DefaultsFile, Dropped, is_empty
from picowatch.save import KnownRecipe, Stamp


@dataclass(kw_only=True, eq=False)
class Reader:
    """Reads settled files, and remembers each that it reports as answered.

    `only_some`: not all recipes of the folder are looked at.
    """

    folder: InboxFolder
    settling: Settling
    answered: AnsweredRecipes
    templates: Templates
    waiting: WaitingRecipes
    only_some: bool

    @property
    def _root(self) -> Path:
        """Without links."""
        return self.folder.root

    def forget(self, path: str) -> None:
        """The file is gone, and that is known."""
        self.answered.forget(path)
        self.waiting.forget(path)

    def is_known_as_unreadable(self, path: str, stamp: Stamp) -> bool:
        """Whether that was the last answer, to this version: each scan looks again until it is not.

        The same holds where a `_defaults.yaml` above it cannot be read: a share may be to blame.
        """
        return self.answered.get(path) == KnownRecipe(stamp, "")

    def evidence(self, settled: list[Pending], now: float) -> list[Evidence]:
        """What they say, in their order, and then what is gone; some are postponed instead."""
        if not settled:
            return []
        evidence: list[Evidence] = []
        held = self._held_open(settled)
        missing = [file for file in settled if file.stamp is None]
        renamed: dict[str, deque[str]] = {}  # by digest: known recipes still to be checked
        for file in settled:
            if file.path in held and now - file.first_noted < HELD_OPEN_LIMIT:
                self.settling.postpone(file, now)
            elif file.stamp and (found := self._read(file, renamed, now)):
                evidence.append(found)
        unsettled = self.settling if missing else ()
        unsettled_sizes = {one.stamp.size for one in unsettled if one.stamp}
        for file in missing:
            if deleted := self._deletion(file, unsettled_sizes, now):
                evidence.append(deleted)
        return evidence

    def _read(self, file: Pending, renamed: dict[str, deque[str]], now: float) -> Evidence | None:
        try:
            if stands_for_unreadable(file.path):
                return self._unreadable(file, why_unreadable(self._root, file.path))
            saved = self._saved_picture(file, now) if is_dropped(file.path) else self._saved(file)
        except (FileChanged, FileNotFoundError):
            self.settling.postpone(file, now)
            return None
        except FileUnreadable as error:
            what = "picture" if is_dropped(file.path) else "recipe"
            return self._unreadable(file, f"This {what} cannot be read: {error}.")
        if saved is None:
            return None
        old = self.answered.spelled_otherwise(file.path)
        if old and not is_listed(self._root, file.path):
            return None  # an event of the name that it had
        digest = saved.digest
        if not (old and self._is_respelled(old, saved)):
            if digest not in renamed:
                # All that have these bytes: the event of the name that is gone may come later
                # than the file of the new name does.
                renamed[digest] = deque(self.answered.with_digest(digest))
            old = self._missing(renamed[digest], saved)
        if saved.defaults_unreadable and old is None:
            return self._unreadable(file, saved.defaults_unreadable)
        self._remember(file.path, saved.stamp, digest)
        if old is not None:
            self.forget(old)
            return Renamed(old, saved)
        return saved

    def _saved(self, file: Pending) -> Saved | None:
        """The recipe as it is now, None if it is empty or was answered."""
        content, stamp = read_file(self._root, file.path)
        _check_quiet(file, stamp)
        if is_empty(content):
            return None
        digest = hashlib.sha256(content).hexdigest()
        if not self._is_to_answer(file, stamp, digest):
            if not file.by_event:  # restored, perhaps: its inode is no sign of a save from now on
                self.answered.remember(file.path, stamp, digest)
            return None
        return Saved(file.path, content, digest, stamp, *self._defaults_for(file.path))

    def _saved_picture(self, noted: Pending, now: float) -> Saved | None:
        """The dropped picture as it is now, None if it is empty, was answered, or is held back.

        One that is no picture may not be complete: that is believed once it was left alone for
        HELD_OPEN_LIMIT.
        """
        if (
            not noted.stamp
            or not noted.stamp.size
            or self.templates.refuses(self._root, noted.path)
        ):
            return None
        dropped = read_dropped(self._root, noted.path)
        if dropped is None:
            return None
        with complete_file(self._root, noted.path) as (file, stamp):
            return self._read_picture(file, stamp, dropped, noted, now)

    def _read_picture(
        self, file: IO[bytes], stamp: Stamp, dropped: Dropped, noted: Pending, now: float
    ) -> Saved | None:
        stamp = with_companions(stamp, self._root, noted.path)
        _check_quiet(noted, stamp)
        digest = sha256_of(file, pictures.MAX_BYTES)
        known = self.answered.get(noted.path)
        is_same = known is not None and known.digest == digest
        if not self._is_to_answer(noted, stamp, digest):
            return None
        if is_same and known and known.stamp.companions and not stamp.companions:
            self._remember(noted.path, stamp, digest)  # what lay beside it was tidied up
            return None
        why = ""
        try:
            pictures.check_picture(file)
        except PictureUnreadable as error:
            if now - noted.same_since < HELD_OPEN_LIMIT:
                self.settling.postpone(noted, now)
                return None
            why = str(error)
        return Saved(
            noted.path,
            b"",
            digest,
            stamp,
            *self._defaults_for(noted.path),
            dropped=dropped,
            unreadable=why,
            is_again=is_same and known is not None and known.stamp.companions == stamp.companions,
        )

    def _is_to_answer(self, file: Pending, stamp: Stamp, digest: str) -> bool:
        is_new = self.answered.is_new(file.path, stamp, digest, by_event=file.by_event)
        return is_new or self.waiting.is_ready(file.path)

    def _missing(self, paths: deque[str], saved: Saved) -> str | None:
        """The first of them whose file does not exist now; each is checked once.

        One that was not seen in the folder that is the inbox now was renamed while the inbox was
        away, if the file that came has its time, too: a rename keeps it. The same holds
        where the same bytes were before: otherwise they were saved again. A picture that would be
        another request here is left for others with its bytes.
        """
        here = self.answered.get(saved.path)
        is_again = here is not None and here.digest == saved.digest
        for _ in range(len(paths)):
            path = paths.popleft()
            known = self.answered.get(path)
            if known is None or not is_gone_at(self._root, path):
                continue
            keeps_time = not saved.stamp.written_since(known.stamp)
            if not self._asks_the_same(path, saved) or (is_again and not keeps_time):
                paths.append(path)
                continue
            if path in self.answered.seen_here or keeps_time:
                return path
        return None

    def _is_respelled(self, old: str, saved: Saved) -> bool:
        """Whether a known recipe's path changed in case alone, whatever its bytes are now."""
        is_gone = old in self.answered.seen_here and not is_listed(self._root, old)
        return is_gone and self._asks_the_same(old, saved)

    def _asks_the_same(self, old: str, saved: Saved) -> bool:
        """Whether a file that was moved is no new request: under another template it is one."""
        if is_dropped(old) != is_dropped(saved.path) or is_template(old) != is_template(saved.path):
            return False
        if saved.dropped is None:
            return True
        template = hashlib.sha256(saved.dropped.template.content).hexdigest()
        return self.templates.digest_above(old) == template

    def _unreadable(self, file: Pending, why: str) -> Unreadable | None:
        stamp = file.stamp
        if stamp is None or self.is_known_as_unreadable(file.path, stamp):
            return None
        self._remember(file.path, stamp, "")
        return Unreadable(file.path, stamp, why)

    def _deletion(self, file: Pending, unsettled_sizes: set[int], now: float) -> Deleted | None:
        known = self.answered.get(file.path)
        if known is None or self.folder.inode is None or file.path not in self.answered.seen_here:
            return None
        if not is_gone_at(self._root, file.path):
            return None
        if self.only_some and self._has_another_name(known.stamp):
            # That is for whoever checks all recipes next: none of its images is made twice then.
            self.answered.seen_here.discard(file.path)
            return None
        if known.stamp.size in unsettled_sizes:
            self.settling.postpone(file, now)
            return None
        self.forget(file.path)
        return Deleted(file.path)

    def _has_another_name(self, stamp: Stamp) -> bool:
        in_template = partial(dropped_in, self._root)
        return any(
            one.inode == stamp.inode and not one.written_since(stamp)
            for _, one in scan(self._root, "", {}, in_template, False)
        )

    def _held_open(self, settled: list[Pending]) -> set[str]:
        ids = {}
        for file in settled:
            with suppress(OSError):
                status = os.stat(f"{self._root}/{file.path}")  # noqa: PTH116 (no Path for each)
                ids[file.path] = status.st_dev, status.st_ino
        held = held_open_for_writing(set(ids.values()))
        return {path for path, id_ in ids.items() if id_ in held}

    def _defaults_for(self, path: str) -> tuple[Sequence[DefaultsFile], str]:
        """The `_defaults.yaml` above it, or else why one of them cannot be read.

        Raises FileChanged while one of them is being written.
        """
        try:
            return defaults_for(self._root, path), ""
        except FileUnreadable as error:
            return (), str(error)

    def _remember(self, path: str, stamp: Stamp, digest: str) -> None:
        self.answered.remember(path, stamp, digest)
        if is_template(path):
            self.templates.remember(path, digest)
        self.templates.has_request(path)
        self.waiting.forget(path)


def _check_quiet(file: Pending, stamp: Stamp) -> None:
    """Raises FileChanged if a writer began after it was quiet and nobody had it open."""
    if file.stamp is None or stamp.written_since(file.stamp):
        raise FileChanged
