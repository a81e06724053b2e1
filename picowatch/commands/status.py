"""`picowatch status`: what runs and what waits, from status.json alone; `--check`: its health."""

import json
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from picowatch.inbox.names import PROBE_PREFIX
from picowatch.outbox.lock import is_held
from picowatch.outbox.log import harmless
from picowatch.outbox.status import read_status
from picowatch.settings import Settings

NOT_RUNNING = 1
COUNTED = ("queued", "running", "done", "failed", "cancelled")
# A daemon writes its status every five seconds; polling a slow share can take as long again.
CHECK_SECONDS = 20.0
POLL_SECONDS = 0.05


def status(outbox: Path, as_json: bool) -> int:
    """Print the status; exit code 1 if no picowatch runs on this outbox."""
    running = is_held(outbox)
    found: dict[str, Any] = read_status(outbox) or {"images": dict.fromkeys(COUNTED, 0)}
    if as_json:
        print(json.dumps({"running": running, **found}, indent=1))
    else:
        print(_text(running, found))
    return 0 if running else NOT_RUNNING


def check(settings: Settings) -> int:
    """Whether a picowatch runs on this outbox and hears of new files in this inbox.

    A probe file proves it: it is put into the inbox, and goes again. Where the inbox cannot be
    written, a fresh status has to do. Exit code 1 if either fails.
    """
    if not is_held(settings.outbox):
        return _unhealthy("picowatch does not run")
    probe = settings.inbox / f"{PROBE_PREFIX}{secrets.token_hex(8)}"
    try:
        probe.touch()
    except OSError as error:
        before = _updated(settings.outbox)
        if _within_time(lambda: _updated(settings.outbox) != before):
            print(f"picowatch runs; whether it hears was not tried: {error.strerror} in the inbox")
            return 0
        return _unhealthy(f"picowatch said nothing for {CHECK_SECONDS:.0f} s")
    try:
        if _within_time(lambda: probe.name in _heard(settings.outbox)):
            print("picowatch runs and hears")
            return 0
        return _unhealthy(f"picowatch runs, but heard of no new file for {CHECK_SECONDS:.0f} s")
    finally:
        with suppress(OSError):
            probe.unlink()


def _unhealthy(words: str) -> int:
    print(words, file=sys.stderr)
    return NOT_RUNNING


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


def _text(running: bool, found: dict[str, Any]) -> str:
    lines = ["picowatch runs" if running else "picowatch does not run"]
    if running and found.get("recipe"):
        lines.append(f"now: {found['recipe']}, image {found['image']} of {found['of']}")
    if running and found.get("trouble"):
        lines.append(f"waiting: {found['trouble']}")
    images = found["images"]
    lines.append("images: " + ", ".join(f"{images[state]} {state}" for state in COUNTED))
    lines += [f"error: {error}" for error in found.get("errors", ())]
    return "\n".join(map(harmless, lines))
