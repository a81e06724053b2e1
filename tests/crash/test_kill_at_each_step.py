"""The process dies by SIGKILL at each step from save to picture; the next start repairs it."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from picowatch.metadata import PARAMETERS, read_texts
from picowatch.outbox.commands import Command, send
from tests.fault_points import POINTS, VARIABLE
from tests.crash.dying_daemon import fail_on_bad
from tests.house import House

RECIPES = {
    "fixed.yaml": "prompt: a corgi\nseed: 1\ncount: 5\n",
    "random.txt": "a star\na circle\n",
    "pets/sweep.yaml": "prompt: a cat\nseed: 7\nsweep: {steps: [2, 3]}\n",
    "start.yaml": "prompt: a dog\nseed: 8\nimage: start.png\n",
    "failing.txt": "bad --seed 9\na bird --seed 10\n",
    "wrong.yaml": "promt: a typo\n",
    "frames/_pictures.yaml": "prompt: a frame\n",
}
DROPPED = ("1.png", "2.png")
MADE = {"frames": len(DROPPED), "fixed": 5, "random": 2, "pets/sweep": 3, "start": 1, "failing": 1}
DATA = ".picowatch/gallery"
DURABILITY = Path(__file__).parents[2] / "docs/durability.md"


class Daemons:
    """The process that forks a daemon for each run (tests/crash/dying_daemon.py)."""

    def __init__(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.dying_daemon"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, folder: Path, fault: str, settings: dict[str, str]) -> int:
        """How a run ended: its exit code, or minus the signal that killed it."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([str(folder), fault, settings]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


@cache
def daemons() -> Daemons:
    return Daemons()


@pytest.fixture(scope="module", autouse=True)
def daemons_end() -> Iterator[None]:
    """With the last test."""
    yield
    daemons().close()


def run(house: House, fault: str = "", **settings: str) -> int:
    """picowatch run --once in a process of its own."""
    return daemons().run(house.folder, fault, settings)


def dies(house: House, fault: str, **settings: str) -> None:
    assert run(house, fault, **settings) == -signal.SIGKILL, f"it never came to {fault}"


def save_all(house: House) -> None:
    house.inbox.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), "red").save(house.inbox / "start.png")
    for name, text in RECIPES.items():
        house.save(name, text)
    for number, name in enumerate(DROPPED):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(house.inbox / "frames" / name)


def assert_all_is_well(house: House) -> None:
    """Every image exactly once and whole, in every list once; no temporary; errors answered."""
    for folder, count in MADE.items():
        assert len(rendered(house, folder)) == count, folder
    assert house.seeds("fixed") == [1, 2, 3, 4, 5]
    assert [Path(name).stem for name in rendered(house, "frames")] == ["1", "2"]
    assert sorted(house.prompts("random")) == ["a circle", "a star"]
    assert list(house.outbox.rglob(".picowatch-*")) == []
    assert_listed_once(house)
    assert "bad" not in house.prompts("failing")
    assert "Bad." in (house.error("failing.txt") or "")
    assert "Did you mean 'prompt'?" in (house.error("wrong.yaml") or "")
    assert "killed or stopped in the middle of something" in house.log()


def assert_listed_once(house: House) -> None:
    pictures = [file for file in rendered(house) if "-sheet." not in file]
    for file in house.pictures():
        Image.open(house.outbox / file).load()
    assert sorted(line["file"] for line in house.listed()) == pictures
    assert sorted(in_gallery(house)) == rendered(house)


def rendered(house: House, folder: str = "") -> list[str]:
    """Without dropped pictures that were archived."""
    return [file for file in house.pictures(folder) if "/originals/" not in file]


def in_gallery(house: House) -> Iterator[str]:
    for page in (house.outbox / ".picowatch/gallery").glob("page-*.js"):
        for line in page.read_text().splitlines():
            yield json.loads(re.fullmatch(r"picture\((.*)\);", line)[1])["file"]  # type: ignore[index]


# Places that need more than a save: they have a test of their own below.
SPECIAL = {
    "before a deletion is noted",
    "before a renaming is noted",
    "before a recipe is archived",
    "while a recipe is taken out of the inbox",
    "after a recipe is archived",
    "before a command is done",
    "before a command is answered",
    "in the middle of building a new ledger",
    "before stars are exported",
    "before stars are shown",
    "before pictures are deleted",
    "before a picture is deleted",
    "before a deleted picture loses its star",
    "before a deleted picture leaves the gallery",
    "before open galleries hear of it",
}


@pytest.mark.parametrize("point", [point for point in POINTS if point not in SPECIAL])
def test_every_image_is_there_exactly_once(house: House, point: str) -> None:
    """Wherever it dies; also if it dies there again, in the middle of repairing."""
    save_all(house)
    dies(house, f"{point}:1")
    run(house, f"{point}:1")
    starts_well(house)


