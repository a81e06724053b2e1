"""After a power cut at any moment of publishing, the next start finds what was promised.

A run is recorded once, and a sample of the disks that power cuts may leave is checked. EVERY=1
checks all of them.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from picowatch.outbox import pages
from tests.power.checking import ARCHIVE, Checker, Story
from tests.power.disk import CERTAIN, PowerCuts
from tests.power.operations import ROOT, Recording
from tests.power.recording import CannotRecord
from tests.power.runs import distinct, half_committed, recorded, recorded_again
from tests.power.scenario import PICTURES_PER_PAGE

# Every so many-th disk, and of other runs; primes, so that all kinds of leftovers come up.
SAMPLE = int(os.environ.get("EVERY", "2999"))
SAMPLE_AGAIN = int(os.environ.get("EVERY", "997"))
CLOSER = pytest.param(min(499, SAMPLE), marks=pytest.mark.heavy)
OWN_FOLDERS = ("outbox", ".picowatch", "gallery", "start-images")

# What a program may forget to sync, and what then becomes of its promises.
FORGOTTEN: dict[str, tuple[Callable[[Recording, int], bool], str]] = {
    "a picture's content": (
        lambda recording, inode: recording.is_named(inode, ".png"),
        "published and is damaged",
    ),
    "a picture's name": (
        lambda recording, inode: (
            inode in recording.folders - {ROOT} and not recording.is_named(inode, *OWN_FOLDERS)
        ),
        "published and is gone",
    ),
    "synchronous=OFF": (
        lambda recording, inode: recording.is_named(inode, "ledger.sqlite", "-journal"),
        "an accepted image was lost",
    ),
    "the ledger's name": (
        lambda recording, inode: recording.is_named(inode, ".picowatch"),
        "an accepted image was lost",
    ),
    "the list": (
        lambda recording, inode: recording.is_named(inode, "images.jsonl"),
        "images.jsonl lacks",
    ),
    "the outbox's name": (lambda recording, inode: inode == ROOT, "published and is gone"),
    "a start image": (
        lambda recording, inode: recording.is_named(inode, "start-images"),
        "start image's copy is missing",
    ),
}


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    try:
        return recorded(tmp_path_factory.mktemp("power"))
    except CannotRecord as why:
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def story(recording: Recording) -> Story:
    return Story(recording, PowerCuts(recording).whole())


@pytest.fixture(scope="module")
def checker(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checker]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PICTURES_PER_PAGE", PICTURES_PER_PAGE)
        yield Checker(story, tmp_path_factory.mktemp("user"))


def test_the_recording_tells_every_byte_that_was_written(recording: Recording) -> None:
    """Replayed without a power cut, it gives exactly the existing files."""
    outbox = recording.folder / "outbox"
    there = {path for path in outbox.rglob("*") if path.is_file()}
    played = PowerCuts(recording).whole().files
    assert {recording.folder / path for path in played} == there
    for path in there:
        assert played[path.relative_to(recording.folder).as_posix()] == path.read_bytes(), path


def test_what_was_told_is_kept(recording: Recording, story: Story, checker: Checker) -> None:
    """Right after each line in the log, a power cut takes everything that was not synced."""
    moments = story.moments_of_promises()
    assert len(moments) >= 15
    disks = [disk for disk in PowerCuts(recording).disks(moments=moments) if disk.what == CERTAIN]
    assert len(disks) == len(moments)
    for disk in disks:
        assert checker.violations(disk) == [], f"after operation {disk.moment}: {disk.what}"


@pytest.mark.parametrize("sample", [SAMPLE, CLOSER])
def test_nothing_is_lost_and_nothing_twice(
    recording: Recording, story: Story, checker: Checker, sample: int
) -> None:
    """So after a power cut at any moment, with any part of the rest on the disk."""
    checked = 0
    for disk in distinct(PowerCuts(recording), story, sample):
        assert checker.violations(disk) == [], f"after operation {disk.moment}: {disk.what}"
        checked += 1
    assert checked > 40_000 // sample


@pytest.mark.heavy
def test_the_power_may_go_again_while_what_it_left_is_mended(
    recording: Recording, story: Story, checker: Checker, tmp_path: Path
) -> None:
    """The start after a power cut is recorded, and cut off, too."""
    disk = half_committed(recording, 1, 2)
    promises = story.at(disk.moment)
    again = recorded_again(tmp_path, disk, promises)
    cuts = PowerCuts(again)
    story_again = Story(again, cuts.whole(), promises)
    (tmp_path / "user").mkdir()
    checker_again = Checker(story_again, tmp_path / "user")
    checked = 0
    for disk in distinct(cuts, story_again, SAMPLE_AGAIN):
        found = checker_again.violations(disk)
        assert found == [], f"after operation {disk.moment}: {disk.what}"
        checked += 1
    assert checked > 4


def test_an_archived_recipe_is_in_one_place_and_was_made_once(
    checker: Checker, tmp_path: Path
) -> None:
    """The ledger knows a recipe that a power cut brings back into the inbox."""
    cuts = PowerCuts(recorded(tmp_path, ARCHIVE))
    whole = cuts.whole()
    inbox = cuts.recording.folder / "inbox"
    left = {path.relative_to(inbox).as_posix() for path in inbox.rglob("*") if path.is_file()}
    assert whole.inbox == left, "the recording tells what was taken out of the inbox"
    story = Story(cuts.recording, whole)
    (tmp_path / "user").mkdir()
    archiving = Checker(story, tmp_path / "user", ARCHIVE)
    checked = 0
    for disk in distinct(cuts, story, 2 * SAMPLE_AGAIN):
        found = archiving.violations(disk)
        assert found == [], f"after operation {disk.moment}: {disk.what}"
        checked += 1
    assert checked > 4


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_program_that_forgets_a_sync_is_found_out(
    recording: Recording, story: Story, checker: Checker, what: str
) -> None:
    """The same run without some syncs fails, so these tests can fail."""
    forgets, lost = FORGOTTEN[what]
    careless = PowerCuts(recording.without(lambda sync: forgets(recording, sync.inode)))
    disks = careless.disks(moments=story.moments_of_promises())
    certain = (disk for disk in disks if disk.what == CERTAIN)
    assert any(lost in each for disk in certain for each in checker.violations(disk))
