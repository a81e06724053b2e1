"""picowatch beside a diffusers script that makes the same pictures, as rows of a table.

    python -m benchmarks.cpu [--rows folder,full,first] [--rounds 3] [--folder DIR]

folder  64 pictures of the demo model: recipes saved in a folder, PNGs found
full    a step of a full-size Stable Diffusion 1.5 with guidance, and peak memory
first   one picture of the demo model from the start of the program

Both programs run by turns, each round with the other one first. Some 12 minutes on two quiet
cores. DIR decides which disk is measured. `--small` only proves that the script works.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.folders import PATIENCE, PROJECT, Folders, run_once, running
from benchmarks.jobs import DEMO, Job, full_size, pictures
from benchmarks.measuring import compared, machine

HEADER = "| what | picowatch | diffusers script | times as much |\n|---|---|---|---|"
WARM_UP_SEED = 90_000
MEBI = 1 << 20


@dataclass(frozen=True, slots=True)
class Extent:
    """Rounds, pictures, sizes and steps; `folder` holds all that is made."""

    folder: Path
    rounds: int = 3
    pictures: int = 64
    steps: int = 24
    size: int = 128
    large: Callable[[], Any] = full_size
    large_size: int = 256
    large_steps: tuple[int, int] = (2, 6)

    def new_folder(self) -> Path:
        """An empty folder of a user or of the script."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def by_turns(self, **measures: Callable[[], float]) -> list[list[float]]:
        """Take each measure in each round; rounds begin with another one by turns."""
        found: dict[str, list[float]] = {name: [] for name in measures}
        for turn in range(self.rounds):
            begin = turn % len(measures)
            for name in [*measures][begin:] + [*measures][:begin]:
                found[name].append(measures[name]())
                print(f"  round {turn + 1}: {name} {found[name][-1]:.3f}", flush=True)
        return list(found.values())


@dataclass(frozen=True, slots=True)
class ScriptRun:
    """One run of the script: seconds of the whole process, and of each picture."""

    wall: float
    pictures: list[float]
    peak_bytes: int
    folder: Path


def run_script(job: Job, folder: Path) -> ScriptRun:
    """Let the diffusers script do the job. Raises RuntimeError with its last words."""
    job.write(folder / "job.json", folder)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONPATH": str(PROJECT)}
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-m", "benchmarks.peers.diffusers_loop", "job.json"],
        cwd=folder,
        env=os.environ | offline,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    wall = time.monotonic() - began
    if result.returncode:
        raise RuntimeError(f"the script failed: {result.stderr[-500:]}")
    return ScriptRun(wall, **json.loads(result.stdout.splitlines()[-1]), folder=folder)


def folder_row(extent: Extent) -> list[str]:
    """Many demo pictures through the folder, without and with start-up, seconds each."""
    job = Job(DEMO, extent.size, pictures(extent.pictures, extent.steps))
    made, scripts, folders = len(job.pictures), list[ScriptRun](), list[Folders]()

    def warm() -> float:
        folders.append(Folders(extent.new_folder()))
        with running(folders[-1]) as daemon:
            daemon.seconds_for(job, replace(job.pictures[0], seed=WARM_UP_SEED))
            return daemon.seconds_for(job, *job.pictures) / made

    def whole() -> float:
        own = Folders(extent.new_folder())
        own.save(job, *job.pictures)
        return run_once(own) / made

    def script() -> float:
        scripts.append(run_script(job, extent.new_folder()))
        warmed_up = scripts[-1].pictures[1:]
        return statistics.fmean(warmed_up)

    ours, ours_whole, theirs = extent.by_turns(warm=warm, whole=whole, script=script)
    name = f"{made} demo pictures, {extent.steps} steps, through the folder, each"
    apart = max(
        mean_difference(folders[-1].picture(picture.seed), scripts[-1].folder / f"{place:04}.png")
        for place, picture in enumerate(job.pictures)
    )
    return [
        compared(f"{name}, warm", ours, theirs),
        compared(f"{name}, start-up included", ours_whole, [run.wall / made for run in scripts]),
        f"| the pictures differ, in the mean of the worst pair, of 255 | {apart:.2g} | | |",
        f"| how picowatch made them | {folders[-1].how_made(job.pictures)} | | |",
    ]


def full_row(extent: Extent) -> list[str]:
    """A step of the full-size checkpoint, which is what more steps take more, and peak memory."""
    few, many = extent.large_steps
    *short, long = pictures(3, few)  # the first one is the warm-up
    job = Job(extent.large(), extent.large_size, (*short, replace(long, steps=many)))
    peaks: tuple[list[float], list[float]] = [], []

    def ours() -> float:
        folders = Folders(extent.new_folder(), job.checkpoint)
        with running(folders) as daemon:
            _, short, long = [daemon.seconds_for(job, picture) for picture in job.pictures]
            peaks[0].append(daemon.peak_bytes() / MEBI)
        return (long - short) / (many - few)

    def script() -> float:
        run = run_script(job, extent.new_folder())
        peaks[1].append(run.peak_bytes / MEBI)
        _, short, long = run.pictures
        return (long - short) / (many - few)

    own, others = extent.by_turns(ours=ours, script=script)
    what = f"{job.checkpoint.words}, {job.size}x{job.size}"
    return [
        compared(f"{what}, a step with guidance", own, others),
        compared(f"{what}, peak memory", peaks[0], peaks[1], unit="MiB"),
    ]


def first_row(extent: Extent) -> list[str]:
    """One picture from the start of `picowatch run`; the outbox is used again, as a user's is."""
    job = Job(DEMO, extent.size, pictures(1, extent.steps))
    folders, seeds = Folders(extent.new_folder()), count(1)

    def ours() -> float:
        wanted = folders.made() + 1
        folders.save(job, replace(job.pictures[0], seed=next(seeds)))
        began = time.monotonic()
        with running(folders) as daemon:
            daemon.wait_for_pictures(wanted)
            return time.monotonic() - began

    def script() -> float:
        return run_script(job, extent.new_folder()).wall

    ours(), script()  # files are in the system's cache then
    own, others = extent.by_turns(ours=ours, script=script)
    return [compared("one demo picture from the start of the program", own, others)]


def mean_difference(path: Path, other: Path) -> float:
    """The mean difference of two pictures' channels, each from 0 to 255."""
    pixels = []
    for file in (path, other):
        with Image.open(file) as image:
            pixels.append(np.asarray(image.convert("RGB"), dtype=np.int16))
    return float(np.abs(pixels[0] - pixels[1]).mean())


ROWS = {"folder": folder_row, "full": full_row, "first": first_row}


def main() -> None:
    parser = argparse.ArgumentParser(description="picowatch beside a diffusers script, on a CPU.")
    parser.add_argument("--rows", default=",".join(ROWS), help="which, with commas between them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where everything is made")
    parser.add_argument("--small", action="store_true", help="only prove that it works")
    options = parser.parse_args()
    if unknown := {*options.rows.split(",")} - {*ROWS}:
        parser.error(f"no rows {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    few: dict[str, Any] = {"pictures": 3, "steps": 2, "size": 64, "large_steps": (1, 3)}
    few |= {"large": lambda: DEMO, "large_size": 64}
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="picowatch-bench-") as folder:
        extent = Extent(Path(folder), options.rounds, **(few if options.small else {}))
        lines = [line for name in options.rows.split(",") for line in ROWS[name](extent)]
    print("\n".join([HEADER, *lines, "", machine()]))


if __name__ == "__main__":
    main()
