"""The daemon with thousands of recipes, by turns with another checkout's.

    python -m benchmarks.daemon [--other ../before] [--rounds 3] [--scale 1.0] [NAME …]

Engines draw digests (tests/commands/digests.py), so only picowatch itself is measured. `--other`
is a checkout with a `.venv` of its own, such as a worktree of an earlier commit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from PIL import Image

from benchmarks.folders import PATIENCE, PROJECT, Daemon, Folders, running
from benchmarks.measuring import compared, machine, spread
from tests.catalog.files import sdxl_shapes, write_model

IDLE_SECONDS, IDLE_SPANS = 30.0, 3
SPIN = "while True: pass"
SAVES = 5  # that are measured one after the other

Found = dict[str, float]  # what was measured, by the row's words with its unit behind a comma


class Home(Folders):
    """A user's folders, on which a checkout works whose engines draw digests."""

    def __init__(self, checkout: Path, folder: Path) -> None:
        super().__init__(folder, batch_size=8)
        python = sys.executable if checkout == PROJECT else checkout / ".venv/bin/python"
        self.program = (python, "-m", "tests.commands.digests")
        self.checkout = checkout
        (folder / "models/checkpoints").mkdir()

    def write(self, name: str, text: str) -> None:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def release(self) -> None:
        (self.folder / "hold").unlink()

    def images(self) -> dict[str, int]:
        path = self.outbox / ".picowatch/status.json"
        found: dict[str, int] = json.loads(path.read_text())["images"] if path.exists() else {}
        return found

    def waiting(self) -> int:
        return sum(self.images().get(state, 0) for state in ("queued", "running"))

    def accepted(self) -> int:
        """Return how many saves were accepted, by the log: the status counts some seconds later."""
        return self.log().count(": saved, ")

    def log(self) -> str:
        path = self.outbox / "picowatch.log"
        return path.read_text() if path.exists() else ""


@contextmanager
def at_work(home: Home) -> Iterator[Daemon]:
    """A daemon that has looked at its folders."""
    with running(home) as daemon:
        daemon.seconds_until(home.images, "the first status")
        yield daemon


def text_of(seed: int) -> str:
    """Return a recipe with a word that the demo model does not know, as most have."""
    return f"prompt: a zorgnub {seed} on a beach\nseed: {seed}\nsize: 64x64\nsteps: 1\n"


def name_of(seed: int, count: int) -> str:
    """Return a recipe's name: nine tenths lie side by side, the rest in a hundred folders."""
    name = f"r{seed:05}.yaml"
    return name if seed < count * 9 // 10 else f"folder{seed % 100:02}/{name}"


def write_recipes(folder: Path, count: int, text: Callable[[int], str] = text_of) -> None:
    folder.mkdir()
    for seed in range(count):
        path = folder / name_of(seed, count)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text(seed))


@contextmanager
def busy_cores(is_busy: bool) -> Iterator[None]:
    """Keep all cores busy, as an engine does."""
    with ExitStack() as stack:
        for _ in range((os.cpu_count() or 1) * is_busy):
            spinning = subprocess.Popen([sys.executable, "-c", SPIN])
            stack.callback(spinning.wait)
            stack.callback(spinning.kill)
        yield


def accepted(home: Home, count: int, text: Callable[[int], str], is_busy: bool) -> Found:
    """Return how fast recipes are accepted that come at once, and what that takes."""
    write_recipes(home.folder / "source", count, text)
    home.hold()
    with at_work(home) as daemon, busy_cores(is_busy):
        cpu = daemon.cpu_seconds()
        (home.folder / "source").rename(home.inbox / "all")
        seconds = daemon.seconds_until(lambda: home.accepted() >= count, "all recipes")
        cpu = daemon.cpu_seconds() - cpu
        return {
            "a second by the clock": count / seconds,
            "a second of processor time": count / cpu,
            "memory at most, MiB": daemon.mebibytes("VmHWM"),
        }


def recipes(home: Home, scale: float) -> Found:
    return accepted(home, round(10_000 * scale), text_of, False)


def recipes_beside_an_engine(home: Home, scale: float) -> Found:
    """Ten thousand recipes at once beside processes that keep all cores busy."""
    return accepted(home, round(10_000 * scale), text_of, True)


def equal_recipes(home: Home, scale: float) -> Found:
    return accepted(home, round(2_000 * scale), lambda seed: text_of(1), False)


def saves(home: Home, scale: float) -> Found:
    """A save into an inbox of so many recipes that wait, and `cancel`, at rising numbers."""
    found: Found = {}
    before = 0
    home.hold()
    with at_work(home) as daemon:
        for goal in (round(number * scale) for number in (10, 1_000, 10_000, 50_000)):
            write_recipes(home.folder / "source", goal - before)
            (home.folder / "source").rename(home.inbox / f"all{goal}")
            daemon.seconds_until(lambda: home.accepted() >= goal, "all recipes")  # noqa: B023
            time.sleep(5.0)  # the scans that follow
            times = []
            for turn in range(SAVES):
                home.write(f"new{goal}-{turn}.yaml", text_of(turn))
                saved = f"new{goal}-{turn}.yaml: saved"
                times.append(daemon.seconds_until(lambda: saved in home.log(), saved))  # noqa: B023
                time.sleep(0.3 + turn)
            words = f"seconds until a save is accepted beside {goal:,}"
            found[words] = statistics.median(times)
            found[f"{words}, the worst of {SAVES}"] = max(times)
            before = goal + SAVES
            started = time.monotonic()
            home.command("cancel", f"new{goal}-0.yaml").wait(PATIENCE)
            found[f"`cancel` beside {goal:,}, seconds"] = time.monotonic() - started
        found["memory at most, MiB"] = daemon.mebibytes("VmHWM")
    return found


