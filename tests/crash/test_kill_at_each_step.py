"""The process dies by SIGKILL at each step from save to picture; the next start repairs it."""

import json
import re
import signal
import sqlite3
from contextlib import closing
from itertools import filterfalse
from pathlib import Path

import pytest

from picowatch.ledger.ledger import VERSION
from picowatch.metadata.embedded_text import PARAMETERS, read_texts
from tests.crash.dying_daemon import run_daemon
from tests.fault_points import POINTS
from tests.house import House, faults, is_sheet, rendered, shown
from tests.kinds import one_of_each_kind
from tests.ledger.test_ledger import put

RECIPES = {
    "fixed.yaml": "prompt: a corgi\nseed: 1\ncount: 5\n",
    "random.txt": "a star\na circle\n",
    "pets/sweep.yaml": "prompt: a cat\nseed: 7\nsweep: {steps: [2, 3]}\n",
    "start.yaml": "prompt: a dog\nseed: 8\nimage: start.png\n",
    "failing.txt": "bad --seed 9\na bird --seed 10\n",
    "wrong.yaml": "promt: a typo\n",
    "frames/_pictures.yaml": "prompt: a frame\n",
}
DROPPED = {"frames/1.png": "green", "frames/2.png": "blue"}
MADE = {"frames": 2, "fixed": 5, "random": 2, "pets/sweep": 3, "start": 1, "failing": 1}
DURABILITY = Path(__file__).parents[2] / "docs/durability.md"
CHANGED = (
    *("before a deletion is noted", "before a renaming is noted"),
    *("before a command is done", "before a command that waits is noted"),
    "before a command is answered",
)
ARCHIVED = (
    *("before a recipe is archived", "before a recipe is taken out of the inbox"),
    "after a recipe is archived",
)
DELETED = (
    *("before pictures are deleted:1", "before a picture is deleted:2"),
    *("before a deleted picture leaves the gallery:1", "before open galleries hear of it:1"),
)
MOVED = (
    *("before a moved picture's line is written", "before the ledger says where it is"),
    *("before it is deleted at its former place", "before the gallery shows it there"),
)
REBUILT = "in the middle of building a new ledger"
UPGRADED = "in the middle of an upgrade of the ledger"
# These need more than a save: they have a test of their own.
SPECIAL = {point.partition(":")[0] for point in (*CHANGED, *ARCHIVED, *DELETED, *MOVED)}
SPECIAL |= {REBUILT, UPGRADED}


def die(house: House, fault: str, **settings: str) -> None:
    assert run_daemon(house, fault, **settings) == -signal.SIGKILL, f"it never came to {fault}"


def save_all(house: House) -> None:
    for name, colour in {"start.png": "red", **DROPPED}.items():
        house.draw(name, colour)
    for name, text in RECIPES.items():
        house.save(name, text)


def assert_all_is_well(house: House) -> None:
    """Check that every image is complete and listed exactly once, without leftovers."""
    for folder, count in MADE.items():
        assert len(rendered(house.outbox, folder)) == count, folder
    assert house.seeds("fixed") == [1, 2, 3, 4, 5]
    assert rendered(house.outbox, "frames") == [*DROPPED]
    assert sorted(house.prompts("random")) == ["a circle", "a star"]
    assert_counted(house)
    assert "bad" not in house.prompts("failing")
    assert "Bad." in (house.error("failing.txt") or "")
    assert "Did you mean 'prompt'?" in (house.error("wrong.yaml") or "")
    failures = (house.outbox / "failures.jsonl").read_text().splitlines()
    assert {json.loads(line)["recipe"] for line in failures} == {"failing.txt", "wrong.yaml"}
    assert len({*failures}) == len(failures), "none twice"


def assert_counted(house: House) -> None:
    assert list(faults(house.outbox)) == []
    for file in filterfalse(is_sheet, rendered(house.outbox)):
        path = house.outbox / file
        assert path.with_suffix(".txt").read_text() == f"{read_texts(path)[PARAMETERS]}\n"


