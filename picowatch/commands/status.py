"""`picowatch status`: what runs and what waits, from status.json alone."""

import json
from pathlib import Path
from typing import Any

from picowatch.outbox.lock import is_held
from picowatch.outbox.status import read_status

NOT_RUNNING = 1
COUNTED = ("queued", "running", "done", "failed", "cancelled")


def status(outbox: Path, as_json: bool) -> int:
    """Print the status; exit code 1 if no picowatch runs on this outbox."""
    running = is_held(outbox)
    found: dict[str, Any] = read_status(outbox) or {"images": dict.fromkeys(COUNTED, 0)}
    if as_json:
        print(json.dumps({"running": running, **found}, indent=1))
    else:
        print(_text(running, found))
    return 0 if running else NOT_RUNNING


def _text(running: bool, found: dict[str, Any]) -> str:
    lines = ["picowatch runs" if running else "picowatch does not run"]
    if running and found.get("recipe"):
        lines.append(f"now: {found['recipe']}, image {found['image']} of {found['of']}")
    images = found["images"]
    lines.append("images: " + ", ".join(f"{images[state]} {state}" for state in COUNTED))
    lines += [f"error: {error}" for error in found.get("errors", ())]
    return "\n".join(lines)
