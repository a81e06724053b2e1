"""The status: status.json for programs, now.txt for people, now.js for the gallery."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, get_args, get_origin

from picowatch.errors import CommandFailed
from picowatch.files.atomic import write_atomically
from picowatch.files.safe_paths import open_regular, read_regular, to_write
from picowatch.outbox.lock import is_held
from picowatch.streams import harmless

if TYPE_CHECKING:
    from picowatch.files.essential import Writing
    from picowatch.outbox.problems import ProblemFiles

STATUS, NOW, SCRIPT = ".picowatch/status.json", "now.txt", ".picowatch/gallery/now.js"
ASK_PERMISSION = "Ask the user that runs picowatch for permission, or give another --outbox."
# A status is written every five seconds; a share's cache and differing clocks may delay it.
FRESH_SECONDS = 30.0
FULL_BYTES = 1_000_000  # with less free space, a disk is full
# What may be in trouble; a pause is something that somebody wants.
TROUBLES = ("outbox", "inbox", "models", "engine", "paused")
STATES = ("queued", "running", "done", "failed", "cancelled")  # of images
# Fields that the gallery shows.
IN_GALLERY = (
    "updated", "recipe", "image", "of", "share", "phase", "step", "steps", "trouble", "images",
    "paused", "waiting", "ignored_count",
)  # fmt: skip
IGNORED_IN_GALLERY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """One engine."""

    number: int
    node: str = ""  # "" on the daemon's own machine
    device: str = ""
    precision: str = ""
    checkpoint: str = ""  # that it used last, "" if it holds none
    recipe: str = ""
    images: int = 0  # that it has rendered
    batch: int = 0
    steps_per_second: float = 0.0
    memory_bytes: int | None = None  # on its device
    memory_peak_bytes: int | None = None
    trouble: str = ""  # why it renders none, or that it makes no step


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderStatus:
    """The images of a template's dropped pictures: `done` of `of` have ended, `failed` of those."""

    folder: str
    done: int
    of: int
    failed: int = 0
    share: float | None = None
    seconds_left: float | None = None
    about: bool = False

    def line(self) -> str:
        """Return "photos: 65 of 300, 22 %, 12 min left"."""
        failed = f", {self.failed} failed" if self.failed else ""
        left = share_done(self.share) + time_left(self.seconds_left, self.about)
        return f"{self.folder}: {self.done:,} of {self.of:,}{left}{failed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The daemon's state at one time. Times are Unix seconds, durations seconds.

    `recipe` to `about` describe what is being rendered. For a dropped picture, the images of its
    template's `folder` are counted, and those of a folder that `make` was given.
    """

    updated: float
    started: float
    images: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    recipe: str = ""
    folder: str = ""
    image: int = 0  # the images from here to `last_image` of `of` are in progress
    last_image: int = 0
    of: int = 0
    phase: str = ""  # the pass in progress, with its steps
    step: int = 0
    steps: int = 0
    steps_per_second: float = 0.0
    loading: str = ""  # a checkpoint, "" once something was drawn
    share: float | None = None  # of its work that is done, 0 to 1
    seconds_left: float | None = None
    about: bool = False  # some passes are of a kind that was not measured yet
    all_seconds_left: float | None = None  # of everything queued
    all_about: bool = False
    paused: bool = False
    waiting: tuple[tuple[str, int], ...] = ()  # the next recipes and folders, with their images
    waiting_recipes: int = 0  # … of so many in all
    folders: tuple[FolderStatus, ...] = ()  # the first folders with images to render
    pictures: tuple[str, ...] = ()  # the last pictures, the newest at the end
    errors: tuple[str, ...] = ()  # … as well
    error_count: int = 0  # of all
    refused: int = 0  # files
    ignored: tuple[tuple[str, str], ...] = ()  # the first files that are not taken, with reasons
    ignored_count: int = 0  # all, in the inbox or dropped into the outbox
    engines: tuple[EngineStatus, ...] = ()
    inbox: str = ""
    models: str = ""
    settings: str = ""
    scanned: float | None = None  # when the inbox was scanned last, None before that
    trouble: str = ""
    troubles: dict[str, str] = field(default_factory=dict)  # those of TROUBLES, with reasons
    last: str = ""  # the totals of the last summary
    shares: dict[str, float] = field(default_factory=dict)  # of folders that take turns
    ended: bool = False
    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)

    def line(self) -> str:
        """Return a line: "corgi.yaml: 1–8 of 20, 62 %, 40 s left; 112 images wait"."""
        queued = self.images["queued"]
        waiting = images_wait(queued)
        if self.paused:
            waiting = f"paused, {waiting}"
        if self.trouble:
            return harmless(f"waiting: {self.trouble}; {waiting}")
        if not self.recipe:
            if self.paused:
                return waiting
            last = f"; last: {self.last}" if self.last and not queued else ""
            return harmless(f"nothing is running; {waiting}{last}")
        return harmless(f"{self.progress()}; {waiting}")

    def progress(self, name: str = "") -> str:
        """Return "corgi.yaml: 1–8 of 20, 62 %, 40 s left"; instead of the time, what is wrong."""
        working = (engine for engine in self.engines if engine.recipe == self.recipe)
        trouble = next((f", {engine.trouble}" for engine in working if engine.trouble), "")
        left = trouble or time_left(self.seconds_left, self.about)
        numbers = f"{self.image:,}"
        if self.last_image > self.image:
            numbers += f"–{self.last_image:,}"
        loading = f", loading {self.loading} …" if self.loading else ""
        done = f"{numbers} of {self.of:,}{loading}{share_done(self.share)}"
        return f"{name or self.name}: {done}{left}"

    @property
    def name(self) -> str:
        """The name of the recipe or folder that is being rendered."""
        return self.folder or self.recipe


def no_room(folder: Path) -> str:
    """Return why nothing can be written to a folder, whether or not anybody tries; "" if it can."""
    may_write = os.access(folder, os.W_OK | os.X_OK)
    return disk_trouble(folder) or ("" if may_write else "no permission to write")


def disk_trouble(folder: Path) -> str:
    """Return why nobody can write to a folder; "" if its disk allows it."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return error.strerror or str(error)
    if found.f_flag & os.ST_RDONLY:
        return "the file system is read-only"
    free = found.f_bavail * found.f_frsize
    if free < FULL_BYTES:
        return f"the disk is full ({free / 1e6:.1f} MB are free)"
    # Btrfs and others count no inodes.
    is_full = found.f_files and not found.f_favail
    return "the disk is full (it has no free inodes)" if is_full else ""


