"""Starts picowatch on a disk after a power cut, and finds what is wrong afterwards."""

import hashlib
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.metadata.embedded_text import PICOWATCH, texts_in
from picowatch.recipe.chunk import read_chunk
from tests.digest_engine import Batch, DigestEngine, digest_pixels
from tests.house import House, error_files, faults, is_sheet, is_whole
from tests.power.disk import LOG, Disk, Recording, Write
from tests.power.scenario import ASKED, BATCH_SIZE, SAVES

ACCEPTED = re.compile(r"^[\d-]+ [\d:]+ (\S+): saved, ")
REJECTED = re.compile(r"^[\d-]+ [\d:]+ error inbox/(\S+), line")
EXPECTED = re.compile(REJECTED.pattern + r"|queued again: picowatch was killed while rendering it")
PUBLISHED = re.compile(r"^[\d-]+ [\d:]+ \S+: (?:contact sheet )?(\S+\.png)")
ARCHIVE = "archive"  # of the setting `when_done`


@dataclass(frozen=True, slots=True)
class Promises:
    """What the log had said at a moment."""

    accepted: int = 0  # saves
    rejected: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    def and_of(self, line: str) -> "Promises":
        if ACCEPTED.match(line):
            return replace(self, accepted=self.accepted + 1)
        if found := REJECTED.match(line):
            return replace(self, rejected=self.rejected | {found[1]})
        if found := PUBLISHED.match(line):
            return replace(self, files=self.files | {found[1]})
        return self


class Story:
    """What was logged when, and the result without a power cut."""

    def __init__(self, recording: Recording, whole: Disk) -> None:
        self.files = whole.files
        self.saves = _images_by_save(recording.folder / "outbox/.picowatch/ledger.sqlite")
        self.promises = [Promises()] * (recording.settled + 1)  # by ended operations
        for operation in recording.operations[recording.settled :]:
            promises = self.promises[-1]
            if isinstance(operation, Write) and recording.is_named(operation.file, LOG):
                promises = promises.and_of(operation.content.decode())
            self.promises.append(promises)

    def moments_of_promises(self) -> list[int]:
        """Return the moments right after something was logged."""
        told = self.promises
        return [n for n in range(1, len(told)) if told[n] != told[n - 1]]

    def distinct(self, disks: Iterable[Disk]) -> Iterator[Disk]:
        """Return disks for which starts, or earlier promises, differ."""
        seen = set()
        for disk in disks:
            key = disk.key(), self.promises[disk.moment]
            if key not in seen:
                seen.add(key)
                yield disk


