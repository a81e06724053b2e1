"""The ledger of a version before: an upgrade loses nothing, and renders nothing again.

`version-8.sql` is the ledger of a daemon that had archived, rendered, renamed and refused recipes,
rendered a photo, failed at an image, and accepted more; that had a recipe cancelled and was paused
while it rendered the first image of running.yaml, and then died.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from picowatch.ledger.ledger import Ledger
from picowatch.ledger.migrations import VERSION
from picowatch.outbox.commands import Command, send
from tests.house import House

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


def ledger(house: House) -> Path:
    return house.outbox / ".picowatch/ledger.sqlite"


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
    put(ledger(house))
    with closing(sqlite3.connect(ledger(house))) as sql, sql:
        for path in [*RECIPES, "photos/red.bmp", "photos/blue.bmp"]:
            found = (house.inbox / path).stat()
            seen = f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"
            sql.execute("UPDATE recipes SET size_and_time = ? WHERE path = ?", (seen, path))
    return house


def test_an_upgrade_keeps_the_pause_the_queue_and_what_was_drawn(upgraded: House) -> None:
    """And the seeds, failures and cancellations; no recipe is read again."""
    with closing(sqlite3.connect(ledger(upgraded))) as sql:
        drawn = [seed for (seed,) in sql.execute("""SELECT json_extract(request, '$.seed')
            FROM images WHERE state IN ('queued', 'running')
            ORDER BY priority DESC, save, entry_index, image_index""")]  # fmt: skip
    upgraded.once()
    images = upgraded.status()["images"]
    assert (images["queued"], images["cancelled"], images["done"]) == (7, 2, 9)
    assert upgraded.started() == []
    assert "unlisted" in (upgraded.outbox / "failures.jsonl").read_text()
    send(upgraded.outbox, Command("resume"))
    for _ in range(2):
        upgraded.once(batch_size=1)
        assert upgraded.started() == QUEUED
    assert sorted(batch[0].seed for batch in upgraded.engine.batches) == sorted(drawn)
    assert upgraded.answer("retry").done
    assert upgraded.started() == [*QUEUED, "bad"]


def test_an_entry_that_is_saved_again_is_known_by_its_digest(upgraded: House) -> None:
    """The digests of that version are read as they are: nothing is drawn again."""
    with closing(sqlite3.connect(ledger(upgraded))) as sql:
        files = [file for (file,) in sql.execute("SELECT file FROM images WHERE file != ''")]
    for file in files:
        (upgraded.outbox / file).parent.mkdir(exist_ok=True)
        (upgraded.outbox / file).touch()
    for name in ("done.yaml", "sheet.yaml"):
        upgraded.save(name, f"{RECIPES[name]}# again\n")
    upgraded.once()
    assert upgraded.log().count(".yaml: saved, nothing new to render") == 2


def test_a_migrated_ledger_has_the_tables_of_a_new_one_and_the_earlier_one_is_kept(
    tmp_path: Path,
) -> None:
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
def test_a_ledger_of_another_version_is_set_aside_and_built_anew(
    house: House, version: int
) -> None:
    """One line of the log says so."""
    house.save("a.yaml", "prompt: a corgi\n")
    assert house.once()
    with closing(sqlite3.connect(ledger(house))) as sql:
        sql.execute(f"PRAGMA user_version = {version}")
    for _ in range(2):
        assert house.once()
        assert house.started() == ["a corgi"]
    words = f"is of version {version}; this picowatch reads versions 8 to {VERSION}. It is kept as"
    assert house.log().count(words) == 1
    assert len([*ledger(house).parent.glob("ledger.sqlite.damaged-*")]) == 1
