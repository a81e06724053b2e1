"""picowatch as a user runs it: a process, folders, recipes that are dropped, pictures that come."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.jobs import Checkpoint, Job, Picture
from benchmarks.measuring import wait_until

PROJECT = Path(__file__).parents[1]
PATIENCE = 1800.0
END_SECONDS = 30.0
CACHE = "cache"
# Every so many looks at the list: to look for error files took a sixth of a core.
LOOKS_FOR_TROUBLE = 200


class Folders:
    """A user's inbox, outbox and models."""

    def __init__(self, folder: Path, *checkpoints: Checkpoint, **settings: object) -> None:
        """`settings` are picowatch's, such as batch_size=1.

        What is compiled is kept beside `folder`: all users of one plan share it.
        """
        self.folder = folder
        self.inbox, self.outbox = folder / "inbox", folder / "outbox"
        self.models = folder / "models"
        for one in (self.inbox, self.models):
            one.mkdir(parents=True, exist_ok=True)
        for checkpoint in checkpoints:
            checkpoint.install(self.models)
        self._settings = {f"PICOWATCH_{name.upper()}": str(v) for name, v in settings.items()}
        self._counted = 0, 0  # bytes of images.jsonl, pictures in them

    def command(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command in these folders; what it says goes to told.txt."""
        with (self.folder / "told.txt").open("ab") as told:
            return subprocess.Popen(
                _picowatch(*arguments),
                cwd=self.folder,
                env=self._environment(),
                stdout=told,
                stderr=told,
            )

    def output(self, *arguments: str) -> str:
        """What a command prints; RuntimeError if it fails."""
        result = subprocess.run(
            _picowatch(*arguments),
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        if result.returncode:
            raise RuntimeError(f"picowatch {arguments[0]} failed: {result.stderr[-500:]}")
        return result.stdout

    def _environment(self) -> dict[str, str]:
        """No other settings than these."""
        kept = {name: v for name, v in os.environ.items() if not name.startswith("PICOWATCH_")}
        cache = str(self.folder.parent / CACHE)
        return {**kept, "PYTHONPATH": str(PROJECT), "XDG_CACHE_HOME": cache, **self._settings}

    def drop(self, job: Job, *pictures: Picture, prefix: str = "r") -> None:
        """Save a recipe for each picture."""
        for picture in pictures:
            path = self.inbox / f"{prefix}{picture.seed:05}.yaml"
            path.write_text(job.recipe(picture))

    def made(self) -> int:
        """How many pictures are published.

        It is asked 200 times a second, of cores that are measured: the file is read when it grew.
        """
        with suppress(FileNotFoundError):
            listing = self.outbox / "images.jsonl"
            if (size := listing.stat().st_size) != self._counted[0]:
                self._counted = size, listing.read_bytes().count(b"\n")
        return self._counted[1]

    def newest(self, count: int) -> list[Path]:
        """The pictures published last."""
        lines = (self.outbox / "images.jsonl").read_text().splitlines()[-count:]
        return [self.outbox / json.loads(line)["file"] for line in lines]

    def picture(self, seed: int) -> Path:
        """The picture of a seed; each is made once here."""
        return next(self.outbox.glob(f"*/*-{seed}.png"))

    def published_at(self) -> list[float]:
        """When each picture was written, in Unix seconds, in order."""
        return sorted(path.stat().st_mtime for path in self.outbox.glob("*/*.png"))

    def rendered(self, file: Path) -> dict[str, Any]:
        """How a picture was made, as its metadata say."""
        with Image.open(file) as image:
            chunk: dict[str, Any] = json.loads(image.info["picowatch"])
        rendered: dict[str, Any] = chunk["rendered"]
        return rendered

    def how_made(self, pictures: Sequence[Picture]) -> str:
        """Batch, precision and so on of these pictures, as their metadata say, in words."""
        told = Counter(
            f"batch {one['batch_size']}, {one['precision']}, "
            f"{'compiled' if one['compiled'] else 'eager'}, memory: {one['memory_rung']}"
            for one in (self.rendered(self.picture(picture.seed)) for picture in pictures)
        )
        return "; ".join(f"{number} in {how}" for how, number in told.items())

    def is_idle(self) -> bool:
        """Whether nothing waits or is in work, as status.json says, and all is published."""
        images = json.loads((self.outbox / ".picowatch/status.json").read_text())["images"]
        return not (images["queued"] or images["running"]) and images["done"] == self.made()

    def complaint(self) -> str:
        """What an error file says, if there is one, else ""."""
        errors = sorted(self.outbox.glob("**/*.error.txt"))
        return errors[0].read_text().strip() if errors else ""


def _picowatch(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "picowatch", *arguments]


class Daemon:
    """`picowatch run` at work in a user's folders."""

    def __init__(self, folders: Folders, process: "subprocess.Popen[bytes]") -> None:
        self.folders = folders
        self.process = process

    def wait_for_pictures(self, count: int) -> None:
        """Until so many are published; RuntimeError if that will not be."""

        looks = itertools.count()

        def made() -> bool:
            if self.folders.made() >= count:
                return True
            if next(looks) % LOOKS_FOR_TROUBLE:
                return False
            if self.process.poll() is not None:
                told = (self.folders.folder / "told.txt").read_text()
                raise RuntimeError(f"picowatch ended: {told[-500:]}")
            if complaint := self.folders.complaint():
                raise RuntimeError(f"picowatch refused a recipe: {complaint}")
            return False

        wait_until(made, f"{count} pictures", PATIENCE)

    def seconds_for(self, job: Job, *pictures: Picture, prefix: str = "r") -> float:
        """From the drop of these recipes to their last picture, the settle time included."""
        count = self.folders.made() + len(pictures)
        began = time.monotonic()
        self.folders.drop(job, *pictures, prefix=prefix)
        self.wait_for_pictures(count)
        return time.monotonic() - began

    def peak_bytes(self) -> int:
        """The most main memory that daemon and engine held, together."""
        return sum(_peak_of(process) for process in (self.process.pid, *self.children()))

    def resident_bytes(self) -> int:
        """What the daemon alone holds now."""
        return _memory_of(self.process.pid, "VmRSS")

    def cpu_seconds(self) -> float:
        """Processor time of the daemon alone."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def children(self) -> Iterator[int]:
        """The processes of its engines."""
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
            if parent == self.process.pid:
                yield int(stat.parent.name)


def _peak_of(process: int) -> int:
    return _memory_of(process, "VmHWM")


def _memory_of(process: int, what: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


@contextmanager
def running(folders: Folders) -> Iterator[Daemon]:
    """A daemon that is ended as a service manager would end it."""
    process = folders.command("run")
    try:
        yield Daemon(folders, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_once(folders: Folders) -> float:
    """`picowatch run --once` with what is in the inbox; gives its seconds."""
    began = time.monotonic()
    code = folders.command("run", "--once").wait(PATIENCE)
    if code:
        told = (folders.folder / "told.txt").read_text()
        raise RuntimeError(f"picowatch run --once ended with {code}: {told[-500:]}")
    return time.monotonic() - began


def seconds_of(folders: Folders, *arguments: str) -> float:
    """How long a command takes, whatever its exit code."""
    began = time.monotonic()
    folders.command(*arguments).wait(PATIENCE)
    return time.monotonic() - began
