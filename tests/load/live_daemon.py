"""`picowatch run` in a process of its own, looked at from outside."""

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from tests.daemon.processes import process
from tests.house import House, wait_for

PATIENCE = 240.0  # seconds that ten thousand of anything may take on a busy machine
LOOK_SECONDS = 0.1


class LiveDaemon:
    """A daemon on the digest engine. While it is held, no batch is rendered."""

    def __init__(self, house: House, process: "subprocess.Popen[str]") -> None:
        self._house = house
        self.process = process

    def release(self) -> None:
        (self._house.folder / "hold").unlink()

    def wait_for(self, condition: Callable[[], object], what: str) -> None:
        """Wait until the condition holds; fails if it does not, or if the daemon ends before."""

        def holds() -> bool:
            assert self.process.poll() is None, "the daemon ended"
            return bool(condition())

        wait_for(holds, what, patience=PATIENCE, pause_seconds=LOOK_SECONDS)

    def waiting(self) -> int:
        """Return how many images are queued or in progress."""
        images = self._house.status()["images"]
        return int(images["queued"] + images["running"])

    def made(self) -> int:
        """Return how many pictures were published, which status.json has some seconds later."""
        listing = self._house.outbox / "images.jsonl"
        return listing.read_bytes().count(b'{"file": ') if listing.exists() else 0

    def wait_until_made(self, pictures: int) -> None:
        """Wait until this many pictures were published in all."""
        self.wait_for(lambda: self.made() == pictures, f"{pictures} pictures")

    def wait_until_idle(self) -> None:
        self.wait_for(lambda: self.waiting() == 0, "an empty queue")

    def mebibytes(self, what: str = "VmHWM") -> float:
        """The memory that the process holds (VmRSS), or held at most (VmHWM)."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024

    def cpu_seconds(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)


@contextmanager
def live_daemon(house: House, *, held: bool = False, **settings: object) -> Iterator[LiveDaemon]:
    """A daemon that listens; it is ended as systemd would, and must end well."""
    if held:
        (house.folder / "hold").touch()
    values = {"batch_size": "auto", "settle_seconds": 0.5, **settings}
    variables = {f"PICOWATCH_{name.upper()}": str(value) for name, value in values.items()}
    with process(house, **variables) as running:
        daemon = LiveDaemon(house, running)
        daemon.wait_for(lambda: house.status()["images"] is not None, "the first status")
        yield daemon
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) == 0


# -- recipes by the thousand, whose seeds say which version of which recipe a picture shows

EDITED = 1_000_000  # is added to a recipe's seed by an edit


def name_of(number: int, of: int) -> str:
    """The first nine tenths lie side by side, the rest in a hundred folders."""
    name = f"r{number:05}.yaml"
    return name if number < of * 9 // 10 else f"folder{number % 100:02}/{name}"


def text_of(seed: int, word: str = "corgi") -> str:
    return f"prompt: {word} {seed}\nseed: {seed}\nsize: 64x64\nsteps: 1\n"


def write_recipes(folder: Path, count: int, word: str = "corgi") -> None:
    """`count` recipes with the seeds 0, 1, 2, …"""
    for number in range(count):
        path = folder / name_of(number, count)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text_of(number, word))
