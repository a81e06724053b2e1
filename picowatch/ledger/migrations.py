"""The ledger of a version before, whose contents are carried over into this version's tables.

The tables are made anew by schema.sql, and each column that both have is copied. So a new table, a
new index, a column that goes, or a new one with a default needs nothing here.
"""

import logging
import sqlite3
from importlib import resources
from pathlib import Path

from picowatch.files.atomic import write_atomically
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

VERSION = 10
OLDEST = 8  # the first version whose contents can be kept
# Version 8 had an outcome for what was not compared with the inbox yet, and told images.jsonl
# nothing about recipes. Some columns had other names.
_FROM_8 = """
ALTER TABLE recipes RENAME COLUMN folder TO inbox_id;
ALTER TABLE recipes RENAME COLUMN again TO reread;
ALTER TABLE images RENAME COLUMN drawn TO being_written;
CREATE TABLE restored AS
    SELECT path AS recipe, digest, 0 AS finished FROM recipes WHERE outcome = 'restored';
DELETE FROM recipes WHERE outcome = 'restored';
UPDATE recipes SET todo = todo + 1 WHERE outcome = 'accepted';
"""
OLD = "old_"
COPIED_BYTES = 1 << 20
STEPS_ALIVE = 10_000_000  # of SQLite's machine, about a second, between two watchdog messages


def keep_a_copy(path: Path, version: int) -> None:
    """Copy an older ledger before it is changed; an earlier copy of that version is replaced."""
    kept = path.with_name(f"{path.name}.version-{version}")
    with path.open("rb") as file:
        write_atomically(kept, iter(lambda: file.read(COPIED_BYTES), b""))
    log.info(
        "The ledger is brought to this version of picowatch; %s is the earlier one.", kept.name
    )


def make_tables(sql: sqlite3.Connection, version: int) -> None:
    """Make the tables of this version; with those of an older `version`, if it is not 0."""
    sql.set_progress_handler(lambda: notify(*ALIVE), STEPS_ALIVE)
    run(sql, "BEGIN IMMEDIATE")  # after an error the connection is closed, which rolls back
    _run_all(sql, _FROM_8 if version == OLDEST else "")
    old = _put_aside(sql)
    _run_all(sql, resources.files(__package__).joinpath("schema.sql").read_text("utf-8"))
    for table in _names(sql, "table"):
        if table in old and table != "tallies":  # triggers count
            _copy(sql, table)
    # The first row of `saves` gets a higher number than any before, also if these were deleted.
    run(sql, "DELETE FROM sqlite_sequence WHERE name = 'saves'")
    run(sql, f"UPDATE sqlite_sequence SET name = 'saves' WHERE name = '{OLD}saves'")
    for table in old:
        run(sql, f"DROP TABLE {OLD}{table}")
    run(sql, f"PRAGMA user_version = {VERSION}")
    run(sql, "COMMIT")
    sql.set_progress_handler(None, 0)


def run(sql: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    """Run one statement. A migration that dies before any of them is rolled back."""
    return sql.execute(statement)


def _run_all(sql: sqlite3.Connection, script: str) -> None:
    """Run a script's statements; sqlite3's `executescript` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            run(sql, statement)
            statement = ""


def _put_aside(sql: sqlite3.Connection) -> list[str]:
    """Rename all tables, which are returned, and drop their indices and triggers."""
    for kind in ("trigger", "index"):
        for name in _names(sql, kind):
            run(sql, f"DROP {kind} {name}")
    tables = _names(sql, "table")
    for table in tables:
        run(sql, f"ALTER TABLE {table} RENAME TO {OLD}{table}")
    return tables


def _names(sql: sqlite3.Connection, kind: str) -> list[str]:
    """Return the tables, indices or triggers, without SQLite's own and those put aside."""
    rows = run(sql, f"SELECT name FROM sqlite_master WHERE type = '{kind}'").fetchall()
    return [row["name"] for row in rows if not row["name"].startswith(("sqlite_", OLD))]


def _copy(sql: sqlite3.Connection, table: str) -> None:
    """Copy each column that both tables have."""
    both = (table, f"{OLD}{table}")
    columns = [{row["name"] for row in run(sql, f"PRAGMA table_info({name})")} for name in both]
    shared = ", ".join(sorted(columns[0] & columns[1]))
    run(sql, f"INSERT INTO {table} ({shared}) SELECT {shared} FROM {OLD}{table}")