@pytest.mark.parametrize(
    "point",
    [
        "before a save is accepted",
        "before an image is claimed",
        "in the middle of a claim",
        "while a batch renders",
        "while a picture is written",
        "before a picture's rename",
        "before the folder is synced",
        "before the ledger says done",
        "before a picture is enlisted",
        "before a picture is in the gallery",
        "before the lists are remembered",
    ],
)
def test_it_may_have_come_there_before(house: House, point: str) -> None:
    """In the middle of the queue."""
    save_all(house)
    dies(house, f"{point}:4")
    starts_well(house)


def test_a_picture_that_is_deleted_before_it_is_listed_is_not_missed(house: House) -> None:
    """It was rendered and is known to be deleted: no start says that it is not there."""
    house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
    dies(house, "before a picture is enlisted:1")
    dies(house, "before a picture is enlisted:1")  # in the middle of repairing
    (house.outbox / house.pictures()[0]).unlink()
    assert house.once()
    assert house.once()
    assert not house.pictures()
    assert "error" not in house.log()


def starts_well(house: House) -> None:
    """The next start does the rest, and the one after it nothing."""
    house.engine.before_batch = fail_on_bad
    house.once()
    assert_all_is_well(house)
    made = house.pictures()
    assert house.once()
    assert house.pictures() == made


@pytest.mark.parametrize(
    "point",
    [
        "while a picture is written",
        "before the folder is synced",
        "before a picture's sidecar is written",
        "before the ledger says done",
    ],
)
def test_each_picture_has_its_sidecar(house: House, point: str) -> None:
    """Though the format is another one at the next start; a picture that is there stays."""
    save_all(house)
    dies(house, f"{point}:2", format="jpeg", sidecar="txt")
    run(house, format="webp", sidecar="txt")
    assert_all_is_well(house)
    pictures = [house.outbox / file for file in house.pictures() if "-sheet" not in file]
    assert {path.suffix for path in pictures} == {".jpg", ".webp"}
    for path in pictures:
        assert path.with_suffix(".txt").read_text() == f"{read_texts(path)[PARAMETERS]}\n"
    texts = {path for path in house.outbox.glob("*/**/*.txt") if path.stem[0] in "0123456789"}
    assert texts == {path.with_suffix(".txt") for path in pictures}


def test_a_death_before_a_deletion_is_noted(house: House) -> None:
    """What was queued is cancelled by the next start, and never rendered."""
    save_all(house)
    dies(house, "in the middle of a claim:1")
    (house.inbox / "fixed.yaml").unlink()
    dies(house, "before a deletion is noted:1")
    run(house)
    assert house.pictures("fixed") == []
    assert "fixed.yaml: deleted, 5 images cancelled" in house.log()
    assert_listed_once(house)


@pytest.mark.parametrize(
    "point", ["before a renaming is noted", "before the round of saves is committed"]
)
@pytest.mark.parametrize("new", ["renamed.txt", "failing.txt"])
def test_a_death_before_a_renaming_is_noted(house: House, point: str, new: str) -> None:
    """The queue continues under the new name, also over another recipe's; nothing twice."""
    save_all(house)
    dies(house, "in the middle of a claim:1")
    (house.inbox / "random.txt").replace(house.inbox / new)
    dies(house, f"{point}:1")
    run(house)
    made = house.prompts("random") + house.prompts(new.removesuffix(".txt"))
    assert sorted(made) == ["a circle", "a star"]
    assert f"random.txt: renamed to {new}" in house.log()
    assert house.error("failing.txt") is None or new != "failing.txt"


@pytest.mark.parametrize(
    "point",
    [
        "before a recipe is archived",
        "while a recipe is taken out of the inbox",
        "after a recipe is archived",
    ],
)
def test_a_death_around_the_archive(house: House, point: str) -> None:
    """The recipe is there once, in the archive; its pictures are rendered once."""
    save_all(house)
    dies(house, f"{point}:1", when_done="archive")
    run(house, when_done="archive")
    assert_all_is_well(house)
    for name in ("fixed.yaml", "random.txt", "start.yaml"):
        assert not (house.inbox / name).exists()
        archived = house.outbox / name.partition(".")[0] / name
        assert archived.read_text() == RECIPES[name]
        assert len(list(archived.parent.glob("*.yaml")) + list(archived.parent.glob("*.txt"))) == 1
    for name in DROPPED:
        assert not (house.inbox / "frames" / name).exists()
        assert (house.outbox / "frames/originals" / name).exists()
    assert (house.inbox / "failing.txt").exists()
    assert list(house.inbox.rglob(".picowatch-*")) == []


