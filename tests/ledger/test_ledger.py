"""The ledger by itself: what is kept, what its questions cost, and disks that fail a sync."""

import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import count, groupby, repeat
from pathlib import Path

import pytest

from picowatch.ledger import accept, control, followups, queries, queue
from picowatch.ledger.followups import KEPT_SECONDS
from picowatch.ledger.ledger import VERSION, Ledger
from picowatch.ledger.rows import Acceptance, QueuedImage, RequestedEntry, Save, SizeAndTime
from picowatch.ledger.turns import Turns
from picowatch.outbox.names import OutboxNames
from picowatch.recipe.request import ImageRequest
from tests.engine.requests import request
from tests.house import House


def entry(prompt: str, seed: int | None = None) -> RequestedEntry:
    return RequestedEntry(
        digest=f"{prompt} {seed}",
        priority=0,
        random=seed is None,
        requests=lambda drawn: [request(prompt, seed=drawn if seed is None else seed)],
    )


def _given(requests: list[ImageRequest], _: int | None) -> list[ImageRequest]:
    return requests


class Desk:
    def __init__(self, folder: Path) -> None:
        self.ledger = Ledger(folder / "ledger.sqlite")
        self.names = OutboxNames(folder, "{number}-{seed}")
        self.there: set[str] = set()
        self.drawn = 0
        self.saves = 0

    def save(self, path: str, *entries: RequestedEntry) -> Acceptance:
        self.saves += 1
        number, there = self.saves, self.there.__contains__
        save = Save(path, str(number), SizeAndTime(number, number, 1), saved_at=float(number))
        return accept.accept(
            self.ledger, save, entries, draw_seed=self._draw, picture_exists=there, formers={}
        )

    def _draw(self) -> int:
        # Every other draw repeats the last one: a ledger must not take it for the same picture.
        self.drawn += 1
        return self.drawn // 2

    def claim(self, most: int = 5) -> list[QueuedImage]:
        return queue.claim(self.ledger, self.names, lambda request: most)

    def make_one(self) -> str:
        (image,) = self.claim(1)
        self.there.add(image.file)
        queue.hand_over(self.ledger, [image])
        queue.finish(self.ledger, [(image, None, True)])
        return image.request.prompt


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.ledger.close()


def test_saves_are_kept_for_a_month(desk: Desk) -> None:
    """The last one of each recipe is kept longer; an archived recipe's entries go with it."""
    for name in ("a.txt", "a.txt", "b.txt"):
        desk.save(name, entry(name, 1))
        if queries.counts(desk.ledger)["queued"]:
            desk.make_one()
    followups.archive(desk.ledger, "b.txt")
    for seconds, left in ((0, ["a.txt", "a.txt", "b.txt"]), (10, ["a.txt"])):
        followups.prune(desk.ledger, KEPT_SECONDS + seconds)
        assert [row[0] for row in desk.ledger.select("SELECT recipe FROM saves")] == left
    assert [row[0] for row in desk.ledger.select("SELECT recipe FROM entries")] == ["a.txt"]
    assert queries.counts(desk.ledger) == Counter(done=2), "pictures stay"


def test_an_engine_takes_what_it_has_loaded_and_then_what_no_other_has(desk: Desk) -> None:
    """The oldest is passed over a few times; a higher priority comes first in any case."""
    low = [request(seed=n, checkpoint_hash=digit) for n, digit in enumerate("1233133")]
    high = [request(seed=10, checkpoint_hash="4")]
    desk.save("low.txt", RequestedEntry("low", 0, False, lambda _: low))
    desk.save("high.txt", RequestedEntry("high", 1, False, lambda _: high))
    taken = [
        image.request.seed
        for held, others in (("3", ""), ("3", ""), ("", "1"), ("3", ""), ("3", ""), ("3", ""))
        for image in queue.claim(
            desk.ledger, desk.names, lambda request: 1, held, others.split(), patience=3
        )
    ]
    assert taken == [10, 2, 1, 3, 0, 5]


