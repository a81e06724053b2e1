"""status.json and now.txt: what is running and what is queued, for programs and for people."""

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from picowatch.files.atomic import write_atomically
from picowatch.outbox.lock import is_held
from picowatch.recipe.messages.problems import harmless

T = TypeVar("T")
# A status is written every five seconds; a share's cache and two clocks may differ by as much
# again.
FRESH_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """One engine. `node` is "" on the daemon's own machine.

    `checkpoint` is the name of what it used last, "" if it holds none; `images` are those it
    made, `trouble` says why it renders none. Memory is bytes on its device.
    """

    number: int
    node: str = ""
    device: str = ""
    precision: str = ""
    checkpoint: str = ""
    recipe: str = ""
    images: int = 0
    batch: int = 0
    steps_per_second: float = 0.0
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    trouble: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One look at the daemon. Times are Unix seconds, durations seconds.

    `recipe` to `seconds_left` are of what is being rendered; `seconds_left` is for its recipe,
    `all_seconds_left` for all that waits, too. `waiting` names the recipes that come next, each
    with its number of images, of `waiting_recipes` in all. `pictures` and `errors` are the
    last ones, the newest at the end. `device` to `memory_peak_bytes` are of the first engine,
    `engines` holds them all.
    """

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
    all_seconds_left: float | None = None
    paused: bool = False
    waiting: tuple[tuple[str, int], ...] = ()
    waiting_recipes: int = 0
    pictures: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    device: str = ""
    precision: str = ""
    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    engines: tuple[EngineStatus, ...] = ()
    inbox: str = ""
    watch: str = ""
    trouble: str = ""
    heard: tuple[str, ...] = ()
    ended: bool = False
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    def line(self) -> str:
        """One line for people: `corgi.yaml: 3 of 20, 40 s left; 112 images wait`."""
        queued = self.images["queued"]
        waiting = images_wait(queued)
        if self.paused:
            waiting = f"paused, {waiting}"
        if self.trouble:
            return harmless(f"waiting: {self.trouble}; {waiting}")
        if not self.recipe:
            return waiting if self.paused else f"nothing is running; {waiting}"
        left = "" if self.seconds_left is None else f", {duration(self.seconds_left)} left"
        return harmless(f"{self.recipe}: {self.image} of {self.of}{left}; {waiting}")


def images(count: int) -> str:
    """A number of images, in words."""
    return f"{count} image{'' if count == 1 else 's'}"


def images_wait(count: int) -> str:
    """That so many images are queued, in words."""
    return f"{images(count)} wait{'s' if count == 1 else ''}"


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


def status_of(values: Mapping[str, Any]) -> Status:
    """A status from `read_status`, as far as this version knows it; raises TypeError."""
    engines = tuple(_of(EngineStatus, one) for one in values.get("engines", ()))
    return replace(_of(Status, values), engines=engines)


def _of(kind: type[T], values: Mapping[str, Any]) -> T:
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})


def read_status(outbox: Path) -> dict[str, Any] | None:
    """The last status of a daemon, or None if there never was one."""
    try:
        status: dict[str, Any] = json.loads((outbox / ".picowatch" / "status.json").read_text())
    except (OSError, ValueError):
        return None
    return status


def seems_to_run(outbox: Path) -> bool:
    """The lock says it on one machine, and over most network file systems.

    Where locks do not reach, the status of another machine is fresh or not.
    """
    return is_held(outbox) or _is_fresh_elsewhere(read_status(outbox) or {})


def _is_fresh_elsewhere(status: Mapping[str, Any]) -> bool:
    if status.get("ended") or status.get("host", socket.gethostname()) == socket.gethostname():
        return False
    return abs(time.time() - float(status.get("updated", 0.0))) < FRESH_SECONDS
