"""Checks every disk that the model of power cuts gives, on all processors.

    python -m tests.power.every_state [EVERY]

EVERY: only every so many-th. Ends with 1 if anything is wrong.
"""

import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.power.checking import Checker, Story
from tests.power.disk import Disk, PowerCuts
from tests.power.recording import Recording, record

_checker: Checker


def recorded(folder: Path) -> Recording:
    """The scenario's run, recorded in an empty folder."""
    run = folder / "run"
    run.mkdir()
    command = [sys.executable, "-m", "tests.power.scenario", str(run)]
    return record(command, run, folder / "trace")


def memory() -> str | None:
    """Where files are fast: nothing that is checked depends on a disk."""
    shared = Path("/dev/shm")
    return str(shared) if shared.is_dir() and os.access(shared, os.W_OK) else None


def distinct(cuts: PowerCuts, story: Story, every: int = 1) -> Iterator[Disk]:
    """The disks between which a start, or what had been promised before it, differs."""
    seen = set()
    for disk in cuts.disks(every):
        key = disk.key(), story.at(disk.moment)
        if key not in seen:
            seen.add(key)
            yield disk


def main(every: int) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        recording = recorded(Path(folder))
        cuts = PowerCuts(recording)
        story = Story(recording, cuts.whole())
        checked, wrong = 0, Counter[str]()
        first: dict[str, str] = {}
        context = multiprocessing.get_context("spawn")
        with context.Pool(initializer=_start, initargs=(story, folder)) as pool:
            for disk, found in pool.imap_unordered(_check, distinct(cuts, story, every), 8):
                checked += 1
                for violation in {_kind(each) for each in found}:
                    wrong[violation] += 1
                    first.setdefault(violation, f"after operation {disk[0]}: {disk[1]}")
    seconds = time.monotonic() - began
    operations = len(recording.operations)
    _say(f"{operations} operations recorded, {checked} disks checked in {seconds:.0f} s")
    for violation, times in wrong.most_common():
        _say(f"{times} times: {violation} ({first[violation]})")
    return 1 if wrong else 0


def _start(story: Story, folder: str) -> None:
    global _checker
    own = Path(tempfile.mkdtemp(dir=folder))
    _checker = Checker(story, own)


def _check(disk: Disk) -> tuple[tuple[int, str], list[str]]:
    return (disk.moment, disk.what), _checker.violations(disk)


def _kind(violation: str) -> str:
    """What violations of different pictures have in common."""
    return re.sub(r"\S*\d{4}-(\d+|sheet)", "…", re.sub(r": ['\"].*", "", violation))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
