"""`picowatch status`: what is running and queued, from status.json alone; `--check`: its health."""

import json
import shutil
import signal
import sys
import textwrap
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from picowatch.commands.control import below
from picowatch.errors import FAILED, CommandFailed
from picowatch.observers.console import LABEL, LiveView, Row, can_draw, rows
from picowatch.outbox.lock import is_held
from picowatch.outbox.status import (
    FRESH_SECONDS,
    Status,
    check_readable,
    duration,
    is_running,
    read_status,
)
from picowatch.settings import Settings
from picowatch.streams import harmless

COUNTED = ("queued", "running", "done", "failed", "cancelled")
UNSEEN_SECONDS = 150.0  # an inbox that takes long to read is looked at once a minute
WATCH_SECONDS = 0.5  # between looks
STARTING = "picowatch is starting or ending; if that takes long, picowatch.log says why"
NO_STATUS = Status(
    updated=0.0, started=0.0, images=dict.fromkeys(COUNTED, 0), pid=0, host="", ended=True
)


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    settings = load()
    check_readable(settings.outbox)
    if options.folder and (options.check or options.watch):
        raise CommandFailed("--check and --watch take no FOLDER.", "Leave it out.")
    if options.check:
        return check(settings)
    if options.watch:
        return watch(settings.outbox)
    folder = ""
    if options.folder:
        folder = below(settings.outbox, Path(below(settings.inbox, options.folder)))
    return status(settings, folder, as_json=options.json)


def status(settings: Settings, folder: str, as_json: bool) -> int:
    """Print the status, or that of one `folder` or recipe with all its failures.

    Exit code 1 if no picowatch is running on this outbox.
    """
    outbox = settings.outbox
    running, found = current_status(outbox)
    failures = _failures(settings, folder) if folder else {}
    if as_json:
        whole = {"running": running, **asdict(found)}
        if folder:
            whole["failures"] = [{"recipe": one, "reason": failures[one]} for one in failures]
        print(json.dumps(whole, indent=1))
    elif folder:
        for line in _lines_of(folder, running, found, failures):
            print(harmless(line))
    else:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        for row in rows_of(running, found):
            print(_line(row, columns))
        if not (outbox / ".picowatch").is_dir():
            unused = f"No picowatch has ever used the outbox {outbox.absolute()}."
            print(harmless(f"{unused} For another one: --outbox DIR"))
    return 0 if running else FAILED


def _failures(settings: Settings, folder: str) -> dict[str, str]:
    """Return what is wrong with the files of a folder, or with one recipe."""
    # These import recipes and metadata, which takes half as long as all else here.
    from picowatch.outbox.names import OutboxNames
    from picowatch.outbox.problems import errors_below

    inbox, outbox = settings.inbox, settings.outbox
    found = errors_below(outbox, OutboxNames(settings), folder) if outbox.is_dir() else {}
    if not (found or (inbox / folder).exists() or (outbox / folder).exists()):
        raise CommandFailed(f"There is no {folder} in {inbox}.", "Name a folder or recipe there.")
    return found


def _lines_of(
    folder: str, running: bool, status: Status, failures: Mapping[str, str]
) -> Iterator[str]:
    """Yield how far a folder or recipe is, and a line for each failure."""
    if not running:
        yield "picowatch is not running"
    shown = {one.folder: one.line() for one in status.folders}
    if running and status.recipe:
        shown[status.name] = status.progress()
    yield from (line for name, line in shown.items() if f"{name}/".startswith(f"{folder}/"))
    yield from (f"{recipe}: {reason}" for recipe, reason in failures.items())
    if not failures:
        yield f"Nothing in {folder} has failed."


def watch(outbox: Path) -> int:
    """Show the status until Ctrl-C: drawn over and over on a terminal, else a line at each change.

    Whether a picowatch runs may change meanwhile. Ending it is what the user wants: exit code 0.
    """

    # `timeout` and others end it so; the terminal gets its cursor back.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        if can_draw(sys.stdout):
            view = LiveView(sys.stdout)
            try:
                for shown in _each_status(outbox):
                    view.draw(shown)
                    if view.is_gone:
                        break
            finally:
                view.close()
        else:
            last = ""
            for shown in _each_status(outbox):
                line = "; ".join(row.text for row in shown if _is_news(row))
                if line != last:
                    print(line, flush=True)
                last = line
    return 0


def _is_news(row: Row) -> bool:
    """Whether a change of the row is news; the running time changes always."""
    return row.label in ("now", "queued") or (not row.label and row.style != "quiet")


def _each_status(outbox: Path) -> Iterator[list[Row]]:
    while True:
        yield rows_of(*current_status(outbox))
        time.sleep(WATCH_SECONDS)


def current_status(outbox: Path) -> tuple[bool, Status]:
    """Whether a picowatch is running, and its status or the last one there was."""
    return is_running(outbox), read_status(outbox) or NO_STATUS


def check(settings: Settings) -> int:
    """Whether a picowatch runs on this outbox, reports, and has looked at its inbox lately.

    Exit code 1 if not.
    """
    if not is_held(settings.outbox):
        return _unhealthy("picowatch is not running")
    found = current_status(settings.outbox)[1]
    if since := _silent_since(found):
        why = f"since {since}: it starts or hangs, or the outbox's disk is full"
        return _unhealthy(f"picowatch is running, but has reported nothing {why}")
    if found.updated - found.scanned > UNSEEN_SECONDS:
        return _unhealthy("picowatch is running, but its inbox is not there")
    print("picowatch is running and looks at its inbox")
    return 0


def _unhealthy(words: str) -> int:
    print(words, file=sys.stderr)
    return FAILED


def rows_of(running: bool, status: Status) -> list[Row]:
    """The rows of a status.

    What is queued and what failed is still of interest once picowatch has ended.
    """
    if not running or status.ended:
        left = replace(status, engines=(), all_seconds_left=None)
        others = [row for row in rows(left) if row.label != "now"] if status.host else []
        if running:
            return [Row("", STARTING), *others]
        return [Row("", "picowatch is not running", "bad"), *others]
    age = duration(max(0.0, status.updated - status.started))
    who = harmless(f"picowatch is running on {status.host}, process {status.pid}, for {age}")
    silence = []
    if since := _silent_since(status):  # it hangs or is stopped, or the disk is full
        silence = [Row("", f"it has reported nothing since {since}", "bad")]
    return [Row("", who, "quiet"), *silence, *rows(status)]


def _silent_since(status: Status) -> str:
    """The time of the last report, if that is too long ago; else ""."""
    if time.time() - status.updated < FRESH_SECONDS:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.updated))


def _line(row: Row, columns: int | None) -> str:
    """The row; on a terminal of so many columns in as many lines as it needs, nothing cut off."""
    line = f"{row.label:{LABEL}}{row.text}" if row.label else row.text
    if columns is None or len(line) <= columns:
        return line
    indent = " " * (LABEL if row.label else 0)
    wrapped = textwrap.wrap(row.text, max(1, columns - len(indent)), break_on_hyphens=False)
    return f"{row.label:{len(indent)}}" + f"\n{indent}".join(wrapped)
