"""`picowatch status`: what is running and queued, from status.json; `--check`: its health.

With a name, it tells what became of that, from the ledger.
"""

import json
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, replace
from os.path import lexists
from pathlib import Path

from picowatch.commands.control import below
from picowatch.errors import FAILED, PAUSED, CommandFailed
from picowatch.observers.console import LABEL, LiveView, Row, can_draw, rows
from picowatch.outbox import status
from picowatch.outbox.lock import is_held
from picowatch.sources import Folders
from picowatch.streams import harmless

UNSEEN_SECONDS = 150.0  # an inbox that takes long to read is looked at once a minute
WATCH_SECONDS = 0.5  # between looks
NEWS = ("now", "queued", "trouble")  # labels of rows whose change is news
STARTING = "picowatch is starting or ending; if that takes long, picowatch.log says why"
NO_STATUS = status.Status(updated=0.0, started=0.0, pid=0, host="", ended=True)


def main(options: Namespace, load: Callable[[], Folders]) -> int:
    """Print the status, or the account of a recipe or folder; return 1 if no picowatch runs."""
    folders = load()
    status.check_readable(folders.outbox)
    if options.name and (options.check or options.watch):
        raise CommandFailed("--check and --watch take no NAME.", "Leave it out.")
    if options.check:
        return check(folders.outbox)
    if options.watch:
        return watch(folders.outbox)
    name = "." if options.all else ""
    if options.name:
        name = below(folders.inbox, options.name)
        if not lexists(folders.inbox / name):
            name = below(folders.outbox, name)
    running, found = current_status(folders.outbox)
    whole: dict[str, object] = {"running": running, **asdict(found)}
    told: Iterable[str] = _told(running, found, folders.outbox)
    if name:
        # It reads the ledger; sqlite3 takes a tenth of the time of all else to import.
        from picowatch.commands.account import in_json, lines, named

        account = named(folders, name, found, running=running)
        whole |= in_json(account)
        told = map(harmless, lines(account, found, running=running, all_of_them=options.all))
    if options.json:
        told = [json.dumps(whole, indent=1)]
    for line in told:
        print(line)
    return 0 if running else FAILED


def _told(running: bool, found: status.Status, outbox: Path) -> Iterator[str]:
    for row in rows_of(running, found):
        yield f"{row.label:{LABEL}}{row.text}" if row.label else row.text
    if words := status.unused(outbox):
        yield harmless(f"{words} For another one: --outbox DIR")


def watch(outbox: Path) -> int:
    """Show the status until Ctrl-C: drawn again and again on a terminal, else a line a change."""
    # `timeout` and others end it so; the terminal gets its cursor back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    last = ""
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        view = stack.enter_context(closing(LiveView(sys.stdout))) if can_draw(sys.stdout) else None
        while True:
            shown = rows_of(*current_status(outbox))
            if view:
                view.draw(shown)
                if view.is_gone:
                    break
            else:  # the running time changes always, and is no news
                news = (r for r in shown if r.label in NEWS or (not r.label and r.style != "quiet"))
                line = "; ".join(row.text for row in news)
                if line != last:
                    print(line, flush=True)
                last = line
            time.sleep(WATCH_SECONDS)
    return 0  # ending it is what the user wants


def current_status(outbox: Path) -> tuple[bool, status.Status]:
    """Whether a picowatch is running, and its status or the last status there was."""
    running, found = status.is_running(outbox), status.read_status(outbox) or NO_STATUS
    # A disk that refuses what it writes may refuse the status that says so, too.
    if running and (why := status.disk_trouble(outbox)):
        found = replace(found, troubles={"outbox": why, **found.troubles})
    return running, found


def check(outbox: Path) -> int:
    """Return 0 if a picowatch runs on this outbox without trouble, PAUSED if paused, else 1."""
    if not is_held(outbox):
        return _unhealthy("picowatch is not running")
    found = current_status(outbox)[1]
    if silence := _silence(found):
        why = found.troubles.get("outbox") or "it starts or hangs, or the outbox's disk is full"
        return _unhealthy(f"picowatch is running, but {silence}: {why}")
    if found.ended:  # the report is that of the last picowatch
        return _unhealthy(STARTING)
    told = [pair for pair in found.troubles.items() if pair[0] not in ("inbox", "paused")]
    if words := "; ".join(map(": ".join, told)):
        return _unhealthy(f"picowatch is running, but in trouble: {words}")
    if found.scanned is None or found.updated - found.scanned > UNSEEN_SECONDS:
        inbox = found.troubles.get("inbox")
        why = f"its inbox {inbox}" if inbox else "does not look at its inbox"
        return _unhealthy(f"picowatch is running, but {why}")
    if found.paused:
        return _unhealthy("picowatch is paused until `picowatch resume`", PAUSED)
    print("picowatch is running and looks at its inbox")
    return 0


def _unhealthy(words: str, code: int = FAILED) -> int:
    print(harmless(words), file=sys.stderr)
    return code


def rows_of(running: bool, last: status.Status) -> list[Row]:
    """Return a status' rows; what is queued and failed still matters once picowatch has ended."""
    if not running or last.ended:
        # If it was killed, the next start renders what was in progress.
        waiting = last.images["queued"] + last.images.get("running", 0)
        images = last.images | {"queued": waiting}
        left = replace(last, images=images, engines=(), all_seconds_left=None)
        known = [row for row in rows(left) if row.label != "now"]
        others = [row for row in known if last.host or row.label == "trouble"]
        if running:
            return [Row("", STARTING), *others]
        return [Row("", "picowatch is not running", "bad"), *others]
    age = status.duration(max(0.0, last.updated - last.started))
    who = harmless(f"picowatch is running on {last.host}, process {last.pid}, for {age}")
    silence = _silence(last)  # it hangs or is stopped, or the disk is full
    told = [Row("", f"it {silence}", "bad")] if silence else []
    return [Row("", who, "quiet"), *told, *rows(last)]


def _silence(last: status.Status) -> str:
    """Say when the last report was, if that is too long ago; else ""."""
    if status.is_fresh(last):
        return ""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last.updated))
    return f"has reported nothing {f'since {at}' if last.updated else 'yet'}"