def _images_by_save(ledger: Path) -> list[set[tuple[str, str]]]:
    """Return recipe and digest of the images of each valid save, in order."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as sql:
        saves = sql.execute("SELECT id FROM saves WHERE outcome = 'accepted' ORDER BY id")
        return [
            set(sql.execute("SELECT recipe, digest FROM images WHERE save = ?", (save,)))
            for (save,) in saves.fetchall()
        ]


class Checker:
    """Checks one disk after the other, in folders of its own."""

    def __init__(self, story: Story, folder: Path, when_done: str = "keep") -> None:
        self._story, self._when_done = story, when_done
        self._house = House(folder)
        self._promises = Promises()
        self._inbox: dict[str, bytes] = {}  # as it was before the start

    def violations(self, disk: Disk) -> list[str]:
        """Start picowatch on the disk, and return everything that is wrong."""
        self._promises = self._story.promises[disk.moment]
        below, files = "inbox/", disk.files.items()
        self._inbox = {p.removeprefix(below): c for p, c in files if p.startswith(below)}
        disk.lay_out(self._house.folder)
        found = list(self._broken_promises(disk))
        self._house.engine = DigestEngine()
        self._house.engine.before_batch = lambda batch: found.extend(self._missing_copies(batch))
        log_before = len(disk.files.get(f"outbox/{LOG}", b""))
        try:
            succeeded = self._house.once(batch_size=BATCH_SIZE, when_done=self._when_done)
        except Exception as error:  # whatever it is, this disk is what did it
            return [*found, f"picowatch does not start: {type(error).__name__}: {error}"]
        if not succeeded and self._invalid <= self._promises.rejected:
            found.append("the run failed")
        try:
            with closing(sqlite3.connect(f"file:{self._house.ledger}?mode=ro", uri=True)) as sql:
                sql.row_factory = sqlite3.Row
                of_recipes = self._of_archive if self._when_done == ARCHIVE else self._of_recipes
                for check in (self._of_ledger, of_recipes, self._of_pictures, self._of_sheets):
                    found += check(sql)
        except sqlite3.Error as error:
            found.append(f"the ledger cannot be read: {error}")
        return [*found, *faults(self._house.outbox), *self._of_texts(log_before)]

    @property
    def _invalid(self) -> set[str]:
        return {name for name, content in self._inbox.items() if ASKED[content] == 0}

    def _broken_promises(self, disk: Disk) -> Iterator[str]:
        for file in self._promises.files:
            path = f"outbox/{file}"
            if path not in disk.files:
                yield f"{file} was published and is gone"
            elif disk.files[path] != self._story.files[path]:
                yield f"{file} was published and is damaged"
        for recipe in self._promises.rejected & self._invalid:
            if not disk.files.get(f"outbox/{recipe}.error.txt"):
                yield f"{recipe}'s error file was written and is gone"

    def _missing_copies(self, batch: Batch) -> Iterator[str]:
        for digest in filter(None, (request.image_hash for request in batch)):
            copy = self._house.outbox / ".picowatch/start-images" / digest
            content = copy.read_bytes() if copy.exists() else b""
            if hashlib.sha256(content).hexdigest() != digest:
                yield "a start image's copy is missing or damaged"

    # -- after the start that followed the power cut

    def _of_ledger(self, sql: sqlite3.Connection) -> Iterator[str]:
        for (fault,) in sql.execute("PRAGMA integrity_check"):
            if fault != "ok":
                yield f"the ledger is corrupt: {fault}"
        if sql.execute("PRAGMA foreign_key_check").fetchall():
            yield "the ledger's tables do not fit together"
        images = set(map(tuple, sql.execute("SELECT recipe, digest FROM images")))
        for save in self._story.saves[: self._promises.accepted]:
            if not save <= images:
                yield "an accepted image was lost: the seeds drawn for it are gone"

    def _of_recipes(self, sql: sqlite3.Connection) -> Iterator[str]:
        query = """SELECT images.state, count(*) FROM entries
                   JOIN entry_images ON entry = entries.id
                   JOIN images ON images.id = entry_images.image
                   WHERE entries.recipe = ? GROUP BY images.state"""
        for recipe, content in self._inbox.items():
            wanted = ASKED[content]
            states = dict(map(tuple, sql.execute(query, (recipe,))))
            if wanted is not None and states != ({"done": wanted} if wanted else {}):
                yield f"{recipe} asks for {wanted} images and has {states}"

    def _of_archive(self, sql: sqlite3.Connection) -> Iterator[str]:
        for recipe, (content, wanted) in SAVES[0].items():
            if not wanted:
                continue
            archived = self._house.outbox / recipe.rpartition(".")[0] / Path(recipe).name
            if not archived.exists() or archived.read_bytes() != content:
                yield f"{recipe} is not in the archive, or not whole"
            if (self._house.inbox / recipe).exists():
                yield f"{recipe} is still in the inbox"
            query = "SELECT count(*) FROM images WHERE recipe = ?"
            if (made := sql.execute(query, (recipe,)).fetchone()[0]) != wanted:
                yield f"{recipe} asked for {wanted} images and got {made}"

    def _of_pictures(self, sql: sqlite3.Connection) -> Iterator[str]:
        done: Counter[str] = Counter()
        for row in sql.execute("SELECT * FROM images WHERE state != 'cancelled'"):
            if row["state"] != "done":
                yield f"an image of {row['recipe']} is {row['state']}"
                continue
            done[row["file"]] += 1
            picture = self._house.outbox / row["file"]
            if not picture.exists():
                yield f"{row['file']} is done and missing"
            elif (shown := _digest_shown(picture.read_bytes())) != row["digest"]:
                yield f"{row['file']} is done and {'shows another' if shown else 'damaged'}"
        there = Counter(file for file in self._house.pictures() if not is_sheet(file))
        for file in (there - done) | (done - there):
            yield f"{file} is there {there[file]} times and {done[file]} times in the ledger"
        for file in self._promises.files - done.keys():
            if not is_sheet(file):
                yield f"{file} was published and the ledger does not know it"
        latest = self._house.outbox / "latest.png"
        if latest.exists() and not is_whole(latest):
            yield "latest.png is damaged"

    def _of_sheets(self, sql: sqlite3.Connection) -> Iterator[str]:
        wanted = []
        for (recipe,) in sql.execute("SELECT recipe FROM entries WHERE sheet IS NOT NULL"):
            drawn = "SELECT file FROM sheets WHERE recipe = ? AND done"
            files = [file for (file,) in sql.execute(drawn, (recipe,))]
            if not files:
                yield f"{recipe}'s contact sheet is not made"
            wanted += files
        there = [file for file in self._house.pictures() if is_sheet(file)]
        if self._when_done == ARCHIVE and not wanted:
            wanted = there[:1]
        if sorted(wanted) != there:
            yield f"there are the contact sheets {there} and not {wanted}"

    def _of_texts(self, log_before: int) -> Iterator[str]:
        there = error_files(self._house.outbox)
        for recipe in there ^ self._invalid:
            yield f"{recipe}'s error file is {'there' if recipe in there else 'missing'}"
        told = (self._house.outbox / LOG).read_bytes()[log_before:].decode(errors="replace")
        for line in told.splitlines():
            if re.search(r" (error|warning|critical) ", line) and not EXPECTED.search(line):
                yield f"the log says {line[20:]!r}"


@lru_cache(maxsize=256)
def _digest_shown(content: bytes) -> str | None:
    """Return the digest that a picture both names and shows; None if it is damaged."""
    try:
        request = read_chunk(texts_in(BytesIO(content))[PICOWATCH]).request
        with Image.open(BytesIO(content)) as image:
            return request.digest if image.tobytes() == digest_pixels(request) else None
    except (PictureUnreadable, KeyError, OSError, SyntaxError, ValueError):
        return None
