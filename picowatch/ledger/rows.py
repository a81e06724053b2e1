"""Values that go into the ledger and come out of it."""

import json
import math
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import Enum
from sqlite3 import Connection, Row
from typing import NamedTuple, Self

from picowatch.errors import LedgerCorrupt
from picowatch.files.names import is_picture_name, with_mask
from picowatch.recipe.request import ImageRequest

BESIDE = "a file beside it"  # why a picture is read


class SizeAndTime(NamedTuple):
    """Identifies a version of a file without reading it, for inequality only: clocks jump."""

    size: int
    mtime_ns: int
    inode: int
    sidecars: int = 0  # versions of a dropped picture's prompt, fields and mask, 0 without any
    ctime_ns: int = 0  # 0 where it is not known

    def what_differs(self, other: "SizeAndTime") -> str:
        """Return what makes this another version; "" for the same one.

        Inodes and ctimes do not count (see `moved_since`), nor do sidecars that were removed.
        """
        if self.size != other.size:
            return "its size"
        if self.mtime_ns != other.mtime_ns:
            return "its time"
        return BESIDE if (self.sidecars or other.sidecars) != other.sidecars else ""

    def written_since(self, other: "SizeAndTime") -> bool:
        return bool(self.what_differs(other))

    def moved_since(self, other: "SizeAndTime") -> bool:
        """Whether the file was replaced, linked or written meanwhile, perhaps by the same bytes."""
        is_known = bool(self.ctime_ns and other.ctime_ns)
        return is_known and (self.inode, self.ctime_ns) != (other.inode, other.ctime_ns)

    def is_of_same_file(self, other: "SizeAndTime") -> bool:
        """Whether this is a version of the same file, which may have another name."""
        return self[:3] == other[:3]

    def as_text(self) -> str:
        """Return the text for the ledger: times and inodes may be larger than SQLite's integers."""
        return " ".join(map(str, self))

    @classmethod
    def from_text(cls, text: str) -> "SizeAndTime":
        """Return what `as_text` wrote. Raises LedgerCorrupt."""
        try:
            return cls(*map(int, text.split()))
        except (TypeError, ValueError) as error:
            words = f"The ledger is damaged: a recipe's size and time are not valid: {error}."
            raise LedgerCorrupt(words) from error


@dataclass(frozen=True, slots=True)
class Save:
    """One saved version of a recipe."""

    path: str  # below the inbox, with forward slashes
    digest: str  # sha256 of the bytes, "" if they cannot be read
    size_and_time: SizeAndTime
    inbox_id: str = ""  # of the inbox that it was seen in
    template: str = ""  # sha256 of a dropped picture's template
    saved_at: float = field(default_factory=lambda: time.time())  # when it was noticed
    why: str = ""  # what makes it a save


NEVER_READ = SizeAndTime(0, 0, 0)  # differs from every file, so that the recipe is read again


class KnownRecipe(NamedTuple):
    """A recipe as of its last accepted or refused save."""

    size_and_time: SizeAndTime
    digest: str
    outcome: str = "accepted"
    inbox_id: str = ""
    template: str = ""
    waits: bool = False
    problem: str | None = None
    reread: str = ""
    accepted: str = ""

    def repeats(self, save: Save, *, is_picture: bool) -> bool:
        """Whether a save is the last accepted one, and not to be taken as if saved again."""
        digest, version = self.digest, self.size_and_time
        if self.outcome == "refused":
            digest, _, text = self.accepted.partition(" ")
            version = SizeAndTime.from_text(text) if text else NEVER_READ
        if digest != save.digest or self.reread == "saved":
            return False
        if is_picture:
            return version.sidecars == save.size_and_time.sidecars  # at another time, too
        return not save.size_and_time.written_since(version)

    def is_of(self, save: Save) -> bool:
        """Whether it has these bytes and this time, which a renamed file keeps."""
        return (self.digest, self.size_and_time[:2]) == (save.digest, save.size_and_time[:2])

    def is_accepted_as(self, version: SizeAndTime, inbox_id: str) -> bool:
        """Whether this version was accepted in this inbox, and is not wanted again."""
        is_same = self.size_and_time == version and self.inbox_id == inbox_id
        return is_same and self.outcome == "accepted" and not self.reread

    def is_kept_as(self, save: Save) -> bool:
        """Whether a file with another name is this recipe as it was accepted, not wanted again."""
        is_same = self.digest == save.digest and self.outcome == "accepted" and not self.reread
        return is_same and not save.size_and_time.written_since(self.size_and_time)

    def is_refusal_of(self, save: Save, problem: str) -> bool:
        """Whether this version was refused for this, as a template is with each picture."""
        what = save.size_and_time, save.digest, "refused", problem, ""
        return what == (self.size_and_time, self.digest, self.outcome, self.problem, self.reread)


class PassRate(NamedTuple):
    """The key of a rate (daemon/clock.py): `step` are pixels, in steps of two."""

    device: str
    kind: str
    model: str
    step: int