@pytest.mark.parametrize("times", one_of_each_kind([1, 4], [1]))
@pytest.mark.parametrize("point", [point for point in POINTS if point not in SPECIAL])
def test_every_image_is_there_exactly_once(house: House, point: str, times: int) -> None:
    """Wherever it dies, even if it dies there again during the repair."""
    save_all(house)
    if run_daemon(house, f"{point}:{times}") != -signal.SIGKILL:
        assert times > 1, f"it never came to {point}"
        return
    run_daemon(house, f"{point}:{times}")
    run_daemon(house)
    assert_all_is_well(house)
    warnings = (house.outbox / "pets/sweep.yaml.warning.txt").read_text()
    assert warnings.count("It is black.") == 1, "the engine's"


REPLACING = (
    *("while a batch renders", "before a picture is written", "while a picture is written"),
    *("before a picture's rename", "before the folder is synced"),
    *("before a picture's sidecar is written", "before a picture is listed"),
    *("before a picture is in the gallery", "before the ledger says done"),
)


@pytest.mark.parametrize(
    "points", [REPLACING[2::3], pytest.param(REPLACING, marks=pytest.mark.heavy)], ids=len
)
def test_a_result_replaces_its_last_one_exactly_once(house: House, points: tuple[str, ...]) -> None:
    """Back and forth: a photo has one whole picture all the time, which is listed last."""
    house.draw("frames/1.png")
    template = "prompt: a frame\nseed: 7\nsteps: {}\nreplace: true\n"
    house.save("frames/_pictures.yaml", template.format(3))
    run_daemon(house)
    for count, point in enumerate(points):
        steps = 4 - count % 2
        house.save("frames/_pictures.yaml", template.format(steps))
        house.tell("retry all", "frames")
        die(house, f"{point}:1")
        assert house.pictures() == ["frames/1.png"], point
        assert house.request("frames/1.png").steps in (3, 4), "whole"
        run_daemon(house)
        assert house.pictures() == ["frames/1.png"], point
        assert house.request("frames/1.png").steps == steps, point
        texts = read_texts(house.outbox / "frames/1.png")
        assert (house.outbox / "frames/1.txt").read_text() == f"{texts[PARAMETERS]}\n"
        assert [line["steps"] for line in house.listed()] == [3, *[4, 3] * 9][: count + 2], point
        assert [*shown(house.outbox)] == ["frames/1.png"]


@pytest.mark.parametrize("point", CHANGED)
def test_a_death_while_changes_and_commands_are_noted(house: House, point: str) -> None:
    """After a deletion, a renaming or `retry --all`, the next start does each of them once."""
    save_all(house)
    run_daemon(house)
    commands = [house.tell("retry all", "frames")]
    commands.append(house.tell("cancel", "fixed.yaml"))  # waits for a scan
    (house.inbox / "fixed.yaml").unlink()
    (house.inbox / "random.txt").rename(house.inbox / "renamed.txt")
    die(house, f"{point}:1")
    run_daemon(house, f"{point}:1")
    run_daemon(house)
    assert not any(command.exists() for command in commands)
    made = [f"frames/{name}.png" for name in ("1", "1-2", "2", "2-2")]
    assert sorted(rendered(house.outbox, "frames")) == sorted(made)
    assert len({*house.seeds("frames")}) == 4
    assert sorted(house.prompts("random") + house.prompts("renamed")) == ["a circle", "a star"]
    assert "fixed.yaml: deleted" in house.log()
    assert "random.txt: renamed to renamed.txt" in house.log()
    assert_counted(house)


@pytest.mark.parametrize("point", ARCHIVED)
def test_a_death_around_the_archive(house: House, point: str) -> None:
    """The recipe is there once, in the archive, and its pictures are rendered once."""
    save_all(house)
    die(house, f"{point}:1", when_done="archive")
    run_daemon(house, when_done="archive")
    assert_all_is_well(house)
    for name in ("fixed.yaml", "random.txt", "start.yaml"):
        assert not (house.inbox / name).exists()
        archived = house.outbox / name.partition(".")[0]
        assert (archived / name).read_text() == RECIPES[name]
        texts = [path.name for path in archived.iterdir() if path.read_bytes().isascii()]
        assert [text for text in texts if not text.startswith("0")] == [name], "once"
    for name in DROPPED:
        assert not (house.inbox / name).exists()
        assert (house.outbox / "frames/originals" / Path(name).name).exists()
    assert (house.inbox / "failing.txt").exists()
    assert list(house.inbox.rglob(".picowatch-*")) == []


