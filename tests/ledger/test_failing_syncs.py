"""A disk that fails a sync once: a change of the ledger counts once, or not at all and is told."""

import subprocess
import sys
from pathlib import Path

import pytest

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
