"""The SQLite file below the ledger: opening, versions, transactions."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from picowatch.errors import PicowatchError

VERSION = 1


class LedgerUnusable(PicowatchError):
    """The ledger file is from a newer picowatch, or is no ledger."""


class Database:
    """One connection for all threads of the daemon; every statement runs in a transaction.

    Rollback journal and `synchronous=FULL`: a commit survives power loss, and works on file
    systems without shared memory, where write-ahead logs do not.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the ledger; raises LedgerUnusable."""
        self._lock = threading.RLock()
        self._depth = 0
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise LedgerUnusable(
                f"The ledger {path} cannot be read: {error}.",
                "Move it away; picowatch starts a new one and numbers on from the pictures.",
            ) from error
        except LedgerUnusable:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        self._connection.execute("PRAGMA journal_mode = TRUNCATE")
        self._connection.execute("PRAGMA synchronous = FULL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise LedgerUnusable(
                f"The ledger is of version {version}, this picowatch knows {VERSION}.",
                "Use the newer picowatch that wrote it.",
            )
        if version == 0:
            schema = resources.files(__package__).joinpath("schema.sql").read_text("utf-8")
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {schema} PRAGMA user_version = {VERSION}; COMMIT;"
            )

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing. An error inside a nested one undoes that one, and goes on its way."""
        with self._lock:
            depth = self._depth
            self._connection.execute(f"SAVEPOINT nested{depth}" if depth else "BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield self._connection
            except BaseException:
                self._undo(depth)
                raise
            finally:
                self._depth -= 1
            self._keep(depth)

    def _undo(self, depth: int) -> None:
        if depth:
            self._connection.execute(f"ROLLBACK TO nested{depth}")
            self._connection.execute(f"RELEASE nested{depth}")
        elif self._connection.in_transaction:  # SQLite itself undoes it when the disk is full
            self._connection.execute("ROLLBACK")

    def _keep(self, depth: int) -> None:
        try:
            self._connection.execute(f"RELEASE nested{depth}" if depth else "COMMIT")
        except BaseException:
            self._undo(depth)
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()
