"""Starts picowatch on a disk after a power cut, and finds what is wrong afterwards."""

import hashlib
import re
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.metadata import PICOWATCH, read_chunk, texts_of
from tests.digest_engine import Batch, DigestEngine, digest_pixels
from tests.house import House
from tests.outcome import error_files, faults, is_sheet, is_whole
from tests.power.disk import LOG, Disk
from tests.power.operations import Arrived, Recording, Write
from tests.power.scenario import ASKED, BATCH_SIZE, INVALID, SAVES, write_save

ACCEPTED = re.compile(r"^[\d-]+ [\d:]+ (\S+): saved, ")
REJECTED = re.compile(r"^[\d-]+ [\d:]+ error inbox/(\S+), line")
EXPECTED = re.compile(REJECTED.pattern + r"|killed or stopped in the middle of something")
PUBLISHED = re.compile(r"^[\d-]+ [\d:]+ \S+: (?:contact sheet )?(\S+\.png)")
ARCHIVE = "archive"  # of the setting `when_done`


@dataclass(frozen=True, slots=True)
class Promises:
    """What the log had said at a moment, and what was in the inbox."""

    accepted: int  # saves
    rejected: frozenset[str]
    files: frozenset[str]
    inbox: tuple[tuple[str, int], ...]  # each file with the number of its save


NOTHING_PROMISED = Promises(0, frozenset(), frozenset(), ())


class Story:
    """What was logged when, and the result without a power cut."""

    def __init__(
        self, recording: Recording, whole: Disk, before: Promises = NOTHING_PROMISED
    ) -> None:
        """Start with `before`, what had been promised when the recorded run began."""
        self._recording = recording
        self.files = whole.files
        self.saves = _images_by_save(recording.folder / "outbox/.picowatch/ledger.sqlite")
        self._at: list[Promises] = list(self._follow(before))

    def at(self, moment: int) -> Promises:
        """Return what was promised once `moment` operations had ended."""
        return self._at[moment]

    def moments_of_promises(self) -> list[int]:
        """Return the moments right after something was logged."""
        promised = [(each.accepted, each.rejected, each.files) for each in self._at]
        return [n for n in range(1, len(promised)) if promised[n] != promised[n - 1]]

    def _follow(self, before: Promises) -> Iterator[Promises]:
        accepted, rejected, files = before.accepted, before.rejected, before.files
        inbox = dict(before.inbox)
        yield before
        for number, operation in enumerate(self._recording.operations):
            if number < self._recording.settled:
                pass  # what the log tells of an earlier run is in `before`
            elif isinstance(operation, Arrived):
                inbox[operation.name] = operation.number
                rejected -= {operation.name}
            elif isinstance(operation, Write) and self._recording.is_named(operation.file, LOG):
                line = operation.content.decode()
                if found := ACCEPTED.match(line):
                    accepted += 1
                elif found := REJECTED.match(line):
                    rejected |= {found[1]}
                elif found := PUBLISHED.match(line):
                    files |= {found[1]}
            yield Promises(accepted, rejected, files, tuple(inbox.items()))


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
        self._story = story
        self._house = House(folder)
        self._inbox: tuple[tuple[str, int], ...] | None = ()
        self._when_done = when_done

    def violations(self, disk: Disk) -> list[str]:
        """Start picowatch on the disk, and return everything that is wrong."""
        promises = self._story.at(disk.moment)
        arrived = frozenset(name for name, _ in promises.inbox)
        if disk.inbox:
            there = tuple(save for save in promises.inbox if save[0] in disk.inbox)
            promises = replace(promises, inbox=there)
        self._lay_out(disk, promises)
        found = list(self._broken_promises(disk, promises))
        log_before = self._log_size()
        self._house.engine = engine = DigestEngine()
        engine.before_batch = lambda batch: found.extend(self._missing_start_images(batch))
        try:
            succeeded = self._house.once(batch_size=BATCH_SIZE, when_done=self._when_done)
        except Exception as error:  # whatever it is, this disk is what did it
            return [*found, f"picowatch does not start: {type(error).__name__}: {error}"]
        if not succeeded and not self._is_rejected_anew(promises):
            found.append("the run failed")
        outcome = _Outcome(self._house, self._story, promises, log_before, self._when_done, arrived)
        if self._when_done != "keep":
            self._inbox = None  # picowatch took recipes out of it
        try:
            found += outcome.violations()
        except sqlite3.Error as error:
            found.append(f"the ledger cannot be read: {error}")
        return found

    def _log_size(self) -> int:
        log = self._house.outbox / LOG
        return log.stat().st_size if log.exists() else 0

    def _lay_out(self, disk: Disk, promises: Promises) -> None:
        disk.lay_out(self._house.folder)
        if promises.inbox != self._inbox:
            for child in self._house.inbox.iterdir():
                shutil.rmtree(child) if child.is_dir() else child.unlink()
            for name, number in promises.inbox:
                write_save(self._house.inbox / name, name, number)
            self._inbox = promises.inbox

    def _broken_promises(self, disk: Disk, promises: Promises) -> Iterator[str]:
        for file in promises.files:
            path = f"outbox/{file}"
            if path not in disk.files:
                yield f"{file} was published and is gone"
            elif disk.files[path] != self._story.files[path]:
                yield f"{file} was published and is damaged"
        for recipe in promises.rejected:
            if not disk.files.get(f"outbox/{recipe}.error.txt"):
                yield f"{recipe}'s error file was written and is gone"

    def _is_rejected_anew(self, promises: Promises) -> bool:
        return any(version in INVALID for version in promises.inbox) and not promises.rejected

    def _missing_start_images(self, batch: Batch) -> Iterator[str]:
        for request in batch:
            if digest := request.image_hash:
                copy = self._house.outbox / ".picowatch/start-images" / digest
                content = copy.read_bytes() if copy.exists() else b""
                if hashlib.sha256(content).hexdigest() != digest:
                    yield "a start image's copy is missing or damaged"


