"""Older ledgers, whose contents are carried over into the tables of this version.

The tables are made anew by schema.sql, and each column that both have is copied. So a new table, a
new index, or a new column with a default needs nothing here. A column that is renamed, or whose
values change, does: `CHANGES[version]` brings an older ledger to the names and values of the next.
"""

import json
import logging
import sqlite3
from contextlib import suppress
from importlib import resources
from pathlib import Path

from picowatch.files.atomic import copy_atomically
from picowatch.recipe.request import ImageRequest
from picowatch.service import ALIVE, notify

log = logging.getLogger("picowatch")

VERSION = 8
# Of 0.2.0. What it had refused is read again, and what ended in it is looked at again.
_FROM_1 = """
PRAGMA ignore_check_constraints = ON;
UPDATE saves SET outcome = 'refused' WHERE outcome = 'invalid';
PRAGMA ignore_check_constraints = OFF;
ALTER TABLE recipes RENAME COLUMN stamp TO size_and_time;
ALTER TABLE recipes ADD COLUMN outcome TEXT NOT NULL DEFAULT 'accepted';
ALTER TABLE recipes ADD COLUMN template TEXT NOT NULL DEFAULT '';
ALTER TABLE recipes ADD COLUMN folder TEXT NOT NULL DEFAULT '';
ALTER TABLE recipes ADD COLUMN todo INTEGER NOT NULL DEFAULT 1;
UPDATE recipes SET outcome = 'refused', size_and_time = '0 0 0'
    WHERE save IN (SELECT id FROM saves WHERE outcome = 'refused');
UPDATE recipes SET folder = json_extract(value, '$[0]')
    FROM facts WHERE name = 'inbox last seen';
WITH templates AS MATERIALIZED (
    SELECT digest, substr(path, 1, length(path) - 14) AS folder FROM recipes
    WHERE substr(path, -14) = '_pictures.yaml'
) UPDATE recipes SET template = coalesce((
    SELECT templates.digest FROM templates
    WHERE substr(path, 1, length(templates.folder)) = templates.folder
    ORDER BY length(templates.folder) DESC LIMIT 1
), '') WHERE lower(substr(path, -4)) IN
    ('.png', '.jpg', 'jpeg', 'jfif', 'webp', 'avif', '.bmp', '.tif', 'tiff', '.gif');
ALTER TABLE entries ADD COLUMN place INTEGER NOT NULL DEFAULT 0;
UPDATE entries SET place = placed.place FROM (
    SELECT id, row_number() OVER (PARTITION BY recipe ORDER BY id) - 1 AS place FROM entries
) AS placed WHERE placed.id = entries.id;
CREATE TABLE sheets AS
    SELECT substr(name, 14, length(name) - 79) AS recipe, substr(name, -64) AS shows,
           value AS file, 1 AS done
    FROM facts WHERE name GLOB 'drawn sheet: *';
ALTER TABLE images ADD COLUMN checkpoint TEXT NOT NULL DEFAULT '';
ALTER TABLE images ADD COLUMN save_digest TEXT NOT NULL DEFAULT '';
UPDATE images SET checkpoint = coalesce(json_extract(request, '$.checkpoint_hash'), ''),
    batch_key = CASE state WHEN 'done' THEN batch_key ELSE batch_key_of(request) END,
    save_digest = coalesce((SELECT digest FROM saves WHERE saves.id = images.save), '');
CREATE TABLE paused AS
    SELECT strftime('%s') + 0.0 AS since FROM facts WHERE name = 'paused' AND value = 'yes';
"""
_FROM_6 = """
ALTER TABLE images ADD COLUMN entry_digest TEXT NOT NULL DEFAULT '';
UPDATE images SET entry_digest = drawn_for.digest FROM (
    SELECT image, digest || CASE occurrence WHEN 0 THEN '' ELSE '-' || occurrence END AS digest
    FROM entry_images JOIN entries ON entries.id = entry
) AS drawn_for WHERE drawn_for.image = images.id;
CREATE TABLE start_images AS SELECT DISTINCT images.id AS image, value AS picture
    FROM images, json_tree(request)
    WHERE (request LIKE '%"image_hash"%' OR request LIKE '%"references"%')
    AND (key IN ('image_hash', 'mask_hash') OR key = 'hash' AND path GLOB '$.references*')
    AND value NOT IN ('', save_digest);
"""
CHANGES = {1: _FROM_1, 6: _FROM_6}
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
    sql.create_function("batch_key_of", 1, _batch_key_of)
    run(sql, "BEGIN IMMEDIATE")  # after an error the connection is closed, which rolls back
    for older in range(version or VERSION, VERSION):
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


def _batch_key_of(request: str) -> str:
    with suppress(TypeError, ValueError):
        return ImageRequest.from_dict(json.loads(request)).batch_key
    return ""


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