def test_folders_with_other_checkpoints_take_longer_turns(desk: Desk) -> None:
    """To load another for each batch would take longer than all batches."""
    for number, folder in enumerate(("ada", "ben", "carl")):
        wanted = [request(seed=seed, checkpoint_hash=str(number)) for seed in range(24)]
        desk.save(f"{folder}/a.txt", RequestedEntry(folder, 0, False, partial(_given, wanted)))
    turns, held, started = Turns(), "", ""
    while batch := queue.claim(desk.ledger, desk.names, lambda _: 1, held, turns=turns):
        held = batch[0].request.checkpoint_hash
        started += held
    runs = [len([*run]) for _, run in groupby(started)]
    assert max(runs) <= 12 and len(runs) <= 24
    assert {*started[:16]} == {"0", "1", "2"}, "nobody waits for long"


def test_folders_take_turns_however_many_wait(desk: Desk) -> None:
    desk.save("0/a.txt", entry("0", 1), entry("0 again", 1))
    for number in range(1, 501):
        desk.save(f"{number}/a.txt", entry(f"{number}", 1))
    turns = Turns()
    taken = [
        image.request.prompt
        for _ in range(3)
        for image in queue.claim(desk.ledger, desk.names, lambda _: 1, turns=turns)
    ]
    assert taken == ["0", "1", "2"]


def test_looks_cost_the_same_however_much_is_done(desk: Desk) -> None:
    """After a save each minute for a year, all frequent queries use an index."""
    costs: list[int] = []

    def count() -> None:
        costs[-1] += 1

    for number in (1, 500):
        star = {"image": "star.png", "image_hash": "11" * 32}
        wanted = [request(seed=seed, **star) for seed in range(number)]
        desk.save("a", RequestedEntry(str(number), 0, False, partial(_given, wanted)))
        images = desk.claim(500)
        queue.finish(desk.ledger, [(image, None, True) for image in images])
        costs.append(0)
        with desk.ledger.transaction() as sql:
            sql.set_progress_handler(count, 10)
            assert not queue.is_start_image_needed(desk.ledger, "00" * 32)
            assert queue.start_images_needed(desk.ledger) == set()
            assert control.recipes_with_failures(desk.ledger) == []
            assert followups.unlisted(desk.ledger) == queue.running(desk.ledger) == []
            sql.set_progress_handler(None, 0)
    assert queries.counts(desk.ledger) == Counter(done=500)
    assert 0 < costs[1] <= costs[0] + 5


def test_a_drawn_seed_that_was_there_before_is_drawn_again(desk: Desk) -> None:
    """Requesting it again always gives a new picture."""
    for _ in range(5):
        assert desk.save("a.txt", entry("one")).queued == 1
        assert desk.make_one() == "one"


def test_sizes_and_times_of_any_size_are_kept(desk: Desk) -> None:
    """Inodes of FUSE and mergerfs use 64 bits, which is too much for SQLite's integers."""
    size_and_time = SizeAndTime(2**62, 2**66, 2**64 - 1)
    accept.refuse(desk.ledger, Save("a.txt", "digest", size_and_time), "a typo")
    assert queries.known_recipes(desk.ledger)["a.txt"].size_and_time == size_and_time


# -- a disk that fails a sync once: the change is in the file or not, as the next daemon reads it


CHANGE = """
import sys
from pathlib import Path
from picowatch.ledger.ledger import CommitUnknown, Ledger
ledger = Ledger(Path(sys.argv[1]))
try:
    ledger.change("INSERT INTO paused VALUES (1)")
    said = "counts"
except CommitUnknown:
    said = "unknown"
ledger.close()
print(said, len(Ledger(Path(sys.argv[1])).select("SELECT * FROM paused")))
"""
NEVER = 1000


