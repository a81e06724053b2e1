"""A user's folders with a daemon on the digest engine: files in, files out."""

import hashlib
import json
import logging
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picowatch.commands.run import run
from picowatch.daemon.build import MakeEngine, check_folders
from picowatch.daemon.run import Mode
from picowatch.daemon.settings_file import SettingsFile
from picowatch.daemon.supervise import Supervisor
from picowatch.files.atomic import TEMPORARY_PREFIX
from picowatch.metadata.embedded_text import PICOWATCH, read_texts
from picowatch.outbox.commands import Answer, Command, send, wait_for_answer
from picowatch.outbox.names import picture_files
from picowatch.outbox.status import Status
from picowatch.recipe.chunk import Chunk, read_chunk
from picowatch.recipe.request import ImageRequest
from picowatch.settings.settings import Settings
from tests.digest_engine import DigestEngine

PATIENCE = float(os.environ.get("PATIENCE", 120.0))  # seconds that a condition may take
SETTLE_SECONDS = 0.05


def wait_for(
    condition: Callable[[], object], what: str = "", *, pause_seconds: float = 0.01
) -> None:
    """Wait until the condition holds; fails the test if it does not within our patience."""
    deadline = time.monotonic() + PATIENCE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not within {PATIENCE:.0f} s: {what}"
        pause.wait(pause_seconds)


class SilentConsole:
    """Keeps every round's status; a test that holds `gate` keeps the daemon there: it `waits`."""

    def __init__(self) -> None:
        self.handler: logging.Handler = logging.NullHandler()
        self.shown: list[Status] = []
        self.gate = threading.Lock()
        self.waits = threading.Event()

    def show(self, status: Status) -> None:
        if not self.gate.acquire(blocking=False):
            self.waits.set()
            self.gate.acquire()
            self.waits.clear()
        self.gate.release()
        self.shown.append(status)

    def close(self) -> None:
        """Hold nothing any more."""


class House:
    """Inbox, outbox and models of one user in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox = folder / "inbox"
        self.outbox = folder / "outbox"
        self.models = folder / "models"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.models.mkdir(exist_ok=True)
        self.engine = DigestEngine()
        self.make_engine: MakeEngine = lambda options: self.engine
        self.console = SilentConsole()

    @property
    def ledger(self) -> Path:
        return self.outbox / ".picowatch/ledger.sqlite"

    def settings(self, **values: Any) -> Settings:
        return Settings(
            inbox=self.inbox,
            outbox=self.outbox,
            models=self.models,
            **{"settle_seconds": SETTLE_SECONDS, **values},
        )

    def save(self, name: str, text: str | bytes) -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def draw(self, name: str, colour: str = "red", size: tuple[int, int] = (64, 64)) -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, colour).save(path)
        return path

    def once(self, **values: Any) -> bool:
        settings = self.settings(**values)
        check_folders(settings)
        return self._supervisor(settings, Mode(once=True)).run().succeeded

    def run_once(self, **values: Any) -> int:
        return run(self.settings(**values), True, self.make_engine)

    def tell(self, name: str, recipe: str | None = None, *files: str) -> Path:
        """Send a command; `make` asks for the recipe as it is now."""
        digest = None
        if recipe and name == "make":
            digest = hashlib.sha256((self.inbox / recipe).read_bytes()).hexdigest()
        return send(self.outbox, Command(name, recipe, digest, files))

    def answer_to(self, command: Path) -> Answer:
        answer = wait_for_answer(command, PATIENCE)
        assert answer is not None
        return answer

    def answer(self, name: str, recipe: str | None = None, *files: str) -> Answer:
        command = self.tell(name, recipe, *files)
        self.once()
        return self.answer_to(command)

    @contextmanager
    def running(
        self, settings_file: SettingsFile | None = None, **values: Any
    ) -> Iterator["House"]:
        settings = self.settings(**values)
        check_folders(settings)
        supervisor = self._supervisor(settings, Mode(), settings_file)
        before = self._written()
        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(supervisor.run)
            try:
                wait_for(lambda: running.done() or self._written() != before, "the first status")
                if running.done():
                    running.result()
                yield self
            finally:
                supervisor.signals = [signal.SIGTERM]
                supervisor.stop.set()
                supervisor.wake.set()
                running.result(PATIENCE)

    @contextmanager
    def held(
        self, name: str = "", text: str = "", after: int = 0, **values: Any
    ) -> Iterator["HeldEngine"]:
        """Run a daemon, save a recipe, if one is named, and wait until the engine is held.

        It is in its first batch then, or in the one after `after`.
        """
        hold = HeldEngine(self, after)
        with self.running(**values):
            if name:
                self.save(name, text)
            hold.wait_until_held()
            yield hold

    @contextmanager
    def seen_at_once(self) -> Iterator[None]:
        """Keep the daemon from scanning within the block, or it may scan between any two steps."""
        with self.console.gate:
            wait_for(self.console.waits.is_set, "the end of the daemon's look")
            yield

    def wait_for_rounds(self, count: int = 10) -> None:
        """Wait until the daemon has done this many rounds more."""
        shown = len(self.console.shown)
        with pytest.MonkeyPatch.context() as patch:  # each round shows its status, new or not
            patch.setattr("picowatch.daemon.status.HEARTBEAT_SECONDS", 0.0)
            wait_for(lambda: len(self.console.shown) > shown + count, "some more rounds")

    def _written(self) -> tuple[int, int] | None:
        """Return a value that differs for each status.json, as an earlier run may have left one."""
        try:
            found = (self.outbox / ".picowatch/status.json").stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _supervisor(
        self, settings: Settings, mode: Mode, file: SettingsFile | None = None
    ) -> Supervisor:
        return Supervisor(settings, self.make_engine, self.console, mode, file)

    # -- what came out

    def pictures(self, folder: str = "") -> list[str]:
        found = picture_files(self.outbox)
        return sorted(path for path in found if path.startswith(f"{folder}/" if folder else ""))

    def chunk(self, picture: str) -> Chunk:
        return read_chunk(read_texts(self.outbox / picture)[PICOWATCH])

    def request(self, picture: str) -> ImageRequest:
        return self.chunk(picture).request

    def requests(self, folder: str = "") -> list[ImageRequest]:
        return [self.request(picture) for picture in self.pictures(folder)]

    def prompts(self, folder: str = "") -> list[str]:
        return [request.prompt for request in self.requests(folder)]

    def seeds(self, folder: str = "") -> list[int]:
        return [request.seed for request in self.requests(folder)]

    def started(self) -> list[str]:
        return [request.prompt for batch in self.engine.batches for request in batch]

    def error(self, recipe: str) -> str | None:
        try:
            return (self.outbox / f"{recipe}.error.txt").read_text()
        except FileNotFoundError:
            return None

    def log(self) -> str:
        return (self.outbox / "picowatch.log").read_text()

    def status(self) -> dict[str, Any]:
        """Return status.json, or before it is written one without images."""
        path = self.outbox / ".picowatch/status.json"
        if not path.exists():
            return {"images": None}
        status: dict[str, Any] = json.loads(path.read_text())
        return status

    def listed(self) -> list[dict[str, Any]]:
        return listed(self.outbox)


class HeldEngine:
    """Holds a house's engine in its first batch, or in the one after `after`, until released."""

    def __init__(self, house: House, after: int = 0) -> None:
        self._house = house
        self._after = after
        self._held = threading.Event()
        self._go = threading.Event()
        house.engine.after_step = self._after_step

    def _after_step(self, done: int) -> None:
        if len(self._house.engine.batches) == self._after + 1:
            self._held.set()
            self.wait_until_released()

    def wait_until_held(self) -> None:
        wait_for(self._held.is_set, "the engine to start")

    def wait_until_released(self) -> None:
        assert self._go.wait(PATIENCE), "nobody released the engine"

    def release(self) -> None:
        self._go.set()


