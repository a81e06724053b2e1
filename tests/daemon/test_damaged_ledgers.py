"""A ledger that is damaged or gone: nothing is lost and nothing is rendered twice."""

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from picowatch.daemon.reader import Reader
from picowatch.errors import RenderFailed
from tests.digest_engine import Batch, fail_on_bad
from tests.fault_points import preceded_by, wrap
from tests.house import PATIENCE, House, wait_for

RECIPES = {
    "fixed.yaml": "prompt: a corgi\nseed: 1\ncount: 4\n",
    "random.txt": "a star\na star\na {red|blue} circle\n",
    "pets/sweep.yaml": "prompt: a cat\nsweep: {steps: [2, 3]}\n",
    "variations.yaml": "prompt: a dog\nseed: 7\nsweep: {variation_strength: [0, 0.5]}\n",
    "more.yaml": "prompt: a dog\nvariation_strength: 0.5\ncount: 2\n",
    "neighbours.yaml": "prompt: a {red|blue} star\ncount: 3\nsweep: {steps: [3, 4, 5]}\n",
}
PAGE_BYTES = 4096


def written_by_another_program(path: Path) -> None:
    """Let it have tables, and no version of picowatch's."""
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("PRAGMA user_version = 0")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"this is no database, " * 500),
    "all pages but the first": lambda path: path.write_bytes(
        path.read_bytes()[:PAGE_BYTES].ljust(path.stat().st_size, b"\xa5")
    ),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "another program's": written_by_another_program,
}


