"""What was requested, what is queued, what is done: the daemon's memory across crashes.

Each change of state is guarded by the old state, so that a step that runs twice does nothing
the second time. `accept.py` holds what a save means.
"""

from picowatch.ledger.accept import Accepting
from picowatch.ledger.queue import Queue
from picowatch.ledger.recipes import Recipes
from picowatch.ledger.rename import Renaming
from picowatch.ledger.restore import Restoring
from picowatch.ledger.sheets import ContactSheets

PAUSED = "paused"  # the fact that nothing is rendered until `picowatch resume`; "yes" or ""


class Ledger(Accepting, Renaming, Queue, Recipes, ContactSheets, Restoring):
    """All SQL that the daemon runs, on one file. Safe to use from several threads."""
