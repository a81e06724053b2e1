"""Reading a ledger beside a picowatch that may be running."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from picowatch.errors import CommandFailed
from picowatch.ledger.migrations import VERSION
from picowatch.outbox.status import ASK_PERMISSION, check_readable, unused

WAIT_SECONDS = 5.0  # for a commit


@contextmanager
def reading(outbox: Path) -> Iterator[sqlite3.Connection]:
    """Open an outbox's ledger for questions. Raises CommandFailed."""
    check_readable(outbox)
    path = outbox / ".picowatch/ledger.sqlite"
    if not path.is_file():
        words = unused(outbox) or f"There is no ledger {path}."
        raise CommandFailed(words, "For another one: --outbox DIR")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=WAIT_SECONDS)) as sql:
            sql.row_factory = sqlite3.Row
            (version,) = sql.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                words = f"The ledger {path} is of version {version}, not {VERSION}."
                raise CommandFailed(words, "Start picowatch, which brings it to this version.")
            yield sql
    except sqlite3.Error as error:
        words = f"The ledger {path} cannot be read: {error}."
        may_read = os.access(path, os.R_OK)
        remedy = "Start picowatch, which repairs it." if may_read else ASK_PERMISSION
        raise CommandFailed(words, remedy) from error
