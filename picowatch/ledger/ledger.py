"""The SQLite file below the ledger: opening, versions, transactions."""

import logging
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from picowatch.errors import LedgerCorrupt
from picowatch.files.atomic import create, write_atomically
from picowatch.files.essential import Ended
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
# How long SQLite itself waits for a lock; callers go on waiting (essential.py). It is short because
# SIGTERM has to end picowatch within two seconds.
LOCK_SECONDS = 0.3
# https://www.sqlite.org/rescode.html
CORRUPT_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
# What SQLite says about an empty file, which to it is a database without tables, and about a page
# whose cells hold damaged text.
_DAMAGE = ("no such table", "Could not decode to UTF-8")


class CommitUnknown(Ended):
    """A commit met an I/O error, and may be in the file: picowatch starts over with what counts."""


class Ledger:
    """One connection for all threads of the daemon; every change runs in a transaction.

    With a rollback journal and `synchronous=FULL` a commit survives power loss. Unlike write-ahead
    logs, that also works on file systems without shared memory.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the ledger, and check the whole file.

        Raises LedgerCorrupt if it is damaged, of another version or another program's, or
        sqlite3.OperationalError while it is locked or the disk is full.
        """
        self._lock = threading.RLock()
        self._depth = 0
        self._unknown = ""  # why nobody knows whether the last commit is in the file
        self._path = path
        create(path)  # SQLite creates files as 0644 at any umask
        # Open as long as the connection: if a file is closed, all locks of its process go.
        self._file = path.open("rb", buffering=0)
        self._connection = sqlite3.connect(
            path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
        )
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except BaseException as error:
            self.close()
            self._refuse_damage(error)
            raise

    def _prepare(self) -> None:
        sql = self._connection
        version = sql.execute("PRAGMA user_version").fetchone()[0]
        tables = sql.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not OLDEST <= version <= VERSION and (version or tables):
            words = f"is of version {version}; this picowatch reads versions {OLDEST} to {VERSION}"
            raise LedgerCorrupt(f"The ledger {self._path} {words}.")
        sql.execute("PRAGMA journal_mode = TRUNCATE")
        sql.execute("PRAGMA synchronous = FULL")
        sql.execute("PRAGMA temp_store = MEMORY")  # a full /tmp stops nothing
        found = sql.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise LedgerCorrupt(f"The ledger {self._path} is damaged: {found}.")
        if version != VERSION:
            if version:  # an earlier copy of that version is replaced
                kept = self._path.with_name(f"{self._path.name}.version-{version}")
                with self._path.open("rb") as file:
                    write_atomically(kept, iter(lambda: file.read(COPIED_BYTES), b""))
                words = "The ledger is brought to this version of picowatch; %s is the earlier one."
                log.info(words, kept.name)
            try:
                make_tables(sql, version)
            except sqlite3.IntegrityError as error:
                raise LedgerCorrupt(f"The ledger {self._path} is damaged: {error}.") from error
        sql.execute("PRAGMA foreign_keys = ON")
        # This includes a file that a crash left empty: a save or a rebuild enters the first number.
        self.is_new = not sql.execute("SELECT count(*) FROM sqlite_sequence").fetchone()[0]

    def _refuse_damage(self, error: BaseException) -> None:
        """Raise LedgerCorrupt if an error of SQLite says that the file is damaged."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_damage = code in CORRUPT_CODES or str(error).startswith(_DAMAGE)
        if isinstance(error, sqlite3.DatabaseError) and is_damage:
            raise LedgerCorrupt(f"The ledger {self._path} is damaged: {error}.") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Make all changes in a `with` block, or none of them.

        An error inside a nested block undoes that block. Raises LedgerCorrupt if the file turns out
        to be damaged, and CommitUnknown at a commit that may count or not, and ever after.
        """
        with self._lock:
            depth = self._depth
            try:
                self._begin(depth)
                self._depth += 1
                try:
                    yield self._connection
                except BaseException:
                    self._undo(depth)
                    raise
                finally:
                    self._depth -= 1
                self._keep(depth)
            except sqlite3.DatabaseError as error:
                self._refuse_damage(error)
                raise

    def _begin(self, depth: int) -> None:
        if depth:
            self._connection.execute(f"SAVEPOINT nested{depth}")
            return
        if self._unknown:
            raise CommitUnknown(self._unknown)
        self._connection.execute("BEGIN IMMEDIATE")

    def change(self, query: str, values: Sequence[object] | Mapping[str, object] = ()) -> int:
        """Run one statement; return how many rows it changed."""
        with self.transaction() as sql:
            return sql.execute(query, values).rowcount

    def change_each(self, query: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement with each of these rows, for all or for none."""
        with self.transaction() as sql:
            sql.executemany(query, rows)

    def select(
        self, query: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[sqlite3.Row]:
        """Return all rows of a query. Raises LedgerCorrupt if the file turns out to be damaged."""
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                self._refuse_damage(error)
                raise

    @property
    def changes(self) -> int:
        """How many rows were changed since the start; answers stay the same while this does."""
        return self._connection.total_changes

    def is_in_place(self) -> bool:
        """Whether the ledger's file is the opened file, to which alone SQLite writes."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._file.fileno()))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a share is away for a while
            return True

    def _undo(self, depth: int) -> None:
        if not self._connection.in_transaction:  # SQLite rolled back by itself, as on a full disk
            return
        if depth:
            self._connection.execute(f"ROLLBACK TO nested{depth}")
            self._connection.execute(f"RELEASE nested{depth}")
        else:
            self._connection.execute("ROLLBACK")

    def _keep(self, depth: int) -> None:
        try:
            if depth:
                self._connection.execute(f"RELEASE nested{depth}")
            else:
                self._commit()
        except BaseException as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
            is_over = not (depth or self._connection.in_transaction)
            if is_over and code == sqlite3.SQLITE_IOERR:  # it may count
                self._unknown = f"a change of {self._path} may be written or not: {error}"
                raise CommitUnknown(self._unknown) from error
            self._undo(depth)
            raise

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._connection.close()
            self._file.close()


# -- a ledger of a version before: the tables are made anew by schema.sql, and each column that both
# have is copied. So a new table, a new index, a column that goes, or a new one with a default needs
# nothing here.


def make_tables(sql: sqlite3.Connection, version: int) -> None:
    """Make the tables of this version; with those of an older `version`, if it is not 0."""
    sql.set_progress_handler(lambda: notify(*ALIVE), STEPS_ALIVE)
    _run(sql, "BEGIN IMMEDIATE")  # after an error the connection is closed, which rolls back
    _run_all(sql, _FROM_8 if version == OLDEST else "")
    for kind in ("trigger", "index"):
        for name in _names(sql, kind):
            _run(sql, f"DROP {kind} {name}")
    old = _names(sql, "table")
    for table in old:
        _run(sql, f"ALTER TABLE {table} RENAME TO {OLD}{table}")
    _run_all(sql, resources.files(__package__).joinpath("schema.sql").read_text("utf-8"))
    for table in _names(sql, "table"):
        if table in old and table != "tallies":  # triggers count
            queries = (f"PRAGMA table_info({name})" for name in (table, f"{OLD}{table}"))
            new, former = ({row["name"] for row in _run(sql, query)} for query in queries)
            shared = ", ".join(sorted(new & former))
            _run(sql, f"INSERT INTO {table} ({shared}) SELECT {shared} FROM {OLD}{table}")
    # The first row of `saves` gets a higher number than any before, also if these were deleted.
    _run(sql, "DELETE FROM sqlite_sequence WHERE name = 'saves'")
    _run(sql, f"UPDATE sqlite_sequence SET name = 'saves' WHERE name = '{OLD}saves'")
    for table in old:
        _run(sql, f"DROP TABLE {OLD}{table}")
    _run(sql, f"PRAGMA user_version = {VERSION}")
    _run(sql, "COMMIT")
    sql.set_progress_handler(None, 0)


def _run(sql: sqlite3.Connection, statement: str) -> sqlite3.Cursor:
    """Run one statement. A migration that dies before any of them is rolled back."""
    return sql.execute(statement)


def _run_all(sql: sqlite3.Connection, script: str) -> None:
    """Run a script's statements; sqlite3's `executescript` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            _run(sql, statement)
            statement = ""


def _names(sql: sqlite3.Connection, kind: str) -> list[str]:
    """Return the tables, indices or triggers, without SQLite's own and those put aside."""
    rows = _run(sql, f"SELECT name FROM sqlite_master WHERE type = '{kind}'").fetchall()
    return [row["name"] for row in rows if not row["name"].startswith(("sqlite_", OLD))]
