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

from picowatch.outbox import pages
from tests.power.checking import ARCHIVE, Checker, Promises, Story
from tests.power.disk import LENGTHS_ONLY, Disk, PowerCuts
from tests.power.operations import Operation, Recording, Write
from tests.power.recording import record
from tests.power.scenario import PICTURES_PER_PAGE

PARTS = 4  # of the run, between which a power cut's start is recorded as well

_checker: Checker


def recorded(folder: Path, *arguments: str) -> Recording:
    """The scenario's run, recorded in an empty folder."""
    run = folder / "-".join(("run", *arguments))
    run.mkdir()
    command = [sys.executable, "-m", "tests.power.scenario", str(run), *arguments]
    return record(command, run, folder / "trace")


def recorded_again(folder: Path, disk: Disk, promises: Promises) -> Recording:
    """The start after a power cut, recorded: the power may go again meanwhile."""
    run = folder / f"again-{disk.moment}"
    run.mkdir()
    disk.lay_out(run)
    saved = [f"{name}={number}" for name, number in promises.inbox]
    command = [sys.executable, "-m", "tests.power.scenario", str(run), *saved]
    return record(command, run, folder / "trace")


def half_committed(recording: Recording, part: int, parts: int) -> Disk:
    """What a power cut leaves in the midst of a commit, some part of the way through the run.

    The ledger has its new length and old pages, names are there and contents are not.
    """
    operations = recording.operations
    moment = len(operations) * part // parts
    while not _writes_ledger(recording, operations[moment - 1]):
        moment += 1
    disks = PowerCuts(recording).disks(moments=[moment])
    return next(disk for disk in disks if disk.what == LENGTHS_ONLY)


def _writes_ledger(recording: Recording, operation: Operation) -> bool:
    return isinstance(operation, Write) and recording.is_named(operation.file, ".sqlite")


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
    with tempfile.TemporaryDirectory(dir=memory()) as name:
        folder = Path(name)
        recording = recorded(folder)
        cuts = PowerCuts(recording)
        story = Story(recording, cuts.whole())
        wrong = check("the run", cuts, story, folder, every)
        for part in range(1, PARTS):
            disk = half_committed(recording, part, PARTS)
            promises = story.at(disk.moment)
            cuts_again = PowerCuts(recorded_again(folder, disk, promises))
            story_again = Story(cuts_again.recording, cuts_again.whole(), promises)
            title = f"the start after a power cut at operation {disk.moment}"
            wrong |= check(title, cuts_again, story_again, folder, every)
        cuts = PowerCuts(recorded(folder, ARCHIVE))
        story = Story(cuts.recording, cuts.whole())
        wrong |= check("archiving", cuts, story, folder, every, ARCHIVE)
    return int(wrong)


def check(
    title: str, cuts: PowerCuts, story: Story, folder: Path, every: int, when_done: str = "keep"
) -> bool:
    """Check the disks on all processors, and tell of it; gives whether anything is wrong."""
    began, checked = time.monotonic(), 0
    wrong: Counter[str] = Counter()
    first: dict[str, str] = {}
    context = multiprocessing.get_context("spawn")
    with context.Pool(initializer=_start, initargs=(story, str(folder), when_done)) as pool:
        for (moment, what), found in pool.imap_unordered(_check, distinct(cuts, story, every), 8):
            checked += 1
            for violation in {_kind(each) for each in found}:
                wrong[violation] += 1
                first.setdefault(violation, f"after operation {moment}: {what}")
    operations = len(cuts.recording.operations) - cuts.recording.settled
    seconds = time.monotonic() - began
    _say(f"{title}: {operations} operations, {checked} disks checked in {seconds:.0f} s")
    for violation, times in wrong.most_common():
        _say(f"{times} times: {violation} ({first[violation]})")
    return bool(wrong)


def _start(story: Story, folder: str, when_done: str) -> None:
    global _checker
    pages.PICTURES_PER_PAGE = PICTURES_PER_PAGE
    own = Path(tempfile.mkdtemp(dir=folder))
    _checker = Checker(story, own, when_done)


def _check(disk: Disk) -> tuple[tuple[int, str], list[str]]:
    return (disk.moment, disk.what), _checker.violations(disk)


def _kind(violation: str) -> str:
    """What violations of different pictures have in common."""
    return re.sub(r"\S*\d{4}-(\d+|sheet)", "…", re.sub(r": ['\"].*", "", violation))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
