"""picowatch as a user runs it: a process, folders, recipes that are saved, pictures that come."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.jobs import Checkpoint, Job, Picture
from benchmarks.measuring import wait_until

PROJECT = Path(__file__).parents[1]
PATIENCE = 1800.0
END_SECONDS = 30.0
LOOK_SECONDS = 0.01  # between looks at images.jsonl
_HOW = {True: "compiled", "graph": "by graphs"}


def with_project(checkout: Path = PROJECT) -> dict[str, str]:
    """The environment for a process that imports a checkout and what this process can import."""
    paths = (str(checkout), os.environ.get("PYTHONPATH", ""))
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


class Folders:
    """A user's inbox, outbox and models; `program` works on them."""

    program: Sequence[str | Path] = (sys.executable, "-m", "picowatch")
    checkout = PROJECT

    def __init__(self, folder: Path, *checkpoints: Checkpoint, **settings: object) -> None:
        """Create them; `settings` are picowatch's, such as batch_size=1."""
        self.folder = folder
        self.inbox, self.outbox = folder / "inbox", folder / "outbox"
        models = folder / "models"
        for path in (self.inbox, models):
            path.mkdir(parents=True, exist_ok=True)
        for checkpoint in checkpoints:
            checkpoint.install(models)
        self._settings = {f"PICOWATCH_{name.upper()}": str(v) for name, v in settings.items()}

    def command(self, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a command in these folders, without other settings; it prints into said.txt."""
        environment = with_project(self.checkout)
        kept = {n: v for n, v in environment.items() if not n.startswith("PICOWATCH_")}
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(
                [*self.program, *arguments],
                cwd=self.folder,
                env=kept | self._settings,
                stdout=said,
                stderr=said,
            )

    def said(self) -> str:
        return (self.folder / "said.txt").read_text()[-500:]

    def save(self, job: Job, *pictures: Picture) -> None:
        for picture in pictures:
            (self.inbox / f"r{picture.seed:05}.yaml").write_text(job.recipe(picture))

    def made(self) -> int:
        listing = self.outbox / "images.jsonl"
        return listing.read_bytes().count(b'{"file": ') if listing.exists() else 0

    def picture(self, seed: int) -> Path:
        """The picture of a seed; each is made once here."""
        return next(self.outbox.glob(f"*/*-{seed}.png"))

    def published_at(self) -> list[float]:
        return sorted(path.stat().st_mtime for path in self.outbox.glob("*/*.png"))

    def seconds_of_phases(self, pictures: Sequence[Picture]) -> dict[str, float]:
        """What the engine took for all of them, by phase."""
        found: Counter[str] = Counter()
        for picture in pictures:
            found.update(_rendered(self.picture(picture.seed))["timings"])
        return {phase: round(seconds, 2) for phase, seconds in found.items()}

    def how_made(self, pictures: Sequence[Picture]) -> str:
        """Batch size, precision and so on of these pictures, as their metadata says, in words."""
        found = (_rendered(self.picture(picture.seed)) for picture in pictures)
        counts = Counter(
            f"batch {rendered['batch_size']}, {rendered['precision']}, "
            f"{_HOW.get(rendered['compiled'], 'eager')}, memory: {rendered['memory_rung']}"
            for rendered in found
        )
        return "; ".join(f"{count} in {how}" for how, count in counts.items())


def _rendered(picture: Path) -> dict[str, Any]:
    with Image.open(picture) as image:
        rendered: dict[str, Any] = json.loads(image.info["picowatch"])["rendered"]
    return rendered


class Daemon:
    """`picowatch run` at work in a user's folders."""

    def __init__(self, folders: Folders, process: "subprocess.Popen[bytes]") -> None:
        self._folders = folders
        self._process = process

    def seconds_until(self, condition: Callable[[], object], what: str) -> float:
        """Seconds until a condition holds. Raises RuntimeError if the daemon ended."""
        began = time.monotonic()

        def holds() -> object:
            if self._process.poll() is not None:
                raise RuntimeError(f"picowatch ended: {self._folders.said()}")
            return condition()

        wait_until(holds, what, PATIENCE, LOOK_SECONDS)
        return time.monotonic() - began

    def wait_for_pictures(self, count: int) -> None:
        """Wait until so many are published."""
        self.seconds_until(lambda: self._folders.made() >= count, f"{count} pictures")

    def seconds_for(self, job: Job, *pictures: Picture) -> float:
        """Seconds from saving these recipes to their last picture, the settle time included."""
        count = self._folders.made() + len(pictures)
        began = time.monotonic()
        self._folders.save(job, *pictures)
        self.wait_for_pictures(count)
        return time.monotonic() - began

    def cpu_seconds(self) -> float:
        """The processor time that the daemon's own process took."""
        return processor_seconds(self._process.pid)

    def mebibytes(self, what: str) -> float:
        """The main memory of the daemon's own process: VmRSS is that of now, VmHWM the most."""
        return memory_of(self._process.pid, what) / 2**20

    def peak_bytes(self) -> int:
        """The most main memory that daemon and engine held, together (proc(5))."""
        return sum(map(peak_of, self.processes()))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def processes(self) -> list[int]:
        return [self._process.pid, *self._children()]

    def _children(self) -> Iterator[int]:
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:  # it ended meanwhile
                continue
            if parent == self._process.pid:
                yield int(stat.parent.name)


def peak_of(process: int) -> int:
    """The most main memory that a process held, in bytes."""
    return memory_of(process, "VmHWM")


def memory_of(process: int, what: str) -> int:
    """A process's memory in bytes, by its name in proc(5)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))


def processor_seconds(process: int) -> float:
    values = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(values[11]) + int(values[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(folders: Folders) -> Iterator[Daemon]:
    """A daemon that is ended as a service manager would end it."""
    process = folders.command("run")
    try:
        yield Daemon(folders, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run_once(folders: Folders) -> float:
    """Seconds of `picowatch run --once` with what is in the inbox."""
    began = time.monotonic()
    code = folders.command("run", "--once").wait(PATIENCE)
    if code:
        raise RuntimeError(f"picowatch run --once ended with {code}: {folders.said()}")
    return time.monotonic() - began