def change(folder: Path, failing_sync: int) -> tuple[str, int]:
    """Let this sync of the ledger fail; return what the change led to, and how many syncs it had.

    Those of opening a new ledger come first.
    """
    ledger, trace = folder / "ledger.sqlite", folder / "trace"
    for old in folder.glob("ledger*"):
        old.unlink()
    strace = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
    strace += ["-P", str(ledger), "-P", f"{ledger}-journal"]
    strace += ["-e", f"inject=fsync,fdatasync:error=EIO:when={failing_sync}"]
    command = [*strace, sys.executable, "-c", CHANGE, str(ledger)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "strace" in done.stderr:
        pytest.skip(f"strace does not work here: {done.stderr}")
    return done.stdout.strip(), sum("sync(" in line for line in trace.read_text().splitlines())


def test_a_change_is_unknown_whichever_sync_of_its_commit_fails(tmp_path: Path) -> None:
    """After the last one, when the journal is truncated, it is in place all the same."""
    said, syncs = change(tmp_path, NEVER)
    assert said == "counts 1"
    outcomes = [change(tmp_path, sync)[0] for sync in range(syncs - 3, syncs + 1)]
    assert outcomes == ["unknown 0", "unknown 0", "unknown 0", "unknown 1"]


def failing(fails: Iterator[bool]) -> Callable[[Ledger], None]:
    """Commit, and say what the last sync does when it `fails`."""

    def commit(ledger: Ledger) -> None:
        ledger._connection.execute("COMMIT")
        if next(fails):
            raise sqlite3.OperationalError("disk I/O error")

    return commit


def test_the_daemon_starts_over_after_such_a_commit_but_a_single_run_only_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is drawn twice; a disk on which each commit fails ends the run in words."""
    monkeypatch.setattr(Ledger, "_commit", failing(number == 8 for number in count(1)))
    house.save("a.yaml", "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 3\n")
    assert house.once(batch_size=1)
    assert house.seeds() == [1, 2, 3]
    assert "may be written or not: disk I/O error; picowatch starts over" in house.log()
    monkeypatch.setattr(Ledger, "_commit", failing(repeat(True)))
    house.save("b.yaml", "prompt: a corgi\nseed: 4\nsize: 64x64\n")
    assert not house.once()
    assert "picowatch exits: a change of" in house.log()


# -- the ledger of a version before: an upgrade loses nothing, and renders nothing again.
# `version-8.sql` is that of a daemon that had archived, rendered, renamed and refused recipes,
# rendered a photo, failed at an image, and accepted more; that had a recipe cancelled and was
# paused while it rendered the first image of running.yaml, and then died.


RECIPES = {
    "done.yaml": "prompt: a corgi\nseed: 1\ncount: 2\n",
    "random.txt": "a star\na star\na moon\n",
    "sheet.yaml": "prompt: a cat\nseed: 5\nsweep: {steps: [2, 3]}\n",
    "failed.yaml": "prompt: bad\nseed: 4\n",
    "refused.yaml": "stesp: 3\n",
    "renamed.yaml": "prompt: a ship\n",
    "photos/_pictures.yaml": "prompt: a fox\nseed: 3\n",
    "running.yaml": "prompt: a tree\ncount: 2\n",
    "queued.yaml": "prompt: a house\ncount: 3\npriority: -1\n",
    "cancelled.yaml": "prompt: a road\ncount: 2\n",
}
QUEUED = ["a tree", "a fox", "a tree", "a moon", "a house", "a house", "a house"]


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as sql:
        sql.executescript(Path(__file__).with_name("version-8.sql").read_text())


@pytest.fixture
def upgraded(house: House) -> House:
    """Put the older ledger into a house whose files are those of that ledger."""
    for name, text in RECIPES.items():
        house.save(name, text)
    for colour in ("red", "blue"):
        house.draw(f"photos/{colour}.bmp", colour)
    put(house.ledger)
    with closing(sqlite3.connect(house.ledger)) as sql, sql:
        for path in [*RECIPES, "photos/red.bmp", "photos/blue.bmp"]:
            found = (house.inbox / path).stat()
            seen = f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
            sql.execute("UPDATE recipes SET size_and_time = ? WHERE path = ?", (seen, path))
    return house


def test_an_upgrade_keeps_the_pause_the_queue_and_what_was_drawn(upgraded: House) -> None:
    """And the seeds, failures and cancellations; no recipe is read again."""
    with closing(sqlite3.connect(upgraded.ledger)) as sql:
        drawn = [seed for (seed,) in sql.execute("""SELECT json_extract(request, '$.seed')
            FROM images WHERE state IN ('queued', 'running')
            ORDER BY priority DESC, save, entry_index, image_index""")]  # fmt: skip
    upgraded.once()
    images = upgraded.status()["images"]
    assert (images["queued"], images["cancelled"], images["done"]) == (7, 2, 9)
    assert upgraded.started() == []
    assert "unlisted" in (upgraded.outbox / "failures.jsonl").read_text()
    upgraded.tell("resume")
    for _ in range(2):
        upgraded.once(batch_size=1)
        assert upgraded.started() == QUEUED
    assert sorted(batch[0].seed for batch in upgraded.engine.batches) == sorted(drawn)
    assert upgraded.answer("retry").done
    assert upgraded.started() == [*QUEUED, "bad"]


def test_an_entry_that_is_saved_again_is_known_by_its_digest(upgraded: House) -> None:
    """The digests of that version are read as they are: nothing is drawn again."""
    with closing(sqlite3.connect(upgraded.ledger)) as sql:
        files = [file for (file,) in sql.execute("SELECT file FROM images WHERE file != ''")]
    for file in files:
        (upgraded.outbox / file).parent.mkdir(exist_ok=True)
        (upgraded.outbox / file).touch()
    for name in ("done.yaml", "sheet.yaml"):
        upgraded.save(name, f"{RECIPES[name]}# again\n")
    upgraded.once()
    assert upgraded.log().count(".yaml: saved, nothing new to render") == 2


def test_a_migrated_ledger_has_a_new_ones_tables_and_the_former_one_is_kept(tmp_path: Path) -> None:
    put(tmp_path / "old.sqlite")
    before = (tmp_path / "old.sqlite").read_bytes()
    Ledger(tmp_path / "old.sqlite").close()
    Ledger(tmp_path / "new.sqlite").close()
    assert shape(tmp_path / "old.sqlite") == shape(tmp_path / "new.sqlite")
    assert (tmp_path / "old.sqlite.version-8").read_bytes() == before
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as sql:
        sql.executescript("ALTER TABLE recipes DROP COLUMN accepted; PRAGMA user_version = 9")
    Ledger(tmp_path / "old.sqlite").close()
    assert shape(tmp_path / "old.sqlite") == shape(tmp_path / "new.sqlite")
    assert (tmp_path / "old.sqlite.version-9").exists()


def shape(path: Path) -> list[tuple[object, ...]]:
    """Return what the file says of its tables, and what it counts of its images."""
    with closing(sqlite3.connect(path)) as sql:
        tables = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
        assert sql.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert sql.execute("PRAGMA foreign_key_check").fetchall() == []
        counted = sql.execute("SELECT state, count(*) FROM images GROUP BY state")
        assert dict(counted) == dict(sql.execute("SELECT state, images FROM tallies WHERE images"))
        return sql.execute(tables).fetchall()


@pytest.mark.parametrize("version", [7, VERSION + 1])
def test_a_ledger_of_another_version_is_kept_and_built_anew(house: House, version: int) -> None:
    """One line of the log says so."""
    house.save("a.yaml", "prompt: a corgi\n")
    assert house.once()
    with closing(sqlite3.connect(house.ledger)) as sql:
        sql.execute(f"PRAGMA user_version = {version}")
    for _ in range(2):
        assert house.once()
        assert house.started() == ["a corgi"]
    words = f"is of version {version}; this picowatch reads versions 8 to {VERSION}. It is kept as"
    assert house.log().count(words) == 1
    assert len([*house.ledger.parent.glob("ledger.sqlite.damaged-*")]) == 1
