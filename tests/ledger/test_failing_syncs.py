"""A disk that fails a sync once: a change of the ledger counts once, or not at all and is told."""

import errno
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from picowatch.errors import LedgerUnsure
from picowatch.ledger.ledger import Ledger

CHANGE = """
import sqlite3, sys
from pathlib import Path
from picowatch.ledger.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
try:
    ledger.change("INSERT INTO paused VALUES (1)")
    said = "counts"
except sqlite3.OperationalError:
    said = "failed"
print(said, len(ledger.select("SELECT * FROM paused")))
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


def test_a_change_counts_if_only_the_last_sync_of_its_commit_fails(tmp_path: Path) -> None:
    """SQLite reports an error then, though the journal is truncated and the change is in place."""
    said, syncs = change(tmp_path, NEVER)
    assert said == "counts 1"
    outcomes = [change(tmp_path, one)[0] for one in range(syncs - 3, syncs + 1)]
    assert outcomes == ["failed 0", "failed 0", "failed 0", "counts 1"]


def test_a_change_that_may_count_refuses_all_others_until_the_ledger_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever makes the next change may ignore the error, as it only notes a refusal."""
    file = tmp_path / "ledger.sqlite"

    def committed(ledger: Ledger) -> None:
        ledger._connection.execute("COMMIT")
        monkeypatch.setattr(Ledger, "_count_of_commits", unreadable)
        raise sqlite3.OperationalError("disk I/O error")

    def unreadable(ledger: Ledger) -> int:
        monkeypatch.undo()
        raise OSError(errno.EIO, "Input/output error")

    with closing(Ledger(file)) as ledger:
        monkeypatch.setattr(Ledger, "_commit", committed)
        with pytest.raises(OSError, match="Input/output error"):
            ledger.change("INSERT INTO paused VALUES (1)")
        for _ in range(2):
            with pytest.raises(LedgerUnsure):
                ledger.change("DELETE FROM paused")
    with closing(Ledger(file)) as ledger:
        assert len(ledger.select("SELECT * FROM paused")) == 1
        ledger.change("DELETE FROM paused")
        assert not ledger.select("SELECT * FROM paused")