@dataclass
class _Outcome:
    """The files after the start that followed a power cut."""

    house: House
    story: Story
    promises: Promises
    log_before: int
    when_done: str
    arrived: frozenset[str]  # the recipes that were ever in the inbox
    done: Counter[str] = field(default_factory=Counter)

    def violations(self) -> Iterator[str]:
        ledger = self.house.outbox / ".picowatch/ledger.sqlite"
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as sql:
            yield from self._of_ledger(sql)
            sql.row_factory = sqlite3.Row
            yield from self._of_pictures(sql)
            yield from self._of_sheets(sql)
        yield from faults(self.house.outbox)
        yield from self._of_error_files()
        yield from self._of_log()

    def _of_ledger(self, sql: sqlite3.Connection) -> Iterator[str]:
        for (fault,) in sql.execute("PRAGMA integrity_check"):
            if fault != "ok":
                yield f"the ledger is corrupt: {fault}"
        if sql.execute("PRAGMA foreign_key_check").fetchall():
            yield "the ledger's tables do not fit together"
        images = set(sql.execute("SELECT recipe, digest FROM images").fetchall())
        for save in self.story.saves[: self.promises.accepted]:
            if not save <= images:
                yield "an accepted image was lost: the seeds drawn for it are gone"
        if self.when_done == ARCHIVE:
            yield from self._of_archive(sql)
            return
        for recipe, number in self.promises.inbox:
            wanted = ASKED.get((recipe, number))
            states = Counter(
                state
                for (state,) in sql.execute(
                    """SELECT images.state FROM entries JOIN entry_images ON entry = entries.id
                       JOIN images ON images.id = entry_images.image WHERE entries.recipe = ?""",
                    (recipe,),
                )
            )
            if wanted is not None and states != Counter({"done": wanted} if wanted else {}):
                yield f"{recipe} asks for {wanted} images and has {dict(states)}"

    def _of_archive(self, sql: sqlite3.Connection) -> Iterator[str]:
        for (recipe, number), wanted in ASKED.items():
            if number or not wanted or recipe not in self.arrived:
                continue
            archived = self.house.outbox / recipe.rpartition(".")[0] / Path(recipe).name
            if not archived.exists() or archived.read_bytes() != SAVES[0][recipe]:
                yield f"{recipe} is not in the archive, or not whole"
            if (self.house.inbox / recipe).exists():
                yield f"{recipe} is still in the inbox"
            query = "SELECT count(*) FROM images WHERE recipe = ?"
            if (made := sql.execute(query, (recipe,)).fetchone()[0]) != wanted:
                yield f"{recipe} asked for {wanted} images and got {made}"

    def _of_pictures(self, sql: sqlite3.Connection) -> Iterator[str]:
        for row in sql.execute("SELECT * FROM images WHERE state != 'cancelled'"):
            if row["state"] != "done":
                yield f"an image of {row['recipe']} is {row['state']}"
                continue
            self.done[row["file"]] += 1
            picture = self.house.outbox / row["file"]
            if not picture.exists():
                yield f"{row['file']} is done and missing"
            elif (shown := _digest_shown(picture.read_bytes())) != row["digest"]:
                yield f"{row['file']} is done and {'shows another' if shown else 'damaged'}"
        there = Counter(file for file in self.house.pictures() if not is_sheet(file))
        for file in (there - self.done) | (self.done - there):
            yield f"{file} is there {there[file]} times and {self.done[file]} times in the ledger"
        for file in self.promises.files - self.done.keys():
            if not is_sheet(file):
                yield f"{file} was published and the ledger does not know it"
        latest = self.house.outbox / "latest.png"
        if latest.exists() and not is_whole(latest):
            yield "latest.png is damaged"

    def _of_sheets(self, sql: sqlite3.Connection) -> Iterator[str]:
        wanted = []
        for row in sql.execute("SELECT * FROM entries WHERE sheet IS NOT NULL"):
            if not row["sheet_done"]:
                yield f"{row['recipe']}'s contact sheet is not made"
            wanted.append(row["sheet_file"])
        there = [file for file in self.house.pictures() if is_sheet(file)]
        if self.when_done == ARCHIVE and not wanted:
            wanted = there[:1]
        if sorted(wanted) != there:
            yield f"there are the contact sheets {there} and not {wanted}"

    def _of_error_files(self) -> Iterator[str]:
        there = error_files(self.house.outbox)
        for recipe in there ^ {version[0] for version in self.promises.inbox if version in INVALID}:
            yield f"{recipe}'s error file is {'there' if recipe in there else 'missing'}"

    def _of_log(self) -> Iterator[str]:
        told = (self.house.outbox / LOG).read_bytes()[self.log_before :].decode(errors="replace")
        for line in told.splitlines():
            if re.search(r" (error|warning|critical) ", line) and not EXPECTED.search(line):
                yield f"the log says {line[20:]!r}"


@lru_cache(maxsize=256)
def _digest_shown(content: bytes) -> str | None:
    """Return the digest that a picture both names and shows; None if it is damaged."""
    try:
        request = read_chunk(texts_of(content)[PICOWATCH]).request
        with Image.open(BytesIO(content)) as image:
            return request.digest if image.tobytes() == digest_pixels(request) else None
    except (PictureUnreadable, KeyError, OSError, SyntaxError, ValueError):
        return None
