"""What the parts of a running daemon share."""

import threading
from dataclasses import dataclass

from picowatch.files.retry import Retry
from picowatch.ledger.ledger import Ledger
from picowatch.observers.observers import Observers
from picowatch.outbox.outbox import Outbox
from picowatch.settings import Settings
from picowatch.work.result import RunResult


@dataclass(kw_only=True, frozen=True, eq=False)
class Run:
    """One run, from its start to its end. `wake` ends the rest between two rounds."""

    settings: Settings
    ledger: Ledger
    outbox: Outbox
    observers: Observers
    retry: Retry
    result: RunResult
    wake: threading.Event
