"""The status: status.json for programs, now.txt for people, now.js for the gallery."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from picowatch.errors import CommandFailed
from picowatch.files.atomic import write_atomically
from picowatch.outbox.lock import is_held
from picowatch.streams import harmless

if TYPE_CHECKING:
    from picowatch.outbox.problems import ProblemFiles

# A status is written every five seconds; a share's cache and differing clocks may delay it.
FRESH_SECONDS = 30.0
# Fields that the gallery shows.
IN_GALLERY = (
    "updated", "recipe", "image", "of", "step", "steps", "trouble", "images", "paused", "waiting",
    "ignored", "ignored_count",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """One engine. `node` is "" on the daemon's own machine.

    `checkpoint` is the name of the one that it used last, "" if it holds none; `images` is how many
    it has rendered, `trouble` says why it renders none. Memory is in bytes, on its device.
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
class FolderStatus:
    """The images of a template's dropped pictures: `done` of `of` have ended, `failed` of those."""

    folder: str
    done: int
    of: int
    failed: int = 0
    seconds_left: float | None = None
    is_rough: bool = False

    def line(self) -> str:
        """Return "photos: 65 of 300, 12 min left"."""
        failed = f", {self.failed} failed" if self.failed else ""
        left = time_left(self.seconds_left, self.is_rough)
        return f"{self.folder}: {self.done:,} of {self.of:,}{left}{failed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The daemon's state at one time. Times are Unix seconds, durations seconds.

    `recipe` to `seconds_left` describe what is being rendered: the images from `image` to
    `last_image` of `of` in the recipe, and the checkpoint that is `loading`, "" once a step is
    done. For a dropped picture, the images of its template's `folder` are counted, and for a recipe
    of a folder that `make` was given those of that. `seconds_left` is for the recipe or folder,
    `all_seconds_left` for everything queued; each `is_rough` as long as some of its images are of a
    kind that has not been rendered yet. `waiting` names the next
    recipes and folders, each with its number of images, of `waiting_recipes` in all. `folders` are
    the first ones with images to render. `pictures` and `errors` are the last ones, the newest at
    the end; `error_count` and `refused` are the numbers of all errors and refused recipes.
    `ignored` are the first of `ignored_count` files and folders of the inbox that are not run, with
    reasons. `scanned` is the time of the last scan of the inbox.
    """

    updated: float
    started: float
    images: dict[str, int]
    recipe: str = ""
    folder: str = ""
    image: int = 0
    last_image: int = 0
    of: int = 0
    step: int = 0
    steps: int = 0
    steps_per_second: float = 0.0
    loading: str = ""
    seconds_left: float | None = None
    is_rough: bool = False
    all_seconds_left: float | None = None
    all_is_rough: bool = False
    paused: bool = False
    waiting: tuple[tuple[str, int], ...] = ()
    waiting_recipes: int = 0
    folders: tuple[FolderStatus, ...] = ()
    pictures: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    error_count: int = 0
    refused: int = 0
    ignored: tuple[tuple[str, str], ...] = ()
    ignored_count: int = 0
    engines: tuple[EngineStatus, ...] = ()
    inbox: str = ""
    scanned: float = 0.0
    trouble: str = ""
    ended: bool = False
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    def line(self) -> str:
        """Return a line for people: "corgi.yaml: 1–8 of 20, 40 s left; 112 images wait"."""
        queued = self.images["queued"]
        waiting = images_wait(queued)
        if self.paused:
            waiting = f"paused, {waiting}"
        if self.trouble:
            return harmless(f"waiting: {self.trouble}; {waiting}")
        if not self.recipe:
            return waiting if self.paused else f"nothing is running; {waiting}"
        return harmless(f"{self.progress()}; {waiting}")

    def progress(self, name: str = "") -> str:
        """Return "corgi.yaml: 1–8 of 20, 40 s left", while a recipe is being rendered."""
        left = time_left(self.seconds_left, self.is_rough)
        return f"{name or self.name}: {self.images_in_progress}{left}"

    @property
    def name(self) -> str:
        """The name of the recipe or folder that is being rendered."""
        return self.folder or self.recipe

    @property
    def images_in_progress(self) -> str:
        """Such as "1–8 of 9", with ", loading dreamshaper_8 …" before the first step."""
        numbers = f"{self.image:,}"
        if self.last_image > self.image:
            numbers += f"–{self.last_image:,}"
        loading = f", loading {self.loading} …" if self.loading else ""
        return f"{numbers} of {self.of:,}{loading}"


def images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def images_wait(count: int) -> str:
    return f"{images(count)} wait{'s' if count == 1 else ''}"


def time_left(seconds: float | None, is_rough: bool) -> str:
    """Return ", 40 s left" or ", about 40 s left"; "" if that is not known."""
    about = "about " if is_rough else ""
    return "" if seconds is None else f", {about}{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Return seconds for people: "40 s", "12 min", "3 h 20 min"."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


class StatusFiles:
    """Writes the status for programs, for people and for an open gallery.

    The files are not durable on purpose: they are written again within seconds.
    """

    def __init__(self, outbox: Path, problems: "ProblemFiles") -> None:
        self._outbox = outbox
        self._problems = problems
        self._line = ""

    def write(self, status: Status) -> None:
        """Replace the files; now.txt only if its line has changed or it is missing."""
        text = json.dumps(asdict(status), ensure_ascii=True, indent=1) + "\n"
        write_atomically(_path(self._outbox), text.encode(), durable=False)
        line = "picowatch is not running" if status.ended else status.line()
        path = self._outbox / "now.txt"
        if line != self._line or not path.exists():
            encoded = f"{line}\n".encode("utf-8", "backslashreplace")
            write_atomically(path, encoded, durable=False)
            self._line = line
        script = f"now({json.dumps(self._news(status), ensure_ascii=True)});\n".encode()
        write_atomically(self._outbox / ".picowatch/gallery/now.js", script, durable=False)

    def _news(self, status: Status) -> dict[str, Any]:
        problems, more_problems = self._problems.shown()
        return {name: getattr(status, name) for name in IN_GALLERY} | {
            "runs": not status.ended,
            "line": status.line(),
            "inbox": str(Path(status.inbox).absolute()),
            "preview": (self._outbox / "preview.png").is_file(),
            "problems": [asdict(problem) for problem in problems],
            "more_problems": more_problems,
        }


def read_status(outbox: Path) -> Status | None:
    """Return the last status of a daemon of any version, or None."""
    try:
        return _validator().validate_json(_path(outbox).read_bytes())
    except (OSError, ValueError):
        return None


def check_readable(outbox: Path) -> None:
    """Raise CommandFailed if the status exists and cannot be read."""
    try:
        _path(outbox).open("rb").close()
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandFailed(
            f"The outbox {outbox.absolute()} cannot be read: {error.strerror}.",
            "Ask the user that runs picowatch for permission, or give another --outbox.",
        ) from error


@cache
def _validator() -> TypeAdapter[Status]:
    return TypeAdapter(Status)


def _path(outbox: Path) -> Path:
    return outbox / ".picowatch" / "status.json"


def is_running(outbox: Path) -> bool:
    """Whether a picowatch is running, by its lock, which works over most network file systems.

    Over the others, it is running if the status of another machine is fresh.
    """
    if is_held(outbox):
        return True
    status = read_status(outbox)
    if status is None or status.ended or status.host == socket.gethostname():
        return False
    return abs(time.time() - status.updated) < FRESH_SECONDS