# -- checks that apply to every outbox, whatever was requested


def rendered(outbox: Path, folder: str = "") -> list[str]:
    found = [file for file in picture_files(outbox) if "/originals/" not in file]
    return sorted(file for file in found if file.startswith(f"{folder}/" if folder else ""))


def is_sheet(file: str) -> bool:
    return bool(re.search(r"-sheet(-\d+)?\.", file))


def entries(outbox: Path) -> Iterator[dict[str, Any]]:
    """Yield the gallery's entries, oldest first. Raises ValueError for a line that is not a call.

    A page that is being written is left out.
    """
    for page in sorted((outbox / ".picowatch/gallery").glob("page-*.js")):
        with suppress(FileNotFoundError):
            for line in page.read_text().splitlines():
                yield json.loads(line.removeprefix("picture(").removesuffix(");"))


def shown(outbox: Path) -> Iterator[str]:
    return (entry["file"] for entry in entries(outbox))


def listed(outbox: Path) -> list[dict[str, Any]]:
    """Return the pictures' complete lines of images.jsonl; the last one may be being written."""
    try:
        text = (outbox / "images.jsonl").read_text()
    except FileNotFoundError:
        return []
    lines = map(json.loads, text.split("\n")[:-1])
    return [line for line in lines if "file" in line]


def is_whole(picture: Path) -> bool:
    try:
        with Image.open(picture) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True


def error_files(outbox: Path) -> set[str]:
    found = (path.relative_to(outbox).as_posix() for path in outbox.rglob("*.error.txt"))
    return {file.removesuffix(".error.txt") for file in found}


def faults(
    outbox: Path, spared: Container[str] = (), unlisted: Container[str] = ()
) -> Iterator[str]:
    """Return pictures that are damaged or not listed and shown exactly once, and leftovers.

    `spared` are files that somebody else touched, `unlisted` need not be in images.jsonl.
    """
    there = [file for file in rendered(outbox) if file not in spared]
    yield from (f"{file} is damaged" for file in there if not is_whole(outbox / file))
    pictures = [file for file in there if not (is_sheet(file) or file in unlisted)]
    in_list = (line["file"] for line in listed(outbox) if line["file"] not in unlisted)
    yield from _differ("images.jsonl", in_list, pictures, spared)
    yield from _differ("the gallery", shown(outbox), there, spared)
    for left in outbox.rglob(f"{TEMPORARY_PREFIX}*"):
        yield f"left over: {left.relative_to(outbox)}"


def _differ(
    name: str, told: Iterable[str], there: list[str], spared: Container[str]
) -> Iterator[str]:
    try:
        found = Counter(file for file in told if file not in spared)
    except ValueError as error:
        yield f"{name} has a line that is damaged: {error}"
        return
    for file in there:
        if file not in found:
            yield f"{name} lacks {file}"
    for file in found - Counter(there):
        yield f"{name} has {file} {found[file]} times, and it is there {there.count(file)} times"