def hashed_model(home: Home, scale: float) -> Found:
    """Forty recipes for a model that is being hashed, and one for another."""
    home.hold()
    with at_work(home) as daemon:
        home.write("first.yaml", text_of(1) + "checkpoint: demo\n")  # so its hash is known
        daemon.seconds_until(lambda: home.accepted() == 1, "the first")
        write_model(home.folder / "models/checkpoints/large.safetensors", sdxl_shapes())  # 6.9 GB
        for turn in range(40):
            home.write(f"r{turn}.yaml", text_of(turn) + "checkpoint: large\n")
        time.sleep(1.5)
        home.write("other.yaml", text_of(1) + "checkpoint: demo\n")
        other = daemon.seconds_until(lambda: "other.yaml: saved" in home.log(), "the other")
        waited = daemon.seconds_until(lambda: home.accepted() >= 42, "all")
    return {"seconds until another save is accepted": other, "… until all are, then": waited}


def dropped_pictures(home: Home, scale: float) -> Found:
    """Ten thousand small pictures in a folder with a template."""
    count = round(10_000 * scale)
    folder = home.folder / "pictures"
    folder.mkdir()
    for drop in range(count):
        colour = (drop % 256, drop // 256, 7)
        Image.new("RGB", (64, 64), colour).save(folder / f"{drop:05}.png")
    home.write("frames/_pictures.yaml", "prompt: a frame\nseed: 1\nsize: 64x64\nsteps: 1\n")
    home.hold()
    with at_work(home) as daemon:
        daemon.seconds_until(lambda: ": saved" in home.log(), "the template")
        cpu = daemon.cpu_seconds()
        folder.rename(home.inbox / "frames/a")
        daemon.seconds_until(lambda: home.accepted() >= count, "all pictures")
        accepting = daemon.cpu_seconds() - cpu
        home.release()
        daemon.seconds_until(lambda: home.made() >= count // 100, "the first batches")
        cpu, made = daemon.cpu_seconds(), home.made()
        daemon.seconds_until(lambda: home.made() >= count // 4, "a quarter")
        each = (daemon.cpu_seconds() - cpu) / max(1, home.made() - made)
        return {
            "accepted a second of processor time": count / accepting,
            "processor time to publish one while the others wait, ms": 1000 * each,
            "memory at most, MiB": daemon.mebibytes("VmHWM"),
        }


def idle(home: Home, scale: float) -> Found:
    """A thousand recipes that are done. Neighbours of a core disturb a span of time, not all."""
    count = round(1_000 * scale)
    write_recipes(home.inbox / "all", count)
    with at_work(home) as daemon:
        daemon.seconds_until(lambda: home.made() >= count, "all pictures")
        time.sleep(10.0)
        shares, seconds = [], IDLE_SECONDS * min(1, scale)
        for _ in range(IDLE_SPANS):
            cpu = daemon.cpu_seconds()
            time.sleep(seconds)
            shares.append((daemon.cpu_seconds() - cpu) / seconds)
        share = round(100 * min(shares), 3)  # of ticks of 10 ms
        return {"% of a core": share, "memory, MiB": daemon.mebibytes("VmRSS")}


MEASURED: dict[str, Callable[[Home, float], Found]] = {
    measurement.__name__: measurement
    for measurement in (
        recipes,
        recipes_beside_an_engine,
        equal_recipes,
        saves,
        hashed_model,
        dropped_pictures,
        idle,
    )
}


def measure(
    name: str, checkouts: Sequence[Path], rounds: int, scale: float, folder: Path
) -> Iterator[str]:
    """Yield the rows of one measurement, taken by turns in folders below this one.

    They stay until the end: ext4 searches long for an inode while many were deleted within the last
    minutes (fs/ext4/ialloc.c, recently_deleted), which would count against the next turn.
    """
    found: list[list[Found]] = [[] for _ in checkouts]
    for turn in range(rounds):
        each = list(zip(checkouts, found, strict=True))
        for checkout, taken in each if turn % 2 == 0 else reversed(each):
            taken.append(MEASURED[name](Home(checkout, Path(tempfile.mkdtemp(dir=folder))), scale))
    for row in found[0][0]:
        own, *others = ([result[row] for result in taken] for taken in found)
        if others:
            yield compared(f"{name}: {row}", own, others[0], "")
        else:
            yield f"| {name}: {row} | {spread(own)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="The daemon with thousands of recipes.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MEASURED))
    parser.add_argument("--other", type=Path, help="a checkout that is measured by turns")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers")
    options = parser.parse_args()
    checkouts = [PROJECT, *([options.other.resolve()] if options.other else [])]
    print(machine(), flush=True)
    base = os.environ.get("BASE")
    with tempfile.TemporaryDirectory(prefix="picowatch-daemon-", dir=base) as folder:
        for name in options.names or MEASURED:
            for row in measure(name, checkouts, options.rounds, options.scale, Path(folder)):
                print(row, flush=True)


if __name__ == "__main__":
    main()
