"""What was requested, what is queued, what is done: the daemon's only memory.

Each change of state is guarded by the old state, so that a step that runs twice does nothing
the second time. `accept.py` holds what a save means.
"""

from picowatch.ledger.accept import Accepting
from picowatch.ledger.questions import Questions
from picowatch.ledger.queue import Queue
from picowatch.ledger.rebuild import Rebuilding
from picowatch.ledger.rename import Renaming
from picowatch.ledger.sheets import ContactSheets


class Ledger(Accepting, Renaming, Queue, Questions, ContactSheets, Rebuilding):
    """All SQL that the daemon runs, on one file. Safe to use from several threads."""
