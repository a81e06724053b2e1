"""Opens the ledger; one that cannot be used is set aside, and images.jsonl fills a new one."""

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from picowatch.errors import LedgerCorrupt
from picowatch.ledger.database import quarantine
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rebuild import ListedPicture
from picowatch.outbox.listing import request_of
from picowatch.outbox.outbox import Outbox
from picowatch.systemd import ALIVE, notify

log = logging.getLogger("picowatch")

LINES_ALIVE = 1000  # between two signs of life


def open_ledger(path: Path, outbox: Outbox) -> Ledger:
    """The ledger, ready for use.

    Raises sqlite3.OperationalError while it is locked or the disk is full.
    """
    try:
        ledger = Ledger(path)
    except LedgerCorrupt as error:
        set_aside(path, str(error))
        ledger = Ledger(path)
    if ledger.is_new:
        try:
            outbox.problems.remove_all_but((), ())  # what is still wrong is reported again
            entered = ledger.rebuild(_listed(outbox))
        except BaseException:
            ledger.close()
            raise
        if entered:
            log.warning("%s pictures of images.jsonl are in the new ledger", entered)
    return ledger


def set_aside(path: Path, damage: str) -> None:
    """Keep a damaged ledger under another name, so that it can be examined."""
    kept = quarantine(path, datetime.now().strftime("%Y%m%d-%H%M%S"))
    log.error("%s It is kept as %s; a new one is built from images.jsonl.", damage, kept.name)


def _listed(outbox: Outbox) -> Iterator[ListedPicture]:
    """The pictures of images.jsonl; a service manager gets signs of life, as there may be many."""
    for number, line in enumerate(outbox.listing.all()):
        if number % LINES_ALIVE == 0:
            notify(*ALIVE)
        with suppress(KeyError, TypeError, ValueError):  # not a line of ours
            request = request_of(line)
            yield ListedPicture(
                file=str(line["file"]),
                number=outbox.names.number_of(line["file"], line["recipe"], request),
                recipe=str(line["recipe"]),
                request=request,
                save_digest=str(line["save_digest"]),
                entry_index=int(line["entry_index"]),
                image_index=int(line["image_index"]),
            )
