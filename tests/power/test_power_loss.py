"""After a power cut at any moment of publishing, the next start finds what was promised.

A run is recorded once, and a sample of the disks that power cuts may leave is checked. EVERY=1
checks all of them.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from picowatch.outbox import pages
from tests.power.checking import ARCHIVE, Checker, Story
from tests.power.disk import CERTAIN, Disk, PowerCuts, Recording
from tests.power.recording import CannotRecord, record
from tests.power.scenario import PICTURES_PER_PAGE, SAVES, write

# Every so many-th disk; primes, so that all kinds of leftovers come up.
SAMPLE = int(os.environ.get("EVERY", "9973"))
SAMPLES = [SAMPLE, *[pytest.param(1499, marks=pytest.mark.heavy)] * (SAMPLE > 1499)]

# What a program may forget to sync, by endings of names, and what then becomes of its promises.
FORGOTTEN = {
    "a picture's content": ([".png"], "published and is damaged"),
    "a picture's name": (["corgi", "shapes", "from-start", "sweep"], "published and is gone"),
    "synchronous=OFF": (["ledger.sqlite", "-journal"], "an accepted image was lost"),
    "the ledger's name": ([".picowatch"], "an accepted image was lost"),
    "the list": (["images.jsonl"], "images.jsonl lacks"),
    "the outbox's name": (["/"], "published and is gone"),
    "a start image": (["start-images"], "start image's copy is missing"),
}


def recorded(folder: Path, when_done: str = "keep", days: int = 1) -> Recording:
    """Record the scenario on a new folder with the first saves in its inbox."""
    for name, (content, _) in SAVES[0].items():
        write(folder / "inbox" / name, content)
    command = [sys.executable, "-m", "tests.power.scenario", str(folder), when_done, str(days)]
    return record(command, folder, folder.with_name(f"{folder.name}.trace"))


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    try:
        return recorded(tmp_path_factory.mktemp("power") / "run", days=2)
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


def assert_kept(checker: Checker, disks: Iterable[Disk]) -> int:
    """Check that picowatch keeps its promises on all disks, and return how many they are."""
    checked = 0
    for disk in disks:
        assert checker.violations(disk) == [], f"after operation {disk.moment}: {disk.what}"
        checked += 1
    return checked


def test_the_recording_tells_every_byte_that_was_written(recording: Recording) -> None:
    """Replayed without a power cut, it gives exactly the existing files."""
    folder = recording.folder
    there = [path for path in folder.rglob("*box/**/*") if path.is_file()]
    played = PowerCuts(recording).whole().files
    assert played == {path.relative_to(folder).as_posix(): path.read_bytes() for path in there}


@pytest.mark.heavy
def test_what_was_told_is_kept(recording: Recording, story: Story, checker: Checker) -> None:
    """Right after each line in the log, a power cut takes everything that was not synced."""
    moments = story.moments_of_promises()
    assert len(moments) >= 15
    disks = [disk for disk in PowerCuts(recording).disks(moments=moments) if disk.what == CERTAIN]
    assert assert_kept(checker, disks) == len(moments)


@pytest.mark.parametrize("sample", SAMPLES)
def test_nothing_is_lost_and_nothing_twice(
    recording: Recording, story: Story, checker: Checker, sample: int
) -> None:
    """So after a power cut at any moment, with any part of the rest on the disk."""
    disks = story.distinct(PowerCuts(recording).disks(sample))
    assert assert_kept(checker, disks) >= 40_000 // sample


@pytest.mark.heavy
def test_an_archived_recipe_is_in_one_place_and_made_once(checker: Checker, tmp_path: Path) -> None:
    """The ledger knows a recipe that a power cut brings back into the inbox."""
    cuts = PowerCuts(recorded(tmp_path / "run", ARCHIVE))
    story = Story(cuts.recording, cuts.whole())
    archiving = Checker(story, tmp_path / "user", ARCHIVE)
    assert assert_kept(archiving, story.distinct(cuts.disks(min(3989, SAMPLE)))) > 2


@pytest.mark.parametrize("what", FORGOTTEN)
def test_a_program_that_forgets_a_sync_is_found_out(
    recording: Recording, story: Story, checker: Checker, what: str
) -> None:
    """The same run without some syncs fails; the last moments, which promise most, come first."""
    endings, lost = FORGOTTEN[what]
    careless = recording.without_syncs_of(*endings)
    disks = PowerCuts(careless).disks(moments=story.moments_of_promises()[::-1])
    certain = (disk for disk in disks if disk.what == CERTAIN)
    assert any(lost in each for disk in certain for each in checker.violations(disk))
