"""Commands that delete, move or copy pictures, with what lies beside them.

A picture is moved by a second name, which then is the only one: a crash loses neither, and a
repetition finds what is there already.
"""

import errno
import logging
import os
import time
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count, filterfalse
from os.path import lexists
from pathlib import Path
from typing import Any

from picowatch.daemon.run import Run
from picowatch.errors import CommandFailed, PictureUnreadable
from picowatch.files.atomic import check_in_place, make_folder, sync_folder, write_atomically
from picowatch.files.names import stem_of
from picowatch.files.safe_paths import link_below, open_below, sha256_of, to_write
from picowatch.inbox.matching import matching, no_such
from picowatch.ledger import contact_sheets, control, queries
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import WaitingCommand
from picowatch.metadata.embedded_text import chunk_of
from picowatch.outbox.commands import Answer, Command
from picowatch.outbox.listing import line_of
from picowatch.outbox.names import ENDINGS, SIDECAR_ENDING
from picowatch.outbox.outbox import Outbox, why_kept
from picowatch.outbox.status import number_of
from picowatch.recipe.messages.suggestions import listed
from picowatch.streams import harmless

log = logging.getLogger("picowatch")

NAMED = 10  # recipes or pictures in an answer
EVENT = {"event": "command"}  # for the log
AT_ONCE = 100  # pictures between two looks at the clock; to find moved ones all images are read
GONE = "It is not there any more", "The gallery shows what is there within a minute."
# What a file system without hard links says, or the system of a file that belongs to others.
_NO_LINK = (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)

Stay = dict[str, tuple[str, str]]  # pictures, each with why it stays and what to do


@dataclass
class _Left:
    """What is left of a command: pictures, unknown names, and who stays and why."""

    files: list[str]
    unknown: str
    stay: Stay = field(default_factory=dict)


class PictureCommands:
    """Deletes and keeps pictures; the gallery knows which there are."""

    def __init__(self, run: Run) -> None:
        self._run, self._ledger = run, run.ledger
        self._left: dict[str, _Left] = {}  # by command
        self.ends_at = 0.0  # their time in this round: saves do not wait for thousands

    def delete(self, command: Command) -> Answer | None:
        """Delete pictures and all in folders, as a user would: only a save renders them again."""
        return self._do(command, partial(self._deleted, command), "deleted")

    def keep(self, command: Command, folder: str) -> Answer | None:
        """Move or copy pictures into a folder of the outbox."""
        outbox, copies = self._run.outbox, command.name == "keep copies"
        try:
            target = outbox.names.folder_to_keep(folder)
        except CommandFailed as error:
            return Answer(False, error.with_remedy)
        put = partial(self._put, command, target, copies=copies)
        return self._do(command, put, f"{'copied' if copies else 'moved'} to {target}", target)

    def _do(
        self, command: Command, do: Callable[[Sequence[str]], Stay], done: str, target: str = ""
    ) -> Answer | None:
        """Do something with the pictures that are left and not in `target`, some in each round."""
        left = self._left.get(command.file)
        if left is None:
            if (left := self._meant(command)) is None:
                return None
            root = self._run.outbox.root
            left.files = [it for it in left.files if not (target and is_there(root, it, target))]
        self._left[command.file] = left
        # The gallery has these before the ledger knows that they are done: they are the last.
        unfinished = queries.being_written(self._ledger)
        left.files.sort(key=unfinished.__contains__)
        while left.files and left.files[0] not in unfinished:
            if time.monotonic() >= self.ends_at:
                self._run.wake.set()
                return None
            now = [file for file in left.files[:AT_ONCE] if file not in unfinished]
            left.stay |= do(now)
            del left.files[: len(now)]
        if left.files:
            return None
        del self._left[command.file]
        count = counted(self._ledger, command).cancelled
        words = f"{number_of(count, 'picture')} {done}.{left.unknown}"
        for reason in dict.fromkeys(left.stay.values()):
            why, remedy = reason
            files = [file for file, its in left.stay.items() if its == reason]
            words += f"{named(why, files)} {remedy}"
        return Answer(not (left.unknown or left.stay), words)

    def _meant(self, command: Command) -> _Left | None:
        """Return the pictures that a command names, and which names have none.

        These are told with the nearest name, which is not that of a picture that is meant. None if
        the gallery lacks pictures, which could not be shown yet, and may lack these, or if an
        earlier command has taken the time: it may still move or delete them.
        """
        if time.monotonic() >= self.ends_at:
            self._run.wake.set()
            return None
        gallery = self._run.outbox.gallery
        shown = gallery.shown(sorted({*command.files}))
        wanted = dict.fromkeys(file for found in shown.values() for file in found)
        names = [name for name in shown if not shown[name]]
        if names and gallery.is_behind:
            return None
        there = [*filterfalse(wanted.__contains__, gallery.files() * bool(names))]
        known = queries.known_paths(self._ledger) if names else ()

        def why(name: str) -> str:
            if matching(name, known):
                return f"'{name}' has no picture in the gallery."
            return no_such(name, there, "the gallery")

        return _Left([*wanted], told(names, why))

    def _deleted(self, command: Command, files: Sequence[str]) -> Stay:
        """Delete pictures, and note how many; return those that stay, with reasons and remedies."""
        kept = self._run.outbox.delete(files)
        if gone := [file for file in files if file not in kept]:
            log.info("%s: deleted, as requested", briefly(gone), extra=EVENT)
        counted(self._ledger, command, len(gone))
        return kept

    def _put(self, command: Command, folder: str, files: Sequence[str], *, copies: bool) -> Stay:
        """Put pictures into a folder; return those that stay. The gallery learns it last."""
        outbox = self._run.outbox
        taken = queries.files_in(self._ledger, folder)
        placed, stay = put_into(outbox, folder, files, taken, copies=copies)
        outbox.gallery.copy_thumbnails(placed)
        lines = {}
        if not copies:
            images = queries.done_images(self._ledger, placed)
            for file, image in images.items():
                known = image["entry_digest"], image["ended"]
                # One that is not listed yet will be, at its new place.
                if image["listed"] and (line := line_of_moved(outbox, file, placed[file], *known)):
                    lines[placed[file]] = line
            told = outbox.listing.recent_moves()  # before a crash
            if new := [line for file, line in lines.items() if (line["moved"], file) not in told]:
                outbox.listing.append(*new)
            contact_sheets.follow_moved(self._ledger, [*images.values()], placed)
            outbox.leave(placed)
        outbox.gallery.keep(placed, lines, copies=copies)
        if placed:
            words = "%s: %s to %s, as requested"
            done = "copied" if copies else "moved"
            log.info(words, briefly([*placed]), done, folder, extra=EVENT)
        counted(self._ledger, command, len(placed))
        return stay


