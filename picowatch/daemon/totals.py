"""The totals in the gallery's headings: how much of what was requested for a folder is done."""

import json
import time
from contextlib import suppress
from functools import cache

from picowatch.daemon.run import Run
from picowatch.errors import LedgerCorrupt
from picowatch.files.atomic import write_atomically
from picowatch.files.essential import PASSING
from picowatch.ledger import queries, queue
from picowatch.ledger.account import Account, accounts
from picowatch.outbox.names import gallery_file
from picowatch.streams import harmless

SCRIPT = "totals.js"
REST_SECONDS = 5.0  # between two counts
COUNTING_REST = 50  # … as many times as long as the last one took
HOUR = 3600.0  # after which a time may need its date


class Totals:
    """Writes the totals of the outbox's folders when they may have changed."""

    def __init__(self, run: Run) -> None:
        self._run, self._ledger = run, run.ledger
        self._folder_of = cache(run.outbox.names.folder)  # it asks the disk
        self._next_at = float("-inf")
        self._accounts: dict[str, Account] | None = None  # by recipe
        self._counted: tuple[int, int] | None = None
        self._text = ""

    def look(self) -> None:
        """Count what has changed, if that is due."""
        if time.monotonic() >= self._next_at:
            began = time.thread_time()  # without waiting for the ledger's lock or disk
            self._count()
            took = time.thread_time() - began
            self._next_at = time.monotonic() + max(REST_SECONDS, COUNTING_REST * took)

    def look_last(self) -> None:
        """Count once more at the end; if the ledger cannot be read, what it said last stays."""
        with suppress(*PASSING, LedgerCorrupt):
            self._count()

    def _count(self) -> None:
        now = time.time()
        of_now = self._ledger.changes, int(now / HOUR)
        if of_now == self._counted:
            return
        if self._accounts is None:
            self._accounts = accounts(self._ledger)  # once; later what changed or is at work
        else:
            running = {image.recipe for image in queue.running(self._ledger)}
            changed = self._run.to_count | running
            for path in changed | (self._accounts.keys() - queries.known_paths(self._ledger)):
                self._accounts.pop(path, None)
            self._accounts |= accounts(self._ledger, changed)
        self._run.to_count.clear()
        self._write(self._accounts, now, of_now)

    def _write(self, found: dict[str, Account], now: float, of_now: tuple[int, int]) -> None:
        told = {
            folder: harmless(its.line(now))
            for folder, its in self._by_folder(found).items()
            if not _is_obvious(its)
        }
        text = f"totals({json.dumps(told)});\n"
        with self._run.writing.optional(SCRIPT):
            if text != self._text:
                path = gallery_file(self._run.outbox.root, SCRIPT)
                write_atomically(path, text.encode(), durable=False)
            self._text, self._counted = text, of_now

    def _by_folder(self, found: dict[str, Account]) -> dict[str, Account]:
        """Return the accounts of the outbox's folders, each with those below it."""
        folders: dict[str, Account] = {}
        for recipe, its in found.items():
            path, more = self._folder_of(recipe), True
            while more:  # most folders have one recipe: its account is theirs, and no new one
                folders[path] = folders[path].plus(its) if path in folders else its
                more, path = bool(path), path.rpartition("/")[0]
        return folders


def _is_obvious(account: Account) -> bool:
    """Whether the gallery shows all there is to tell: a picture."""
    return account.requested == account.done == 1 and not (account.cancelled or account.refused)
