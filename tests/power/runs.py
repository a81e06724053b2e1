"""Recorded runs of the scenario, and the disks that power cuts may leave."""

import sys
from collections.abc import Iterator
from pathlib import Path

from tests.power.checking import Promises, Story
from tests.power.disk import LENGTHS_ONLY, Disk, PowerCuts
from tests.power.operations import Operation, Recording, Write
from tests.power.recording import record


def recorded(folder: Path, *arguments: str) -> Recording:
    """Record the scenario in an empty folder."""
    run = folder / "-".join(("run", *arguments))
    run.mkdir()
    command = [sys.executable, "-m", "tests.power.scenario", str(run), *arguments]
    return record(command, run, folder / "trace")


def recorded_again(folder: Path, disk: Disk, promises: Promises) -> Recording:
    """Record the start after a power cut, because the power may fail again."""
    run = folder / f"again-{disk.moment}"
    run.mkdir()
    disk.lay_out(run)
    saved = [f"{name}={number}" for name, number in promises.inbox]
    command = [sys.executable, "-m", "tests.power.scenario", str(run), *saved]
    return record(command, run, folder / "trace")


def half_committed(recording: Recording, part: int, parts: int) -> Disk:
    """Return the disk after a power cut in the middle of a commit, part of the way through a run.

    The ledger has its new length and old pages; files have names but no contents.
    """
    operations = recording.operations
    moment = len(operations) * part // parts
    while not _writes_ledger(recording, operations[moment - 1]):
        moment += 1
    disks = PowerCuts(recording).disks(moments=[moment])
    return next(disk for disk in disks if disk.what == LENGTHS_ONLY)


def _writes_ledger(recording: Recording, operation: Operation) -> bool:
    return isinstance(operation, Write) and recording.is_named(operation.file, ".sqlite")


def distinct(cuts: PowerCuts, story: Story, every: int = 1) -> Iterator[Disk]:
    """Return disks for which starts, or earlier promises, differ."""
    seen = set()
    for disk in cuts.disks(every):
        key = disk.key(), story.at(disk.moment)
        if key not in seen:
            seen.add(key)
            yield disk
