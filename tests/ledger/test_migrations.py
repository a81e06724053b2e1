"""The ledger of an earlier version: an upgrade loses nothing, and renders nothing again.

`version-1.sql` is that of a daemon of 0.2.0 that had rendered and refused recipes, was paused, and
then accepted more and cancelled one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from picowatch.ledger import migrations
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.migrations import VERSION
from tests.house import House

RECIPES = {
    "done.yaml": "prompt: a corgi\nseed: 1\ncount: 2\n",
    "random.txt": "a star\na star\na moon\n",
    "sheet.yaml": "prompt: a cat\nseed: 5\nsweep: {steps: [2, 3]}\n",
    "failed.yaml": "prompt: a broken vase\nseed: 4\n",
    "refused.yaml": "stesp: 3\n",
    "photos/_pictures.yaml": "prompt: a fox\nseed: 3\n",
    "queued.yaml": "prompt: a house\ncount: 3\n",
    "cancelled.yaml": "prompt: a tree\ncount: 2\n",
}
QUEUED = ["a fox", "a house", "a house", "a house", "a moon"]


def ledger(house: House) -> Path:
    return house.outbox / ".picowatch/ledger.sqlite"


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
            sql.execute("UPDATE recipes SET stamp = ? WHERE path = ?", (seen, path))
        inbox = f"[{house.inbox.stat().st_ino}, []]"
        sql.execute("UPDATE facts SET value = ? WHERE name GLOB 'inbox*'", (inbox,))
    return house


def put(path: Path) -> None:
    """Write the ledger that `version-1.sql` describes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as sql:
        sql.executescript(Path(__file__).with_name("version-1.sql").read_text())


def test_an_upgrade_keeps_the_pause_the_queue_and_what_was_cancelled(upgraded: House) -> None:
    """And the seeds that were drawn; no recipe is read again."""
    with closing(sqlite3.connect(ledger(upgraded))) as sql:
        drawn = [seed for (seed,) in sql.execute("""SELECT json_extract(request, '$.seed')
            FROM images WHERE state = 'queued' ORDER BY 1""")]  # fmt: skip
    upgraded.once()
    images = upgraded.status()["images"]
    assert (images["queued"], images["cancelled"], images["done"]) == (5, 2, 7)
    assert upgraded.started() == []
    assert upgraded.answer("resume").done
    for _ in "twice":
        upgraded.once()
        assert sorted(upgraded.started()) == QUEUED
    assert sorted(upgraded.seeds()) == drawn


def test_an_upgrade_keeps_contact_sheets_and_what_is_known_of_recipes(tmp_path: Path) -> None:
    put(tmp_path / "ledger.sqlite")
    Ledger(tmp_path / "ledger.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as sql:
        sheets = sql.execute("SELECT recipe, file, done FROM sheets").fetchall()
        states = dict(sql.execute("SELECT path, outcome FROM recipes"))
        dropped = dict(sql.execute("SELECT path, template FROM recipes WHERE template != ''"))
        template = sql.execute("SELECT digest FROM recipes WHERE path GLOB '*/_*'").fetchone()
    assert sheets == [("sheet.yaml", "sheet/0003-sheet.png", 1)]
    assert [one for one, state in states.items() if state == "refused"] == ["refused.yaml"]
    assert len(states) == 10
    assert dropped == dict.fromkeys(["photos/red.bmp", "photos/blue.bmp"], *template)


def test_an_upgrade_knows_which_copies_of_pictures_are_needed(tmp_path: Path) -> None:
    """Those of dropped pictures are made when their turn comes."""
    put(tmp_path / "ledger.sqlite")
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as sql, sql:
        sql.execute("""UPDATE images SET request = json_set(request, '$.image_hash', '1',
            '$.references', json('[{"image": "2.png", "hash": "2"}]'),
            '$.control', json('[{"model": "demo-sketch", "model_hash": "3", "image_hash": "4"}]'))
            WHERE recipe = 'queued.yaml'""")
    Ledger(tmp_path / "ledger.sqlite").close()
    with closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as sql:
        copies = sql.execute("SELECT DISTINCT picture FROM start_images").fetchall()
    assert sorted(copies) == [("1",), ("2",), ("4",)]


def test_the_earlier_ledger_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    put(path)
    before = path.read_bytes()
    Ledger(path).close()
    assert (tmp_path / "ledger.sqlite.version-1").read_bytes() == before


def test_a_migrated_ledger_has_the_tables_of_a_new_one(tmp_path: Path) -> None:
    put(tmp_path / "old.sqlite")
    Ledger(tmp_path / "old.sqlite").close()
    Ledger(tmp_path / "new.sqlite").close()
    assert shape(tmp_path / "old.sqlite") == shape(tmp_path / "new.sqlite")


def shape(path: Path) -> list[tuple[object, ...]]:
    """Return what the file says of its tables, and what it counts of its images."""
    with closing(sqlite3.connect(path)) as sql:
        tables = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
        assert sql.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert sql.execute("PRAGMA foreign_key_check").fetchall() == []
        counted = sql.execute("SELECT state, count(*) FROM images GROUP BY state")
        tallies = dict(sql.execute("SELECT state, images FROM tallies WHERE images"))
        assert dict(counted) == tallies
        return sql.execute(tables).fetchall()


class Died(Exception):
    """The computer stopped."""


def test_a_migration_that_dies_at_any_statement_begins_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had done is rolled back: the earlier ledger is there as a whole."""
    path = tmp_path / "ledger.sqlite"
    put(path)
    before = contents(path)
    original, left = migrations.run, 0

    def dying(sql: sqlite3.Connection, statement: str) -> object:
        nonlocal left
        if left == 0:
            raise Died
        left -= 1
        return original(sql, statement)

    monkeypatch.setattr(migrations, "run", dying)
    for died in range(1000):
        left = died
        try:
            Ledger(path).close()
            break
        except Died:
            assert contents(path) == before
    assert died > 50
    assert contents(path) != before


def contents(path: Path) -> list[str]:
    """Return all that a ledger contains."""
    with closing(sqlite3.connect(path)) as sql:
        return [*sql.iterdump()]
