"""What was requested, what is queued, what is done: the daemon's memory across crashes.

Each change of state is guarded by the old state, so that a step that runs twice does nothing
the second time. `accept.py` holds what a save means.
"""

from collections.abc import Callable, Iterable

from picowatch.ledger.queue import Queue
from picowatch.ledger.recipes import Recipes
from picowatch.ledger.restore import DUE, MadeBefore, restore_pictures
from picowatch.ledger.saves import Saves
from picowatch.ledger.sheets import ContactSheets
from picowatch.recipe.request import ImageRequest

PAUSED = "paused"  # the fact that nothing is rendered until `picowatch resume`; "yes" or ""


class Ledger(Saves, Queue, Recipes, ContactSheets):
    """All SQL that the daemon runs, on one file. Safe to use from several threads."""

    def read_first_tables(self) -> None:
        """Read all that a start needs; raises LedgerCorrupt."""
        self.known_recipes()
        with self.transaction() as sql:
            sql.execute("SELECT * FROM facts").fetchall()

    def wants_restoring(self) -> bool:
        """Whether it is new, and the existing pictures are not restored into it yet."""
        return self.fact(DUE) is not None

    def restore(
        self,
        pictures: Iterable[MadeBefore],
        sheets: Callable[[], dict[str, dict[str, list[str]]]],
        cancelled: dict[str, str],
        batch_key: Callable[[ImageRequest], str],
    ) -> int:
        """See `restore_pictures`."""
        with self.transaction() as sql:
            return restore_pictures(sql, pictures, sheets, cancelled, batch_key)