def kept(house: House) -> list[Path]:
    return sorted(house.ledger.parent.glob("ledger.sqlite.damaged-????????-??????"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_rebuilt_from_the_list(house: House, damage: str) -> None:
    """Random seeds included, and pictures that were deleted or lost their metadata."""
    for name, text in RECIPES.items():
        house.save(name, text)
    assert house.once()
    pictures = [picture for picture in house.pictures() if not picture.endswith("sheet.png")]
    assert len(pictures) == 4 + 3 + 2 + 2 + 2 + 9
    DAMAGES[damage](house.ledger)
    house.engine.batches.clear()
    (house.outbox / pictures[0]).unlink()
    Image.new("RGB", (64, 64)).save(house.outbox / pictures[-1])
    for _ in range(2):
        assert house.once()
        assert house.started() == []
    assert sorted(line["file"] for line in house.listed()) == pictures
    assert len(kept(house)) == (damage not in ("empty", "gone"))
    assert ("a new one is built from images.jsonl" in house.log()) == bool(kept(house))
    assert "the new ledger has 22 pictures of images.jsonl" in house.log()


PAIR = "- {prompt: one, seed: 1}\n- {prompt: two}\n"
THREE = f"{PAIR}- {{prompt: three}}\n"
BAD = "- {prompt: bad}\n"
STAR_AND_DOG = "a star\na {red|blue} dog\n"
FIVE = "1\n2\n3\n4\n5\n"
SWEEP = "prompt: two\nsweep: {steps: [1, 2, 3]}\n"
VARIED = "prompt: two\nsweep: {variation_strength: [0, 0.2]}\n"
TEMPLATE = "photos/_pictures.yaml"
Step = tuple[str, ...]
RUN, LOSE = ("run",), ("lose",)
ONE: Step = ("a.txt", "one --seed 1\n")
SAVED: list[Step] = [("a.yaml", PAIR), RUN]
STEPS_2, STEPS_3 = (("_defaults.yaml", f"steps: {count}\n") for count in (2, 3))
# What is done in turn before the ledger is lost, and what is drawn after that. That nothing is
# drawn again without a change is proved after each script of tests/meetings.
LOST: dict[str, tuple[list[Step], list[str]]] = {
    "a folder is renamed, and a file edited there": (
        [("a/a.yaml", PAIR), ("a/b.yaml", PAIR), RUN, ("move", "a", "b"), RUN, ("b/b.yaml", THREE)],
        ["three"],
    ),
    "renamed, edited, and half of that is drawn": (
        [*SAVED, ("move", "a.yaml", "b.yaml"), RUN, ("b.yaml", f"{THREE}{BAD}"), RUN], ["bad"],
    ),
    "its defaults changed, and half was drawn": (
        [STEPS_2, ("a.yaml", f"{PAIR}{BAD}"), RUN, STEPS_3], ["bad"],
    ),
    "a comment is new, its defaults changed, and it was renamed": (
        [STEPS_2, *SAVED, ("a.yaml", f"{PAIR}# x\n"), RUN, STEPS_3, ("move", "a.yaml", "b.yaml")],
        [],
    ),
    "its template changed": (
        [(TEMPLATE, "prompt: a fox\ncount: 2\n"), ("draw", "photos/1.png"), RUN,
         (TEMPLATE, "prompt: a cat\ncount: 3\n")], [],
    ),
    "its template asks for less": (
        [(TEMPLATE, "prompt: a fox\ncount: 3\n"), ("draw", "photos/1.png"), RUN,
         (TEMPLATE, "prompt: a cat\n")], [],
    ),
    "a photo is moved, and its template changed": (
        [(TEMPLATE, "prompt: a fox\n"), ("draw", "photos/1.png"), RUN,
         ("move", "photos/1.png", "photos/a/2.png"), (TEMPLATE, "prompt: a cat\ncount: 3\n")], [],
    ),
    "its bytes are those of a template, and it was renamed": (
        [(TEMPLATE, "prompt: a fox\n"), ("a.yaml", "prompt: a fox\n"), RUN,
         ("move", "a.yaml", "z.yaml")], [],
    ),
    "a lower count, and a higher one later": (
        [("a.txt", "two --count 6\n"), RUN, ("a.txt", "two --count 2\n"), RUN, LOSE, RUN,
         ("a.txt", "two --count 8\n")], ["two"] * 2,
    ),
    "a value less in a sweep, and more later": (
        [("a.yaml", SWEEP), RUN, ("a.yaml", SWEEP.replace("1, ", "")), RUN, LOSE, RUN,
         ("a.yaml", SWEEP.replace("3]", "3, 4]"))], ["two"],
    ),
    "so of variations": (
        [("a.yaml", f"seed: 1\n{VARIED}"), RUN,
         ("a.yaml", f"seed: 1\n{VARIED.replace(']', ', 0.3]')}")], ["two"],
    ),
    "a higher count, of which half is drawn": (
        [("a.txt", "two\n"), RUN, ("a.txt", "two --count 3\nbad\n"), RUN], ["bad"],
    ),
    "a line is new before others": (
        [("a.txt", STAR_AND_DOG), RUN, ("a.txt", f"a moon\n{STAR_AND_DOG}")], ["a moon"],
    ),
    "a higher count, moved above other lines": (
        [("a.txt", f"{FIVE}two\n"), RUN, ("a.txt", f"two --count 2\n{FIVE}")], ["two"],
    ),
    "a lower count below a new line, and a higher one later": (
        [("a.txt", "two --count 3\n"), RUN, ("a.txt", "three\ntwo\n"), RUN, LOSE, RUN,
         ("a.txt", "three\ntwo --count 4\n")], ["two"],
    ),
    "higher counts of equal lines below a new one": (
        [("a.txt", "two\ntwo\n"), RUN, ("a.txt", "three\ntwo --count 2\ntwo --count 2\n")],
        ["three", "two", "two"],
    ),
    "one of equal lines is new": (
        [("a.txt", "a star\n" * 2), RUN, ("a.txt", "a star\n" * 3)], ["a star"],
    ),
    "the first line is gone": ([("a.txt", "a star\na moon\n"), RUN, ("a.txt", "a moon\n")], []),
    "renamed, a picture kept, and touched later": (
        [ONE, RUN, ("move", "a.txt", "b.txt"), RUN, ("keep", "a/0001-1.png"), LOSE, RUN,
         ("touch", "b.txt")], [],
    ),
    "so, with an equal recipe of the old name": (
        [ONE, RUN, ("move", "a.txt", "b.txt"), RUN, ONE, RUN, ("keep", "a/0001-1.png"), LOSE, RUN,
         ("touch", "a.txt"), ("touch", "b.txt")], [],
    ),
    "a copy of it": ([*SAVED, ("b.yaml", PAIR)], ["one", "two"]),
    "two copies, of which one is renamed, and a third": (
        [("b.yaml", PAIR), *SAVED, ("move", "a.yaml", "c.yaml"), ("d.yaml", PAIR)], ["one", "two"],
    ),
    "the same text in another file, after it was deleted": (
        [*SAVED, ("remove", "a.yaml"), RUN, ("b.yaml", PAIR)], ["one", "two"],
    ),
    "so, after the new ledger has seen that it is gone": (
        [("other.txt", STAR_AND_DOG), *SAVED, ("remove", "a.yaml"), LOSE, RUN, ("b.yaml", PAIR)],
        ["one", "two"],
    ),
    "archived, and saved anew": ([("a.yaml", PAIR), ("archive",), ("a.yaml", PAIR)], ["two"]),
    "the list is of an earlier version, and it is renamed unnoticed": (
        [*SAVED, ("earlier",), ("move", "a.yaml", "b.yaml")], [],
    ),
    "refused at first, as its model is away": (
        [*SAVED, ("move", "a.yaml", "b.yaml"), LOSE, ("checkpoint", "no"), RUN,
         ("checkpoint", "demo")], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "drawn"), LOST.values(), ids=LOST)
def test_without_a_ledger_what_was_finished_is_not_drawn_again(
    house: House, steps: list[Step], drawn: list[str]
) -> None:
    """A save is known by its bytes, whatever its name, template and defaults are now."""
    house.engine.before_batch = fail_on_bad
    for step in steps if LOSE in steps else [*steps, LOSE]:
        do(house, *step)
    for _ in range(2):
        house.once()
        assert house.started() == drawn
        assert "nexpected error" not in house.log()


def do(house: House, name: str, *given: str) -> None:
    """Do a step of `LOST`; any other name is that of a recipe to be saved."""
    match name, *given:
        case ("run",):
            house.once()
        case ("archive",):
            house.once(when_done="archive")
        case ("lose",):
            house.ledger.unlink()
            house.engine.batches.clear()
        case ("move", old, new):
            (house.inbox / new).parent.mkdir(exist_ok=True)
            (house.inbox / old).rename(house.inbox / new)
        case ("touch", path):
            (house.inbox / path).touch()
        case ("remove", path):
            (house.inbox / path).unlink()
        case ("keep", picture):
            assert house.answer("keep", "best", picture).done
        case ("earlier",):
            lines = [{**line, "entry_digest": ""} for line in house.listed()]
            text = "".join(f"{json.dumps(line)}\n" for line in lines)
            (house.outbox / "images.jsonl").write_text(text)
        case ("draw", path):
            house.draw(path)
        case ("checkpoint", model):
            house.save("_defaults.yaml", f"checkpoint: {model}\n")
        case _:
            house.save(name, given[0])


def drawn_in_part(house: House, *names: str) -> None:
    """Let a new ledger find equal recipes, of which each lacks a picture."""
    house.engine.before_batch = fail_on_bad
    for name in names:
        house.save(name, f"{PAIR}{BAD}")
    house.once()
    house.engine.before_batch = lambda batch: None
    do(house, *LOSE)


def test_a_save_that_had_no_room_at_first_takes_no_pictures_of_an_equal_one(house: House) -> None:
    """It is read again when the new ledger was compared with the inbox long ago."""
    drawn_in_part(house, "ada/a.yaml", "ada/b.yaml")
    os.utime(house.save("ada/first.yaml", "prompt: new\n"), (1e9, 1e9))
    for name in ("a", "b"):
        (house.inbox / f"ada/{name}.yaml").touch()
    assert house.once(max_queued={"ada": 1})
    assert house.log().count("It is read again when fewer wait") == 2
    assert house.started() == ["new", "bad", "bad"]


def test_no_recipe_takes_the_pictures_of_an_equal_one_that_is_away_for_a_moment(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The inbox is unmounted after a recipe was read, before the other is looked for."""
    for step in (*SAVED, LOSE):
        do(house, *step)
    os.utime(house.save("b.yaml", PAIR), (1e9, 1e9))  # it is the first that is read
    away = house.inbox.with_name("away")
    places = [away]

    def unmount(ledger: object, recipe: str, digest: str) -> None:
        if recipe == "b.yaml" and places:
            house.inbox.rename(places.pop())

    wrap("picowatch.ledger.rebuild:former_paths", preceded_by(unmount), monkeypatch.setattr)
    with house.running():
        wait_for(lambda: "is not there; nothing is cancelled" in house.log(), "the warning")
        away.rename(house.inbox)
        wait_for(lambda: len(house.started()) == 2, "the second recipe's pictures")
        wait_for(lambda: len(house.pictures()) == 4, "the pictures")
    assert len(house.pictures("b")) == 2


def test_equal_files_are_hashed_once_for_all_that_a_new_ledger_asks(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames of a film may be equal, thousands of them."""
    results = Reader.results
    for name in ("a", "b", "c"):
        house.save(f"{name}.yaml", PAIR)
    assert house.once()
    do(house, *LOSE)
    for name in "def":
        house.save(f"{name}.yaml", PAIR)
    # All are accepted together, however busy the machine is.
    monkeypatch.setattr("picowatch.daemon.accept.SLICE_SECONDS", PATIENCE)
    monkeypatch.setattr(Reader, "results", lambda it: [] if it.is_busy() else results(it))
    hashed = Counter[str]()
    count = preceded_by(lambda folder, path: hashed.update([path]))
    wrap("picowatch.inbox.folder:InboxFolder.digest", count, monkeypatch.setattr)
    assert house.once()
    assert hashed == {"a.yaml": 1, "b.yaml": 1, "c.yaml": 1}


def test_a_save_that_was_drawn_in_part_goes_on_with_its_newest_seeds(house: House) -> None:
    """Also if its template reads otherwise now."""
    house.save(TEMPLATE, "prompt: a fox\ncount: 4\n")
    house.draw("photos/1.png")
    assert house.once()
    done = len(house.engine.batches) + 2

    def fail_later(batch: Batch) -> None:
        if len(house.engine.batches) > done:
            raise RenderFailed("Bad.")

    house.engine.before_batch = fail_later
    house.tell("retry all", "photos")
    house.once(batch_size=1)
    newest = [line["seed"] for line in house.listed()][4:]
    house.ledger.unlink()
    house.save(TEMPLATE, "prompt: a cat\ncount: 4\n")
    house.engine.before_batch = lambda batch: None
    assert house.once()
    last = [(line["seed"], line["prompt"]) for line in house.listed()][6:]
    assert last == [(newest[0] + 2, "a cat"), (newest[0] + 3, "a cat")]


@pytest.mark.parametrize("text", ["1\n2\n3\nbad\n", "bad\n1\n2\n3\n"])
def test_pictures_rendered_during_a_renaming_stay_the_recipes_own(house: House, text: str) -> None:
    """Twice, and one image fails; the recipe is edited later."""
    begun, go = Event(), Event()

    def hold(batch: Batch) -> None:
        begun.set()
        assert go.wait(PATIENCE)
        fail_on_bad(batch)

    house.engine.before_batch = hold
    house.save("a.txt", text)
    with house.running(batch_size=1):
        wait_for(begun.is_set, "the first image")
        for old, new in (("a.txt", "b.txt"), ("b.txt", "c.txt")):
            (house.inbox / old).rename(house.inbox / new)
            wait_for(lambda: f"renamed to {new}" in house.log(), new)  # noqa: B023
        go.set()
        told = house.outbox / "images.jsonl"
        wait_for(lambda: told.exists() and told.read_text().count('"renamed"') == 2, "its names")
        wait_for(lambda: len(house.listed()) == 3, "its pictures")
    for saved, rendered in ((text, {"bad"}), (f"{text}4\n", {"bad", "4"})):
        house.ledger.unlink()
        house.save("c.txt", saved)
        house.engine.batches.clear()
        house.once(batch_size=1)
        assert {*house.started()} == rendered


def test_any_picture_of_a_sweep_tells_the_seed_that_was_drawn(house: House) -> None:
    """Here the first two images fail, and the others have another seed."""

    def fail_at_first(batch: Batch) -> None:
        if len(house.engine.batches) < 3:
            raise RenderFailed("Bad.")

    house.engine.before_batch = fail_at_first
    house.save("a.yaml", "prompt: a cat\ncount: 2\nsweep: {steps: [2, 3]}\n")
    house.once(batch_size=1)
    house.ledger.unlink()
    assert house.once(batch_size=1)
    seeds = [line["seed"] for line in house.listed()]
    assert seeds == [seeds[0]] * 2 + [seeds[0] - 1] * 2


def test_lines_with_values_of_another_kind_are_passed_over(house: House) -> None:
    """A user may have edited the list, or a program of theirs may have written it."""
    house.save("a.txt", "one --seed 1\n")
    assert house.once()
    listed, (line, *_) = house.outbox / "images.jsonl", house.listed()
    edits = ("width", 10**30), ("entry_index", float("inf")), ("file", ["a"]), ("moved", ["b"])
    with listed.open("a") as lines:
        lines.writelines(f"{json.dumps(line | {name: value})}\n" for name, value in edits)
    house.ledger.unlink()
    (house.outbox / ".picowatch/gallery/pages.js").unlink()
    assert house.run_once() == 0
    assert len(house.engine.batches) == 1
    assert "the new ledger has 1 picture of images.jsonl" in house.log()


def test_a_damaged_page_of_any_table_heals_at_the_next_start(house: House) -> None:
    """Tables and indexes are damaged in turn: pictures stay, and the next save is rendered."""
    for name in ("random.txt", "pets/sweep.yaml"):
        house.save(name, RECIPES[name])
    assert house.once()
    whole = house.ledger.read_bytes()
    listed = (house.outbox / "images.jsonl").read_bytes()
    house.engine.batches.clear()
    with closing(sqlite3.connect(house.ledger)) as sql:
        pages = {page for (page,) in sql.execute("SELECT rootpage FROM sqlite_master") if page}
    assert len(pages) > 10
    for done, page in enumerate((0, *(root - 1 for root in sorted(pages)))):
        damaged = bytearray(whole)
        damaged[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = b"\xa5" * PAGE_BYTES
        house.ledger.write_bytes(damaged)
        (house.outbox / "images.jsonl").write_bytes(listed)
        path = house.save("new.txt", "a heart --seed 5\n")
        assert house.run_once() == 0, page
        assert house.started() == ["a heart"] * (done + 1), f"with page {page} damaged"
        path.unlink()
        for file in house.pictures("new"):
            (house.outbox / file).unlink()


def test_a_recipe_whose_time_is_damaged_heals_at_the_next_start(house: House) -> None:
    """For SQLite these bytes are a text like any other."""
    house.save("random.txt", RECIPES["random.txt"])
    assert house.once()
    with closing(sqlite3.connect(house.ledger)) as sql, sql:
        sql.execute("UPDATE recipes SET size_and_time = 'x' || substr(size_and_time, 2)")
    house.engine.batches.clear()
    assert house.run_once() == 0
    assert house.started() == []
    assert len(kept(house)) == 1


def test_a_damaged_time_of_the_last_accepted_save_heals_when_it_is_compared(house: House) -> None:
    """A refused recipe has it, for the case that the accepted bytes come back."""
    house.save("a.txt", "a star\n")
    assert house.once()
    house.save("a.txt", "a star --steps many\n")
    assert not house.once()
    with closing(sqlite3.connect(house.ledger)) as sql, sql:
        sql.execute("UPDATE recipes SET accepted = replace(accepted, ' ', ' x')")
    house.engine.batches.clear()
    house.save("a.txt", "a star\n")
    assert house.run_once() == 0
    assert house.started() == []
    assert len(kept(house)) == 1


@pytest.mark.parametrize("damage", ["no database", "empty"])
def test_a_ledger_that_turns_out_damaged_in_the_middle_of_work(house: House, damage: str) -> None:
    """picowatch moves it aside, starts with a new one and renders the rest with the same seeds."""
    house.save("a.yaml", "prompt: a corgi\ncount: 4\n")
    hurt = False

    def hurt_once(batch: Batch) -> None:
        nonlocal hurt
        if not hurt and len(house.pictures()) >= 2:  # the fourth batch at the latest
            hurt = True
            DAMAGES[damage](house.ledger)

    house.engine.before_batch = hurt_once
    assert house.run_once(batch_size=1) == 0
    assert hurt
    first = min(house.seeds())
    assert sorted(house.seeds()) == list(range(first, first + 4))
    assert "It is kept as ledger.sqlite.damaged-" in house.log()


@pytest.mark.parametrize(
    ("file_name", "names"),
    [
        ("{seed}-{number:04}", ["77-0001", "78-0002", "5-0001"]),
        ("{recipe} {number}", ["a 1", "a 2", "a 3"]),
        ("{number:04}-{seed}", ["0001-77", "0002-78", "0003-5"]),
    ],
)
def test_a_new_ledger_goes_on_with_the_numbers_of_the_pictures_there(
    house: House, file_name: str, names: list[str]
) -> None:
    """Or begins with 1 again, if they stand elsewhere; no picture is overwritten."""
    house.save("a.yaml", "prompt: a\nseed: [77, 78, 99]\n")
    assert house.once(file_name=file_name)
    (house.outbox / house.listed()[-1]["file"]).unlink()
    house.ledger.unlink()
    house.save("a.yaml", "prompt: a\nseed: [77, 78, 5]\n")
    assert house.once(file_name=file_name)
    assert house.pictures() == sorted(f"a/{name}.png" for name in names)