def counted(ledger: Ledger, command: Command, more: int = 0, running: int = 0) -> WaitingCommand:
    """Note how many more images or pictures a command has changed; return how many so far."""
    known = control.waiting_command(ledger, command.file) or WaitingCommand(time.time())
    known = known._replace(cancelled=known.cancelled + more, running=known.running + running)
    if more:
        control.note_command(ledger, command.file, known)
    return known


def briefly(files: Sequence[str]) -> str:
    return harmless(listed(files, most=1))


def told(names: Sequence[str], words_of: Callable[[str], str]) -> str:
    """Return a sentence of each of the first names, and how many more there are."""
    more = f" And {len(names) - NAMED} more." if len(names) > NAMED else ""
    return "".join(f" {words_of(name)}" for name in names[:NAMED]) + more


def named(words: str, recipes: list[str]) -> str:
    return f" {words}: {listed(recipes)}." if recipes else ""


# -- putting pictures into another folder


def put_into(
    outbox: Outbox, folder: str, files: Iterable[str], taken: Container[str], *, copies: bool
) -> tuple[dict[str, str], Stay]:
    """Put pictures into a folder, durably; return their new paths, and those that stay.

    `taken` are names of images that are not written yet, or were deleted: no picture gets them.
    """
    placed: dict[str, str] = {}
    stay: Stay = {}
    for file in files:
        try:
            placed[file] = _put_picture(outbox, file, folder, taken, copies=copies)
        except FileNotFoundError:
            stay[file] = GONE
        except OSError as error:
            stay[file] = why_kept(error, "copy" if copies else "move")
    if placed:
        sync_folder(outbox.root / folder)
    return placed, stay


def is_there(root: Path, file: str, folder: str) -> bool:
    """Whether a picture is in a folder of the outbox already, by whatever name or link."""
    with suppress(OSError):
        return (root / file).parent.samefile(root / folder)
    return False


def _put_picture(
    outbox: Outbox, file: str, folder: str, taken: Container[str], *, copies: bool
) -> str:
    root = outbox.root
    check_in_place(root / file)
    if to_write(root, file).is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(root / file))
    to_write(root, f"{folder}/any")
    make_folder(root / folder)
    names = (outbox.names.kept(file, folder, number) for number in count(1))
    target = next(name for name in names if _is_free_for(root, file, name, taken))
    for path in (file, *outbox.beside(file)):
        name = stem_of(target) + path.removeprefix(stem_of(file))
        _link_or_copy(root, path, name, copies=copies)
    return target


def _is_free_for(root: Path, file: str, target: str, taken: Container[str]) -> bool:
    """Whether nothing has this name, or this very picture has."""
    if lexists(root / target):
        if (root / target).is_symlink():
            return False
        try:
            with open_below(root, file) as first, open_below(root, target) as second:
                about, others = (os.fstat(opened.fileno()) for opened in (first, second))
                if os.path.samestat(about, others):  # linked before a crash, as a hundred may be
                    return True
                is_like = about.st_size == others.st_size
                return is_like and sha256_of(first) == sha256_of(second)
        except FileNotFoundError:
            raise
        except OSError:  # a folder, a pipe, a link out of the outbox
            return False
    endings = (*ENDINGS, SIDECAR_ENDING)
    is_there = any(lexists(root / f"{stem_of(target)}{ending}") for ending in endings)
    return not is_there and target not in taken


def _link_or_copy(root: Path, file: str, name: str, *, copies: bool) -> None:
    """Put a file at a name, unless something is there: a copy, or a link if the disk has them."""
    place = to_write(root, name)
    if lexists(place):
        return
    if not copies:
        try:
            link_below(root, file, name)
            return
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
    with open_below(root, file) as opened:
        mtime_ns = os.fstat(opened.fileno()).st_mtime_ns  # the gallery sorts by time
        write_atomically(place, iter(partial(opened.read, 1 << 20), b""), mtime_ns=mtime_ns)


def line_of_moved(
    outbox: Outbox, file: str, target: str, entry_digest: str, ended: float | None
) -> dict[str, Any] | None:
    """Return the line of a listed picture that is at `target` now; None if none can be made."""
    path = outbox.root / target
    try:
        line = line_of(target, chunk_of(path), ended or path.stat().st_mtime, entry_digest)
    except (PictureUnreadable, KeyError, TypeError, AttributeError):
        # Another program wrote it again, without metadata.
        lines = [line for line in outbox.listing.all() if line.get("file") == file]
        line = {**lines[-1], "file": target} if lines else {}
    return {**line, "moved": file} if line else None
