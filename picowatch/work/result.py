"""How a run goes: what failed in it, and why it cannot continue."""

import threading


class RunResult:
    """One for a run of the daemon; all its threads write here."""

    def __init__(self, *, left_undone: bool = False) -> None:
        """`left_undone`: the last run was killed, and left something half-written."""
        self._lock = threading.Lock()
        self.failed = 0  # images, and saves that were refused
        self.engine_restarts = 0  # of engines that died
        self.kept_waiting = 0  # images, by a pause, at the end of a single run
        self.left_undone = left_undone  # what a crash left is not repaired yet
        self.reason = ""  # why it cannot continue
        self.ledger_corrupt = False  # … was this
        self.outbox_replaced = False  # … was that another outbox or ledger is at its path

    @property
    def succeeded(self) -> bool:
        """Whether everything that this run had to do is done."""
        return not (self.reason or self.failed or self.kept_waiting)

    @property
    def can_restart(self) -> bool:
        """Whether another daemon can continue where this one cannot."""
        return self.ledger_corrupt or self.outbox_replaced

    def cannot_go_on(
        self, reason: str, *, ledger_corrupt: bool = False, outbox_replaced: bool = False
    ) -> None:
        """The run has to end. The first reason counts, or the first that a restart solves."""
        with self._lock:
            if self.can_restart or (self.reason and not (ledger_corrupt or outbox_replaced)):
                return
            self.reason = reason
            self.ledger_corrupt, self.outbox_replaced = ledger_corrupt, outbox_replaced

    def count_failure(self) -> None:
        """An image failed, or a save was refused."""
        with self._lock:
            self.failed += 1

    def count_engine_restart(self) -> None:
        """An engine died."""
        with self._lock:
            self.engine_restarts += 1