def images(count: int) -> str:
    return number_of(count, "image")


def number_of(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def images_wait(count: int) -> str:
    return f"{images(count)} wait{'s' if count == 1 else ''}"


def share_done(share: float | None) -> str:
    """Return ", 62 %"; "" if that is not known."""
    return "" if share is None else f", {int(share * 100)} %"


def time_left(seconds: float | None, about: bool) -> str:
    """Return ", 40 s left" or ", about 40 s left"; "" if that is not known."""
    return "" if seconds is None else f", {'about ' * about}{duration(seconds)} left"


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
    """Writes the status, not durably: it is written again within seconds."""

    def __init__(self, outbox: Path, problems: "ProblemFiles", writing: "Writing") -> None:
        self._outbox, self._problems, self._writing = outbox, problems, writing
        self._line = ""

    def write(self, status: Status) -> None:
        """Replace the files; now.txt only if its line has changed or it is missing."""
        self._write(STATUS, json.dumps(asdict(status), ensure_ascii=True, indent=1) + "\n")
        line = "picowatch is not running" if status.ended else status.line()
        is_there = os.path.exists(self._outbox / NOW)  # noqa: PTH110  (never raises)
        if (line != self._line or not is_there) and self._write(NOW, f"{line}\n"):
            self._line = line
        problems, more_problems = self._problems.shown()
        news = {name: getattr(status, name) for name in IN_GALLERY} | {
            "runs": not status.ended,
            "ignored": status.ignored[:IGNORED_IN_GALLERY],
            "line": status.line(),
            "inbox": str(Path(status.inbox).absolute()),
            # Flags of a command: what is not there would be an error.
            **{
                name: str(Path(place).absolute())
                for name in ("models", "settings")
                if os.path.exists(place := getattr(status, name))  # noqa: PTH110  (never raises)
            },
            "preview": os.path.isfile(self._outbox / "preview.png"),  # noqa: PTH113  (never raises)
            "problems": problems,
            "more_problems": more_problems,
        }
        self._write(SCRIPT, f"now({json.dumps(news, ensure_ascii=True)});\n")

    def _write(self, file: str, text: str) -> bool:
        with self._writing.optional(file):
            path = self._outbox / file
            if file == SCRIPT:
                path = to_write(self._outbox / ".picowatch", "gallery/now.js")
            write_atomically(path, text.encode("utf-8", "backslashreplace"), durable=False)
            return True
        return False


def read_status(outbox: Path) -> Status | None:
    """Return the last status of a daemon of any version, or None."""
    try:
        found: Status = _as(Status, json.loads(read_regular(outbox / STATUS)))
        return found
    except (OSError, ValueError, TypeError, RecursionError):  # another version's, or damaged
        return None


def _as(kind: Any, value: Any) -> Any:
    """Return a JSON value as a type of the classes above; raises TypeError or ValueError."""
    parts = get_args(kind)
    if get_origin(kind) is UnionType:  # such as "float | None"
        return None if value is None else _as(parts[0], value)
    match value:
        case dict() if isinstance(kind, type) and is_dataclass(kind):
            kinds = {member.name: member.type for member in fields(kind)}
            return kind(**{name: _as(kinds[name], value[name]) for name in kinds.keys() & value})
        case dict() if get_origin(kind) is dict:
            return {name: _as(parts[1], part) for name, part in value.items()}
        case list() if get_origin(kind) is tuple:
            kinds_of_parts = parts[:1] * len(value) if parts[-1] is ... else parts
            return tuple(_as(*pair) for pair in zip(kinds_of_parts, value, strict=True))
        case int() if kind is float:
            return float(value)
    if type(value) is not kind:
        raise TypeError
    return value


def check_readable(outbox: Path) -> None:
    """Raise CommandFailed if the status exists and cannot be read."""
    try:
        open_regular(outbox / STATUS).close()
    except FileNotFoundError:
        return
    except OSError as error:
        words = f"The outbox {outbox.absolute()} cannot be read: {error.strerror}."
        raise CommandFailed(words, ASK_PERMISSION) from error


def unused(outbox: Path) -> str:
    """Say that no picowatch has ever used an outbox; "" if one has."""
    is_used = (outbox / ".picowatch").is_dir()
    return "" if is_used else f"No picowatch has ever used the outbox {outbox.absolute()}."


def is_running(outbox: Path) -> bool:
    """Whether a picowatch is running, by its lock or, on another machine, its fresh status."""
    if is_held(outbox):
        return True
    status = read_status(outbox)
    if status is None or status.ended or status.host == socket.gethostname():
        return False
    return is_fresh(status)


def is_fresh(status: Status) -> bool:
    """Whether a status is of now; the clock may have been set back meanwhile."""
    return abs(time.time() - status.updated) < FRESH_SECONDS
