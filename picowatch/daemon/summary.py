"""Accounts for people: in summary.txt what a night brought, in the gallery's headings the totals.

When a folder is finished, or the queue has run empty, its images that no block of summary.txt has
told of are summed up, also in the log and for the hook `on_finished`. The ledger knows which these
are, so a kill in the middle of the night loses none.
"""

import json
import logging
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from os.path import commonpath

from picowatch.daemon.run import Run
from picowatch.files.atomic import write_atomically
from picowatch.files.safe_paths import read_regular
from picowatch.inbox.names import folders_above
from picowatch.inbox.settle import LACKED
from picowatch.ledger import account, queries, queue
from picowatch.outbox.names import SUMMARY, gallery_file
from picowatch.streams import harmless

log = logging.getLogger("picowatch")

BLOCKS = 200  # in summary.txt
FAILURES = 20  # in a block
EVERYTHING = "everything"
SCRIPT = "totals.js"
REST_SECONDS = 5.0  # between two counts of the totals
COUNTING_REST = 50  # … as many times as long as the last one took
HOUR = 3600.0  # after which a time may need its date


class Summaries:
    """Tells of each folder that is finished, and of everything once the queue is empty."""

    def __init__(self, run: Run) -> None:
        self._run, self._ledger = run, run.ledger
        self._path = run.outbox.root / SUMMARY
        self._seen = -1  # the ledger's changes
        self._busy: Collection[str] | None = None
        with suppress(OSError):
            run.result.last = "".join(self._blocks()[:1]).partition("\n")[0]

    def look(self, busy: Collection[str]) -> None:
        """Write what is due; `busy` are the folders with images to render, and those above them."""
        if self._seen == self._ledger.changes and busy == self._busy:
            return
        counts = queries.counts(self._ledger)
        if self._is_read("") and not (counts["queued"] or counts["running"]):
            if files := account.finished_files(self._ledger):
                self._tell("", _name_of(*files), told=2)
        elif busy != self._busy:
            self._busy = busy
            found = account.finished_folders(self._ledger)
            above = [[path for path in folders_above(name) if path not in busy] for name in found]
            for folder in {folders[-1]: None for folders in above if folders}:  # the highest
                is_read = self._is_read(f"{folder}/")
                if not is_read or queries.is_unfinished_below(self._ledger, folder):
                    self._busy = None  # its last picture is being published, say: look again
                else:
                    self._tell(folder, folder, told=1)
        self._seen = self._ledger.changes

    def _is_read(self, folder: str) -> bool:
        """Whether all files whose paths begin so are read, but those that lack something."""
        waiting = self._run.inbox.waiting.all.values()
        return all(it.why == LACKED or not it.path.startswith(folder) for it in waiting)

    def _tell(self, folder: str, name: str, *, told: int) -> None:
        its = account.untold(self._ledger, folder, told=told)
        first, *rest = _block(name, its)
        text = "\n".join([first, *rest])
        with self._run.writing.optional(SUMMARY):
            blocks = self._blocks()
            if blocks[:1] != [text]:  # a crash may repeat it
                whole = "\n\n".join([text, *blocks[: BLOCKS - 1]]) + "\n"
                write_atomically(self._path, whole.encode("utf-8", "backslashreplace"))
        account.tell(self._ledger, folder, told=told)
        self._run.result.summary, self._run.result.last = text, first
        extra = {"event": "finished", "seconds": its.seconds}
        log.info("finished: %s", first.partition("  ")[2], extra=extra)
        its = replace(its, failures=its.failures[:FAILURES])
        self._run.observers.finished({"name": name, "text": text, **asdict(its)})

    def _blocks(self) -> list[str]:
        """Return the blocks of the file; what is no regular file has none, and is replaced."""
        if not self._path.is_file() or self._path.is_symlink():
            return []
        text = read_regular(self._path).decode("utf-8", "replace")
        return [block for block in text.strip("\n").split("\n\n") if block.strip()]


def _block(name: str, its: account.Account) -> Iterator[str]:
    """Yield the lines of a block."""
    now = its.ended or max((failure.at or 0.0 for failure in its.failures), default=0.0)
    yield harmless(f"{account.moment(now, float('inf'))}  {name}: {its.line(now)}")
    for failure in its.failures[:FAILURES]:
        yield harmless(f"  {failure.line(now)}")
    if (more := len(its.failures) - FAILURES) > 0:
        yield f"  and {more} more: `picowatch status --all` lists them"
    if slowest := its.slowest:
        yield harmless(f"  slowest {slowest.seconds:.1f} s  {slowest.file}")
    if its.done:
        each = its.seconds / its.done
        yield f"  in all  {its.seconds:,.1f} s of rendering, {each:.1f} s a picture"


def _name_of(first: str, last: str) -> str:
    """Return the file, or the folder that has all files between these two."""
    if first == last:
        return first
    return commonpath([path.rpartition("/")[0] for path in (first, last)]) or EVERYTHING


class Totals:
    """Writes the totals of the outbox's folders when they may have changed."""

    def __init__(self, run: Run) -> None:
        self._run, self._ledger = run, run.ledger
        self._folder_of = cache(run.outbox.names.folder)  # it asks the disk
        self._next_at = float("-inf")
        self._accounts: dict[str, account.Account] | None = None  # by recipe
        self._counted: tuple[int, int] | None = None

    def look(self) -> None:
        """Count what has changed, if that is due."""
        if time.monotonic() >= self._next_at:
            began = time.thread_time()  # without waiting for the ledger's lock or disk
            self.count()
            took = time.thread_time() - began
            self._next_at = time.monotonic() + max(REST_SECONDS, COUNTING_REST * took)

    def count(self) -> None:
        """Count what has changed, and write the totals."""
        now = time.time()
        of_now = self._ledger.changes, int(now / HOUR)
        if of_now == self._counted:
            return
        if self._accounts is None:
            self._accounts = account.accounts(self._ledger)
        else:  # what has changed, or is at work
            running = {image.recipe for image in queue.running(self._ledger)}
            changed = self._run.to_count | running
            for path in changed | (self._accounts.keys() - queries.known_paths(self._ledger)):
                self._accounts.pop(path, None)
            self._accounts |= account.accounts(self._ledger, changed)
        self._run.to_count.clear()
        folders: dict[str, account.Account] = {}  # of the outbox, each with those below it
        for recipe, its in self._accounts.items():
            path, more = self._folder_of(recipe), True
            while more:  # most folders have one recipe: its account is theirs, and no new one
                folders[path] = folders[path].plus(its) if path in folders else its
                more, path = bool(path), path.rpartition("/")[0]
        told = {
            folder: harmless(its.line(now))
            for folder, its in folders.items()
            # Of a picture, the gallery shows all there is to tell.
            if not its.requested == its.done == 1 or its.cancelled or its.refused
        }
        text = f"totals({json.dumps(told)});\n"
        with self._run.writing.optional(SCRIPT):
            file = gallery_file(self._run.outbox.root, SCRIPT)
            write_atomically(file, text.encode(), durable=False)
            self._counted = of_now