@dataclass(frozen=True, slots=True)
class RequestedEntry:
    """One entry of a save, as the ledger needs it."""

    digest: str
    priority: int
    random: bool
    requests: Callable[[int | None], Sequence[ImageRequest]]  # takes the drawn seed, None if fixed
    sheet: str | None = None  # JSON of what its contact sheet shows; the ledger only stores it
    may_differ: bool = False  # with the same digest and seeds it may give other images than before
    place: int = 0  # in its file, from 0
    occurrence: int = 0  # among equal ones, from 0

    @property
    def name(self) -> str:
        """The digest by which a picture's entry is found; the second of equal ones has `-1`."""
        return f"{self.digest}-{self.occurrence}" if self.occurrence else self.digest


@dataclass(slots=True)
class Acceptance:
    """What accepting a save changed, in numbers of images."""

    queued: int = 0
    redrawn: int = 0  # of those queued: from random seeds that were drawn again
    gone: int = 0  # … whose pictures do not exist any more
    cancelled: int = 0
    kept: int = 0
    existing: list[tuple[float, str]] = field(default_factory=list)  # pictures, with times


def note_failure(
    sql: Connection, recipe: str, save_digest: str, reason: str, **image: object
) -> None:
    """Have a line added to failures.jsonl; `image` tells the image from others of the save."""
    reason = reason.removeprefix(f"{recipe}: ")
    line = {"recipe": recipe, "reason": reason, "time": _now(), "save_digest": save_digest}
    sql.execute("INSERT INTO failures (line) VALUES (?)", (json.dumps(line | image),))


def note_history(sql: Connection, recipe: str, **what: object) -> None:
    """Have a line about a recipe with images added to images.jsonl."""
    line = json.dumps({**what, "recipe": recipe, "time": _now()})
    sql.execute(
        """INSERT INTO history (line)
           SELECT ? WHERE EXISTS (SELECT 1 FROM images WHERE recipe = ?)""",
        (line, recipe),
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def columns_of(request: ImageRequest) -> dict[str, object]:
    """Return what a row of `images` stores of a request."""
    return {
        "digest": request.digest,
        "request": json.dumps(request.as_dict(), sort_keys=True),
        "batch_key": request.batch_key,
        "checkpoint": request.checkpoint_hash,
        "pixels": math.prod(request.size_before_upscale),
    }


def insert_image(sql: Connection, request: ImageRequest, **others: object) -> int:
    """Add a row to `images`, with its `others`, and the copies that it needs; return its id."""
    columns = columns_of(request) | others
    values = ", ".join(f":{name}" for name in columns)
    query = f"INSERT INTO images ({', '.join(columns)}) VALUES ({values})"
    image_id = sql.execute(query, columns).lastrowid
    assert image_id is not None
    recipe = str(columns["recipe"])
    own = with_mask(recipe) if is_picture_name(recipe) else ()
    copies = {digest for path, digest in request.pictures.items() if path not in own}
    sql.executemany("INSERT INTO start_images VALUES (?, ?)", [(image_id, copy) for copy in copies])
    return image_id


def request_of(row: Row) -> ImageRequest:
    """Return the request of a row of `images`. Raises LedgerCorrupt."""
    try:
        return ImageRequest.from_dict(json.loads(row["request"]))
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerCorrupt(f"The ledger is damaged: a request is not valid: {error}.") from error


@dataclass(frozen=True, slots=True)
class QueuedImage:
    """An image as the worker sees it, with its file below the outbox; `alone`: in its own batch."""

    id: int
    recipe: str
    digest: str
    request: ImageRequest
    save_digest: str
    entry_index: int
    image_index: int
    entry_digest: str
    file: str
    attempts: int
    deaths: int
    alone: bool

    @classmethod
    def of(cls, row: Row) -> Self:
        values = {column.name: row[column.name] for column in fields(cls)}
        values["request"] = request_of(row)
        values["file"] = row["file"] or ""
        values["alone"] = bool(row["attempts"] or row["deaths"] or row["alone"])
        return cls(**values)


class WaitingCommand(NamedTuple):
    """A command that has no answer yet."""

    since: float  # when it was seen
    cancelled: int = 0  # images so far, or pictures of `delete` and `keep`
    running: int = 0  # … that were in progress
    last_save: int | None = None  # the newest before `make` had a folder read again


class PutBack(Enum):
    """Why a running image is queued again, and how its row records that."""

    NO_FAULT = "deaths = 0"
    ALONE = "alone = 1"  # a batch with it failed: it is rendered in one of its own
    ENGINE_DIED = "attempts = attempts + 1"
    DAEMON_DIED = "deaths = deaths + 1"


@dataclass(frozen=True, slots=True)
class DueSheet:
    """A contact sheet to be drawn: all images of its entry have ended."""

    recipe: str
    shows: str  # a hash of the sheet's JSON and of the images' files, or times
    sheet: str  # JSON
    images: tuple[tuple[ImageRequest, str | None], ...]  # in order, with files or None
    file: str | None  # if one was reserved


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a save: its pictures in the order of the file, the other images as counts."""

    valid: bool
    pictures: tuple[str, ...]
    unfinished: int
    failed: int
    cancelled: int


def folded(folder: str) -> str:
    """Return the folder as file systems compare it that ignore case and Unicode normalisation."""
    decomposed = unicodedata.normalize("NFD", folder)
    return unicodedata.normalize("NFD", decomposed.casefold())
