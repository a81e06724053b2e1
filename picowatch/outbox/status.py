"""status.json and now.txt: what runs and what waits, for programs and for people."""

import json
import os
import socket
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from picowatch.outbox.atomic import write_atomically
from picowatch.outbox.log import harmless


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at the daemon. Times are Unix seconds, durations seconds."""

    updated: float
    started: float
    images: dict[str, int]
    recipe: str = ""
    image: int = 0
    of: int = 0
    step: int = 0
    steps: int = 0
    steps_per_second: float = 0.0
    seconds_left: float | None = None
    errors: tuple[str, ...] = ()
    inbox: str = ""
    watch: str = ""
    trouble: str = ""
    heard: tuple[str, ...] = ()
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    def line(self) -> str:
        """One line for people: `corgi.yaml: 3 of 20, 40 s left; 112 images wait`."""
        queued = self.images["queued"]
        waiting = f"{images(queued)} wait{'s' if queued == 1 else ''}"
        if self.trouble:
            return harmless(f"waiting: {self.trouble}; {waiting}")
        if not self.recipe:
            return f"nothing runs; {waiting}"
        left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
        return harmless(f"{self.recipe}: {self.image} of {self.of}{left}; {waiting}")


def images(count: int) -> str:
    """A number of images, in words."""
    return f"{count} image{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `12 min`, `3 h 20 min`."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


class StatusFiles:
    """Writes the two files, each only when it has something else to say."""

    def __init__(self, outbox: Path) -> None:
        self._json = outbox / ".picowatch" / "status.json"
        self._now = outbox / "now.txt"
        self._line = ""

    def write(self, status: Status) -> None:
        """Replace the files. Not durable on purpose: they are written again within seconds."""
        text = json.dumps(asdict(status), ensure_ascii=True, indent=1) + "\n"
        write_atomically(self._json, text.encode(), durable=False)
        if status.line() != self._line:
            self._line = status.line()
            encoded = f"{self._line}\n".encode("utf-8", "backslashreplace")
            write_atomically(self._now, encoded, durable=False)

    def clear(self) -> None:
        """The daemon ends."""
        write_atomically(self._now, b"picowatch is not running\n", durable=False)


def read_status(outbox: Path) -> dict[str, Any] | None:
    """The last status of a daemon, or None if there never was one."""
    try:
        status: dict[str, Any] = json.loads((outbox / ".picowatch" / "status.json").read_text())
    except (OSError, ValueError):
        return None
    return status