@pytest.mark.parametrize("point", ["before a command is done", "before a command is answered"])
def test_a_death_around_a_command(house: House, point: str) -> None:
    """It is done by the next start, once."""
    save_all(house)
    run(house)
    command = send(house.outbox, Command("retry", "failing.txt"))
    dies(house, f"{point}:1")
    run(house)
    assert_all_is_well(house)
    assert not command.exists()
    assert house.log().count("failing.txt: 1 image queued again, as requested") == 1


@pytest.mark.parametrize(
    "fault",
    [
        "before pictures are deleted:1",
        "before a picture is deleted:2",
        "before a deleted picture loses its star:1",
        "before a deleted picture leaves the gallery:1",
        "before open galleries hear of it:1",
    ],
)
def test_a_death_while_pictures_are_deleted(house: House, fault: str) -> None:
    """They are gone everywhere after the next start, and never come back."""
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2, 3]\n")
    assert house.once(sidecar="txt")
    deleted, kept = ("a/0001-1.png", "a/0002-2.png"), ["a/0003-3.png"]
    send(house.outbox, Command("star", files=(*deleted, *kept)))
    assert house.once(sidecar="txt")
    command = send(house.outbox, Command("delete", files=deleted))
    dies(house, fault)
    run(house)
    assert not command.exists()
    for _ in range(2):  # also by a ledger that is built from images.jsonl
        assert house.pictures() == list(in_gallery(house)) == starred(house) == kept
        assert [path.name for path in (house.outbox / "a").glob("*.txt")] == ["0003-3.txt"]
        assert (house.outbox / "latest.png").read_bytes() == (house.outbox / kept[0]).read_bytes()
        (house.outbox / ".picowatch/ledger.sqlite").unlink()
        run(house)


@pytest.mark.parametrize("point", ["before stars are exported", "before stars are shown"])
def test_a_death_while_stars_are_given(house: House, point: str) -> None:
    """The next start shows and exports them, once."""
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2]\n")
    assert house.once()
    send(house.outbox, Command("star", files=("a/0002-2.png",)))
    dies(house, f"{point}:{2 if 'exported' in point else 1}")
    run(house)
    assert starred(house) == ["a/0002-2.png"]
    assert (house.outbox / ".picowatch/stars.jsonl").read_text().count("\n") == 1
    assert 'stars(["a/0002-2.png"]);' in (house.outbox / DATA / "stars.js").read_text()


def starred(house: House) -> list[str]:
    lines = (house.outbox / "stars.jsonl").read_text().splitlines()
    return [json.loads(line)["file"] for line in lines]


def test_a_death_while_a_ledger_is_rebuilt(house: House) -> None:
    """What was half filled is filled from the start."""
    save_all(house)
    run(house)
    made = house.pictures()
    (house.outbox / ".picowatch/ledger.sqlite").unlink()
    dies(house, "in the middle of building a new ledger:4")
    run(house)
    assert house.pictures() == made
    assert_all_is_well(house)


def test_seeds_stay_as_drawn_across_a_crash(house: House) -> None:
    """A random seed is drawn once, when the save is accepted."""
    house.save("a.yaml", "prompt: a corgi\ncount: 6\n")
    dies(house, "before the ledger says done:2")
    assert run(house) == 0
    first = min(house.seeds())
    assert sorted(house.seeds()) == list(range(first, first + 6))


def test_what_was_in_progress_is_named_in_the_log(house: House) -> None:
    """The log tells the story: what continued after the crash, and with which seed."""
    house.save("a.yaml", "prompt: a corgi\nseed: 5\n")
    dies(house, "while a batch renders:1")
    assert run(house) == 0
    assert "a.yaml: seed 5 queued again" in house.log()


def test_an_image_in_progress_at_five_deaths_in_a_row_is_set_aside(house: House) -> None:
    """It is not tried at every start for ever, the rest of the queue is; retry tries it."""
    house.save("a.yaml", "prompt: deadly\nseed: 1\n")
    house.save("b.yaml", "prompt: a star\nseed: 2\nsteps: 9\n")
    for _ in range(5):
        dies(house, "while a batch renders:1")
    run(house)
    assert house.pictures() == ["b/0001-2.png"]
    assert "died 5 times in a row" in (house.error("a.yaml") or "")
    send(house.outbox, Command("retry", None))
    assert run(house) == 0
    assert sorted(house.seeds()) == [1, 2]
    assert house.error("a.yaml") is None


def test_the_table_names_every_place(house: House) -> None:
    """docs/durability.md and the fault points are the same list, in the same order."""
    rows = re.findall(r"^\| ((?:before|after|while|in the).*?) \|", DURABILITY.read_text(), re.M)
    assert rows == list(POINTS)


def test_faults_are_not_even_imported_in_normal_runs() -> None:
    """The wrapping happens only where the variable is set."""
    module = "picowatch.testing.fault_points"
    code = f"import sys, picowatch.commands.run; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