@pytest.mark.parametrize("fault", DELETED)
def test_a_death_while_pictures_are_deleted(house: House, fault: str) -> None:
    """The pictures are gone everywhere after the next start, and never come back."""
    house.save("a.yaml", "prompt: a corgi\nseed: [1, 2, 3]\n")
    run_daemon(house)
    deleted, kept = ("a/0001-1.png", "a/0002-2.png"), ["a/0003-3.png"]
    command = house.tell("delete", None, *deleted)
    die(house, fault)
    run_daemon(house)
    assert not command.exists()
    assert house.pictures() == list(shown(house.outbox)) == kept
    assert [path.name for path in (house.outbox / "a").glob("*.txt")] == ["0003-3.txt"]
    assert (house.outbox / "latest.png").read_bytes() == (house.outbox / kept[0]).read_bytes()


@pytest.mark.parametrize("point", MOVED)
def test_a_death_while_pictures_are_moved(house: House, point: str) -> None:
    """Each is at one place after the next start, with its sidecar, and is not drawn again."""
    recipe = house.save("a.yaml", "prompt: a corgi\nseed: [1, 2]\n")
    run_daemon(house)
    command = house.tell("keep", "best", "a/0001-1.png")
    die(house, f"{point}:1")
    recipe.touch()
    run_daemon(house)
    assert not command.exists()
    assert house.pictures() == sorted(shown(house.outbox)) == ["a/0002-2.png", "best/0001-1.png"]
    texts = [path.relative_to(house.outbox).as_posix() for path in house.outbox.glob("*/*.txt")]
    assert sorted(texts) == ["a/0002-2.txt", "best/0001-1.txt"]
    assert house.listed()[-1]["moved"] == "a/0001-1.png"


def test_a_death_while_a_ledger_is_rebuilt(house: House) -> None:
    """A half-filled ledger is filled again from the start."""
    save_all(house)
    run_daemon(house)
    made = [line["file"] for line in house.listed()]
    house.ledger.unlink()
    die(house, f"{REBUILT}:4")
    run_daemon(house)
    assert [line["file"] for line in house.listed()] == made
    assert_counted(house)


@pytest.mark.parametrize("statement", [5, 50])
def test_an_upgrade_of_the_ledger_is_made_again(house: House, statement: int) -> None:
    """The pause of before is still there."""
    put(house.ledger)
    die(house, f"{UPGRADED}:{statement}")
    run_daemon(house)
    with closing(sqlite3.connect(house.ledger)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert len(sql.execute("SELECT * FROM paused").fetchall()) == 1


def test_an_image_in_progress_at_five_deaths_in_a_row_is_set_aside(house: House) -> None:
    """It is not tried at every start forever, unlike the rest of the queue; `retry` tries it."""
    house.save("a.yaml", "prompt: deadly\nseed: 1\n")
    house.save("b.yaml", "prompt: a star\nseed: 2\nsteps: 9\n")
    for _ in range(5):
        die(house, "while a batch renders:1")
    run_daemon(house)
    assert house.pictures() == ["b/0001-2.png"]
    assert "a.yaml: seed 1 queued again" in house.log()
    assert "died 5 times in a row" in (house.error("a.yaml") or "")
    house.tell("retry")
    assert run_daemon(house) == 0
    assert sorted(house.seeds()) == [1, 2]
    assert house.error("a.yaml") is None


def test_the_table_names_every_place() -> None:
    """docs/durability.md and the fault points are the same list, in the same order."""
    rows = re.findall(r"^\| ((?:before|after|while|in the).*?) \|", DURABILITY.read_text(), re.M)
    assert rows == list(POINTS)
