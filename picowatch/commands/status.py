"""`picowatch status`: what runs and what waits, from status.json alone; `--check`: its health."""

import json
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from picowatch.errors import FAILED
from picowatch.inbox.names import PROBE_PREFIX
from picowatch.observers.view import Row, bar, rows
from picowatch.outbox.lock import is_held
from picowatch.outbox.status import Status, duration, read_status, seems_to_run, status_of
from picowatch.recipe.messages.problems import harmless
from picowatch.settings import Settings

COUNTED = ("queued", "running", "done", "failed", "cancelled")
# A daemon writes its status every five seconds; polling a slow share can take as long again.
CHECK_SECONDS = 20.0
POLL_SECONDS = 0.05
OLD_PROBE_SECONDS = 120.0  # longer than a check takes, and than two clocks may differ
WATCH_SECONDS = 0.5  # between looks
NOTHING: dict[str, Any] = {
    "updated": 0.0, "started": 0.0, "images": dict.fromkeys(COUNTED, 0), "pid": 0, "host": "",
}  # fmt: skip


def status(outbox: Path, as_json: bool) -> int:
    """Print the status; exit code 1 if no picowatch is running on this outbox."""
    running, found = look(outbox)
    if as_json:
        print(json.dumps({"running": running, **found}, indent=1))
    else:
        for row in rows_of(running, found):
            print(_line(row))
    return 0 if running else FAILED


def watch(outbox: Path) -> int:
    """Show the status until Ctrl-C: drawn over and over on a terminal, else a line at each change.

    Whether a picowatch runs may change meanwhile. Ending it is what the user wants: exit code 0.
    """
    from picowatch.observers.console import LiveView, can_draw

    with suppress(KeyboardInterrupt):
        if can_draw(sys.stdout):
            view = LiveView(sys.stdout)
            try:
                _each_look(outbox, view.draw)
            finally:
                view.close()
        else:
            _each_look(outbox, _ChangesPrinted().show)
    return 0


def _each_look(outbox: Path, show: Callable[[list[Row], tuple[int, int] | None], None]) -> None:
    while True:
        running, found = look(outbox)
        show(rows_of(running, found), bar(_status(found)) if running and found["recipe"] else None)
        time.sleep(WATCH_SECONDS)


class _ChangesPrinted:
    """For pipes and dumb terminals: what runs and what waits, each time that changes."""

    def __init__(self) -> None:
        self._line = ""

    def show(self, shown: list[Row], progress: tuple[int, int] | None) -> None:
        line = "; ".join(row.text for row in shown if row.label in ("", "now", "queued"))
        if line != self._line:
            self._line = line
            print(line, flush=True)


def look(outbox: Path) -> tuple[bool, dict[str, Any]]:
    """Whether a picowatch runs, and its status or the last one there was."""
    running = seems_to_run(outbox)
    return running, {**NOTHING, "recipe": "", **(read_status(outbox) or {})}


def check(settings: Settings) -> int:
    """Whether a picowatch is running on this outbox and hears of new files in this inbox.

    A probe file proves it: it is put into the inbox, and goes again. Where the inbox cannot be
    written, a fresh status has to do. Exit code 1 if either fails.
    """
    if not is_held(settings.outbox):
        return _unhealthy("picowatch is not running")
    _remove_old_probes(settings.inbox)
    probe = settings.inbox / f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    # Docker and systemd end a check that takes too long.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))
    try:
        probe.touch()
    except OSError as error:
        before = _updated(settings.outbox)
        if _within_time(lambda: _updated(settings.outbox) != before):
            print(
                f"picowatch is running; noticing new files was not tested: {error.strerror} in "
                "the inbox"
            )
            return 0
        return _unhealthy(f"picowatch has reported nothing for {CHECK_SECONDS:.0f} s")
    try:
        if _within_time(lambda: probe.name in _heard(settings.outbox)):
            print("picowatch is running and notices new files")
            return 0
        return _unhealthy(
            f"picowatch is running, but noticed no new file for {CHECK_SECONDS:.0f} s"
        )
    finally:
        with suppress(OSError):
            probe.unlink()


def _remove_old_probes(inbox: Path) -> None:
    """A check that was killed could not take its own away."""
    with suppress(OSError):
        for probe in inbox.glob(f"{PROBE_PREFIX}*"):
            if abs(time.time() - probe.stat().st_mtime) > OLD_PROBE_SECONDS:
                probe.unlink(missing_ok=True)


def _unhealthy(words: str) -> int:
    print(words, file=sys.stderr)
    return FAILED


def _within_time(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + CHECK_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _heard(outbox: Path) -> list[str]:
    return list((read_status(outbox) or {}).get("heard", ()))


def _updated(outbox: Path) -> float | None:
    return (read_status(outbox) or {}).get("updated")


def rows_of(running: bool, found: dict[str, Any]) -> list[Row]:
    """Without a picowatch, what ran is no news; what waits and what failed is."""
    known = _status(found)
    if not running:
        left = [row for row in rows(known) if row.label not in ("now", "device")]
        return [Row("", "picowatch is not running", "bad"), *(left if found["host"] else [])]
    since = duration(max(0.0, known.updated - known.started))
    who = harmless(f"picowatch is running on {known.host}, process {known.pid}, for {since}")
    return [Row("", who, "quiet"), *rows(known)]


def _status(found: dict[str, Any]) -> Status:
    """The status of whichever version wrote it."""
    try:
        return status_of(found)
    except (TypeError, ValueError):
        return status_of(NOTHING)


def _line(row: Row) -> str:
    return f"{row.label:8}{row.text}" if row.label else row.text
