"""What the disk refused, and waits alone until it is tried again."""

from picowatch.ledger.ledger import Ledger


class RefusedAttempts:
    """The table of attempts, as `files/attempt.py` uses it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def all(self) -> list[tuple[str, str, int, str]]:
        """Return step, file, number of tries and reason of each."""
        rows = self._ledger.select("SELECT step, file, tries, reason FROM attempts")
        return [(row["step"], row["file"], row["tries"], row["reason"]) for row in rows]

    def keep(self, step: str, file: str, tries: int, next_at: float, reason: str) -> None:
        """Remember one; `next_at` is in Unix seconds."""
        self._ledger.change(
            "INSERT OR REPLACE INTO attempts (step, file, tries, next_at, reason) "
            "VALUES (?, ?, ?, ?, ?)",
            (step, file, tries, next_at, reason),
        )

    def drop(self, step: str, file: str) -> None:
        """Forget one."""
        self._ledger.change("DELETE FROM attempts WHERE step = ? AND file = ?", (step, file))
