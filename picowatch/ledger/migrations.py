"""Older ledgers, whose contents are carried over into the tables of this version.

The tables are made anew by schema.sql, and each column that both have is copied. So a new table, a
new index, or a new column with a default needs nothing here. A column that is renamed, or whose
values change, does: `CHANGES[version]` brings an older ledger to the names and values of the next.
"""

import logging
import sqlite3
from importlib import resources
from pathlib import Path

from picowatch.files.atomic import copy_atomically
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

VERSION = 7
CHANGES = {
    5: "",
    6: "",
}
OLD = "old_"
COPIED_BYTES = 1 << 20
STEPS_ALIVE = 10_000_000  # of SQLite's machine, about a second, between two watchdog messages


def can_migrate(version: int) -> bool:
    """Whether a ledger of this version is one of the older ones whose contents can be kept."""
    return version in CHANGES


def keep_a_copy(path: Path, version: int) -> None:
    """Copy an older ledger before it is changed; an earlier copy of that version is replaced."""
    kept = path.with_name(f"{path.name}.version-{version}")
    with path.open("rb") as file:
        copy_atomically(kept, iter(lambda: file.read(COPIED_BYTES), b""))
    log.info(
        "The ledger is brought to this version of picowatch; %s is the earlier one.", kept.name
    )


def make_tables(sql: sqlite3.Connection, version: int) -> None:
    """Make the tables of this version, with what those of an older one contain, or do nothing.

    `version` is 0 for a new ledger. Foreign keys have to be off.
    """
    sql.set_progress_handler(lambda: notify(*ALIVE), STEPS_ALIVE)
    run(sql, "BEGIN IMMEDIATE")  # after an error the connection is closed, which rolls back
    for older in range(version, VERSION):
        _run_all(sql, CHANGES.get(older, ""))
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
    """Rename all tables and drop their indices and triggers; return the tables' names."""
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
