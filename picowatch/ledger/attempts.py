"""What the disk refused, and waits alone until it is tried again, as `files/attempt.py` has it."""

from picowatch.ledger.ledger import Ledger


def refused_attempts(ledger: Ledger) -> list[tuple[str, str, int, str]]:
    """Return step, file, number of tries and reason of each."""
    rows = ledger.select("SELECT step, file, tries, reason FROM attempts")
    return [(row["step"], row["file"], row["tries"], row["reason"]) for row in rows]


def note_attempt(
    ledger: Ledger, step: str, file: str, tries: int, next_at: float, reason: str
) -> None:
    """Remember an attempt that was refused, or forget it if there were no `tries`."""
    with ledger.transaction() as sql:
        sql.execute("DELETE FROM attempts WHERE step = ? AND file = ?", (step, file))
        if tries:
            values = step, file, tries, next_at, reason
            sql.execute(
                "INSERT INTO attempts (step, file, tries, next_at, reason) VALUES (?, ?, ?, ?, ?)",
                values,
            )
