"""Each sentence under "What a save means": recipes in, pictures and log out."""

import errno
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO
from unittest.mock import Mock

import pytest
from PIL import Image

from picowatch.commands.make import make
from picowatch.errors import EngineDied
from picowatch.files.safe_paths import blocks_of
from picowatch.ledger.rows import SizeAndTime
from picowatch.outbox.listing import request_in
from picowatch.outbox.outbox import Outbox
from tests.fault_points import preceded_by, refusing, wrap
from tests.house import HeldEngine, House, error_files, wait_for


def test_a_line_of_the_list_says_when_and_how_a_picture_was_rendered(house: House) -> None:
    """A picture that a crash left out is listed, though another program may have written it."""
    house.save("corgi.yaml", "prompt: a corgi\nseed: 1\nsize: 64x128\nhires: {scale: 2}")
    before = int(time.time())
    assert house.once()
    (line,) = house.listed()
    assert before <= datetime.fromisoformat(line["finished"]).timestamp() <= time.time()
    assert [*line][:6] == ["file", "recipe", "finished", "seconds", "device", "size"]
    assert (line["seconds"], line["device"]) == (0.0, "digest")
    assert (line["width"], line["height"], line["size"]) == (64, 128, "64x128")

    def leave_it_out() -> None:
        (house.outbox / "images.jsonl").unlink()
        with closing(sqlite3.connect(house.ledger)) as ledger, ledger:
            ledger.execute("UPDATE images SET listed = 0")

    leave_it_out()
    assert house.once()
    (again,) = house.listed()
    assert again | {"finished": ""} == line | {"finished": ""}
    written = datetime.fromtimestamp((house.outbox / line["file"]).stat().st_mtime, UTC)
    assert again["finished"] == written.isoformat(timespec="seconds")
    assert request_in(again) == house.chunk(line["file"]).request
    leave_it_out()
    Image.new("RGB", (8, 8)).save(house.outbox / line["file"])
    assert house.once()
    assert f"{line['file']} was damaged before it was listed" in house.log()


# -- one save after the other: what the user does, and how many pictures there are then

TOUCHED, READ, PICTURES_DELETED = "a new time", "only read", "its pictures are deleted"
NOTHING_NEW = "saved, nothing new to render; its newest picture is a/"
FIXED = "prompt: a corgi\nseed: 1\n"


MORNING = "a corgi at sunrise\n"
ROWS = "prompt,seed\na corgi,1\n"
SHARED = "- {prompt: x, seed: 1, count: 3}\n- {prompt: x, seed: 2}\n"
STAR = "prompt: a star\nseed: 1\n"
URGENT = "---\npriority: 2\n---\n"
SAVES = {
    "nothing again without a save": ("a.txt", [(MORNING, 1), (READ, 1)], ""),
    "comments alone are answered with a reason": (
        "a.txt", [("# a corgi\n# a star\n", 0)], "saved, 0 images queued, it says nothing to render"
    ),
    "entries that did not change keep their pictures": (
        "a.txt", [("a circle\na star\n", 2), ("a circle\na moon\n", 3)], "1 image queued, 1 kept"
    ),
    "a new row of a table is one more picture": (
        "a.csv", [(ROWS, 1), (f"{ROWS}a cat,2\n", 2)], "1 image queued, 1 kept"
    ),
    "the same line every morning and touch mean again": (
        "a.txt", [(MORNING, 1), (MORNING, 2), (TOUCHED, 3)],
        "saved, 1 image queued, random seeds drawn again because no request changed",
    ),
    "a priority alone is no new picture, and touch means again": (
        "a.txt", [(MORNING, 1), (f"{URGENT}{MORNING}", 1), (TOUCHED, 2), (MORNING, 2)], NOTHING_NEW
    ),
    "fixed seeds are left alone": (
        "a.yaml", [(FIXED, 1), (TOUCHED, 1), (f"{FIXED}# a note\n", 1)],
        f"{NOTHING_NEW}0001-1.png",
    ),
    "a b a renders nothing the third time": (
        "a.yaml", [(FIXED, 1), (STAR, 2), (FIXED, 2)], f"{NOTHING_NEW}0001-1.png"
    ),
    "the newest is that which was made last": (
        "a.yaml", [(FIXED, 1), (f"{FIXED[:-2]}[4, 1]\n", 2), (TOUCHED, 2)],
        f"{NOTHING_NEW}0002-4.png",
    ),
    "entries that overlap share their pictures": (
        "a.yaml", [(SHARED, 3), ("- {prompt: x, seed: 2}\n", 3)], NOTHING_NEW
    ),
    "rows that moved are the same, and touch means again": (
        "a.csv", [("prompt\na\nb\n", 2), ("prompt\nb\na\n", 2), (TOUCHED, 4)],
        f"{NOTHING_NEW}0002",
    ),
    "equal lines are entries of their own": (
        "a.txt", [(MORNING * 2, 2), (MORNING, 2)], NOTHING_NEW
    ),
    "a deleted picture comes back only with a save": (
        "a.yaml", [(FIXED, 1), (PICTURES_DELETED, 0), (TOUCHED, 1)],
        "saved, 1 image queued, 1 whose picture is gone",
    ),
    "a deleted picture of a random seed does not": (
        "a.txt", [(MORNING, 1), (PICTURES_DELETED, 0), (f"{MORNING}a star\n", 1)],
        "1 image queued, 1 kept",
    ),
    "no deleted picture is called the newest": (
        "a.txt", [(f"{MORNING}a star\n", 2), (PICTURES_DELETED, 0), ("a star\n", 0)],
        "saved, nothing new to render; its pictures were deleted",
    ),
    "an empty file is not ready yet": ("a.txt", [(MORNING, 1), ("", 1), ("\ufeff \n\n", 1)], ""),
}  # fmt: skip


def save_each(house: House, name: str, saves: list[tuple[str, int]]) -> None:
    """Do each of these, with a run of its own; no picture vanishes by itself."""
    path, before = house.inbox / name, set[str]()
    for save, pictures in saves:
        match save:
            case "a new time":
                path.touch()
            case "only read":
                path.read_text()
            case "its pictures are deleted":
                for picture in house.pictures():
                    (house.outbox / picture).unlink()
            case _:
                house.save(name, save)
        house.once()
        there = {picture for picture in house.pictures() if "sheet" not in picture}
        assert len(there) == pictures, f"after {save!r}"
        assert before <= there or save == PICTURES_DELETED
        before = there


@pytest.mark.parametrize(("name", "saves", "said"), SAVES.values(), ids=SAVES)
def test_a_save_asks_for_what_is_new_in_it(
    house: House, name: str, saves: list[tuple[str, int]], said: str
) -> None:
    save_each(house, name, saves)
    assert said in house.log()
    made = list(zip(house.prompts(), house.seeds(), strict=True))
    assert len(made) == len(set(made))
    assert house.error(name) is None


# -- a changed entry without a seed: it keeps the seed of the pictures that it requests again.
# tests/meetings varies counts and steps; here is what else an entry may say.

CAT, CATS = "prompt: a cat\n", "prompt: __animals__ in {red|blue}\n"
STEPS = f"{CAT}sweep: {{steps: [2, 3, 4]}}\n"
VARIED = "prompt: a cat\nseed: 7\nsweep: {variation_strength: [0, 0.2]}\n"
GROWN = {
    "with wildcards": ([(f"{CATS}count: 3\n", 3), (f"{CATS}count: 5\n", 5)], 1),
    "a value more at the beginning": ([(STEPS, 3), (STEPS.replace("[2", "[1, 2"), 4)], 1),
    "a value and a count more": (
        [(STEPS, 3), (f"{STEPS.replace('4]', '4, 5]')}count: 2\n", 8)], 1
    ),
    "an axis more": (
        [(f"{STEPS}cfg_scale: 7\n", 3), (STEPS.replace("]", "], cfg_scale: [7, 8]"), 6)], 1
    ),
    "a random variation": (
        [(f"{CAT}variation_strength: 0.2\nseed: 7\n", 1),
         (f"{CAT}variation_strength: 0.2\nseed: 7\ncount: 2\n", 2)], 1
    ),
    "a variation's strengths": ([(VARIED, 2), (VARIED.replace("]", ", 0.4]"), 3)], 2),
    "entries fewer above them": (
        [("- {prompt: a dog}\n" * 9 + "- {prompt: a cat}\n" * 2, 11),
         ("- {prompt: a cat, count: 2}\n" * 2, 13)], 11
    ),
    "another format, and a count more": (
        [(f"{CAT}count: 2\n", 2), (f"{CAT}count: 2\nformat: webp\n", 4),
         (f"{CAT}count: 3\nformat: webp\nquality: 50\n", 7), (CAT, 7)], 1
    ),
    "each of equal entries": (
        [("- {prompt: a cat}\n" * 2, 2), ("- {prompt: a cat, count: 2}\n" * 2, 4)], 2
    ),
    "touch draws all again": (
        [(CAT, 1), (f"{CAT}count: 2\n", 2), (TOUCHED, 4), (f"{CAT}count: 3\n", 5)], 2
    ),
    "no seed any more is another seed": ([(f"{CAT}seed: 5\n", 1), (f"{CAT}count: 2\n", 3)], 2),
    "what was deleted stays deleted": (
        [(f"{CAT}count: 2\n", 2), (PICTURES_DELETED, 0), (f"{CAT}count: 3\n", 1)], 1
    ),
    "after an invalid save": (
        [(CAT, 1), ("stesp: 3\n", 1), (f"{CAT}count: 2\n", 2)], 1
    ),
}  # fmt: skip


@pytest.mark.parametrize(("saves", "draws"), GROWN.values(), ids=GROWN)
def test_a_changed_entry_keeps_the_seed_of_what_it_requests_again(
    house: House, saves: list[tuple[str, int]], draws: int
) -> None:
    """Its pictures stay, and new ones have their seed or the next: so many seeds were drawn."""
    (house.models / "wildcards").mkdir()
    (house.models / "wildcards/animals.txt").write_text("a corgi\na cat\nan owl\n")
    save_each(house, "a.yaml", saves)
    assert drawn_seeds(house) == draws


def drawn_seeds(house: House) -> int:
    """Return how many seeds were written or drawn; each may have some that follow it."""
    found: list[set[int]] = []
    for request in map(house.request, filter(lambda name: "sheet" not in name, house.pictures())):
        seed = request.seed if request.variation_seed is None else request.variation_seed
        near = [seeds for seeds in found if {seed - 1, seed, seed + 1} & seeds]
        found = [seeds for seeds in found if seeds not in near] + [{seed}.union(*near)]
    return len(found)


@pytest.mark.parametrize("field", ["prompt", "prompt: a\n  detail: {find: face, prompt"])
def test_a_changed_wildcard_file_applies_at_the_next_save(house: House, field: str) -> None:
    """Even with fixed seeds: only images whose draws have changed are rendered."""
    file = house.models / "wildcards/animals.txt"
    file.parent.mkdir(parents=True)
    file.write_text("a corgi\na cat\n")
    ends = "}" if "{" in field else ""
    text = f"- {field}: __animals__{ends}\n  seed: [1, 2, 3, 4]\n- prompt: a star\n"
    path = house.save("a.yaml", text)

    def prompts() -> list[str]:
        return [
            request.detail[0].prompt if request.detail else request.prompt
            for request in house.requests()
        ]

    house.once()
    before = prompts()
    assert {*before} == {"a corgi", "a cat", "a star"}
    file.write_text("a corgi\nan owl\n")
    house.once()
    assert prompts() == before
    path.touch()
    house.once()
    new = prompts()[len(before) :]
    assert new == ["an owl"] * before.count("a cat")
    path.touch()
    house.once()
    assert len(house.pictures()) == len(before) + len(new) + 1


# -- saves while a picture is in progress: in which order the rest is started

MEANWHILE = {
    "a queued entry keeps its position": (
        [("a.txt", "first\nsecond\nthird\n"), ("a.txt", "new\nfirst\nsecond\nthird\n")],
        "1 image queued, 3 kept", ["first", "second", "third", "new"],
    ),
    "an invalid save renders and cancels nothing": (
        [("a.txt", "first\nsecond\n"), ("a.txt", "first\nthird --stesp 10\n")],
        "unknown flag", ["first", "second"],
    ),
    "higher priority goes first": (
        [("a.txt", "in progress\n"), ("cron.txt", "night 1\nnight 2\n"),
         ("live/_defaults.yaml", "priority: 5\n"),
         ("live/now.yaml", "prompt: now\npriority: 10\n"), ("live/soon.yaml", "prompt: soon\n")],
        "live/soon.yaml: saved", ["in progress", "now", "soon", "night 1", "night 2"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("saves", "said", "started"), MEANWHILE.values(), ids=MEANWHILE)
def test_what_is_saved_meanwhile(
    house: House, saves: list[tuple[str, str]], said: str, started: list[str]
) -> None:
    """Each image is started once, in this order, by one engine."""
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        for name, text in saves:
            save(house, name, text)
            hold.wait_until_held()
        hold.release()
        wait_for(lambda: house.started() == started, f"{started}")
        wait_for(lambda: len(house.listed()) == len(started), "the pictures")
    assert said in house.log()
    assert house.once() or house.error("a.txt")
    assert house.started() == started


def save(house: House, name: str, text: str) -> None:
    """Save a recipe, and wait until it is accepted or refused."""

    def answers() -> int:
        return house.log().count(": saved") + house.log().count("error inbox/")

    before = answers()
    house.save(name, text)
    wait_for(lambda: "_defaults" in name or answers() > before, name)


def test_a_recipe_that_comes_back_has_its_contact_sheet(house: House) -> None:
    """Also after a restart without it, and an hour of tidying up."""
    text = "prompt: a cat\nseed: 1\nsweep: {steps: [2, 3]}\n"
    for _ in range(2):
        path = house.save("a.yaml", text)
        house.once()
        assert house.pictures() == ["a/0001-1.png", "a/0002-1.png", "a/0003-sheet.png"]
        path.unlink()
        for _ in range(2):
            house.once()


def test_compatible_images_of_other_recipes_ride_along(house: House) -> None:
    """The first queued image is in the next batch; an exact one runs alone."""
    with house.held("a.txt", "in progress\n", batch_size=4) as hold:
        save(house, "b.txt", "b1\nb2 --steps 9\nb3\nb4 --exact true\n")
        save(house, "c.txt", "c1\n")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 6)
    batches = [sorted(request.prompt for request in batch) for batch in house.engine.batches]
    assert sorted(batches) == [["b1", "b3", "c1"], ["b2"], ["b4"], ["in progress"]]


@pytest.mark.parametrize(
    ("what", "said", "left"),
    [
        ("saved", "a.txt: saved, 1 image queued, 2 cancelled", ["other"]),
        ("deleted", "a.txt: deleted, 2 images cancelled", []),
    ],
)
def test_what_nobody_requests_any_more_is_cancelled_and_stopped(
    house: House, what: str, said: str, left: list[str]
) -> None:
    """Those queued and those in progress; an engine that starts heeds a later interrupt."""
    told: list[str] = []

    def at_the_third_time() -> bool:
        told.append("again")
        return len(told) == 3

    house.engine.heeds = at_the_third_time
    with house.held("a.txt", "first\nsecond\n", batch_size=1) as hold:
        if what == "saved":
            house.save("a.txt", "other\n")
        else:
            (house.inbox / "a.txt").unlink()
        wait_for(lambda: said in house.log(), said)
        wait_for(lambda: len(told) >= 3, "its stop")
        hold.release()
        wait_for(lambda: house.prompts() == left, "what is left")
    assert house.once()
    assert house.started() == ["first", *left]
    assert house.prompts() == left
    assert all(status.of or not status.recipe for status in house.console.shown)
    assert house.log().count("stopped: no image of its batch is requested") == 1


# -- deleted, renamed, unmounted


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("dies", "It was killed."),
        ("deleted", "stopped: no image of its batch"),
        ("cannot be written", "a/0001-"),
    ],
)
def test_a_recipe_that_is_renamed_while_it_renders_has_its_new_name_everywhere(
    house: House, monkeypatch: pytest.MonkeyPatch, end: str, said: str
) -> None:
    """In the status, where its images in progress are not done yet, and in the log."""

    def shown() -> list[object]:
        status = house.status()
        engines = [engine["recipe"] for engine in status["engines"]]
        return [*map(status.get, ("recipe", "image", "last_image", "of")), *engines]

    recipe = "prompt: a corgi\nsize: 64x64\ncount: 24\n"
    with house.held("a.yaml", recipe, batch_size=8) as hold:
        wait_for(lambda: shown() == ["a.yaml", 1, 8, 24, "a.yaml"], "the batch")
        path = (house.inbox / "a.yaml").rename(house.inbox / "b.yaml")
        wait_for(lambda: house.status()["recipe"] == "b.yaml", "its new name")
        assert shown() == ["b.yaml", 1, 8, 24, "b.yaml"]
        assert house.status()["share"] < 0.33, "eight are not done yet"
        if end == "deleted":
            path.unlink()
        elif end == "dies":
            house.engine.after_step = Mock(side_effect=EngineDied("It was killed."))
            hold.release()
        else:
            monkeypatch.setattr(Outbox, "publish", refusing(errno.EINVAL))
            hold.release()
        wait_for(lambda: f"b.yaml: {said}" in house.log(), "the log")
        hold.release()
    assert f"a.yaml: {said}" not in house.log()


# -- `when_done`


def test_done_recipes_are_archived_if_set(house: House) -> None:
    """`when_done: archive` moves a recipe to its pictures; a failed or invalid one stays."""
    house.save("pets/a.txt", "a corgi\n")
    bad = house.save("bad.txt", "a corgi --stesp 1\n")
    house.once(when_done="archive")
    assert not (house.inbox / "pets/a.txt").exists()
    assert (house.outbox / "pets/a/a.txt").read_text() == "a corgi\n"
    assert bad.exists()
    house.once(when_done="archive")
    house.save("pets/a.txt", "a corgi\n")
    house.once(when_done="archive")
    assert len(house.pictures()) == 2, "dropped again: drawn anew"
    assert not (house.outbox / "pets/a/a-2.txt").exists(), "the same bytes are kept once"
    house.save("pets/a.txt", "a corgi --count 2\n")
    house.once(when_done="archive")
    assert drawn_seeds(house) == 3, "what was archived gives no seed"
    assert (house.outbox / "pets/a/a.txt").read_text() == "a corgi\n"
    assert (house.outbox / "pets/a/a-2.txt").read_text() == "a corgi --count 2\n"


def test_warnings_of_an_archived_recipe_stay_after_a_restart(house: House) -> None:
    house.save("a.txt", "a zebra\n")
    for _ in range(2):
        assert house.once(when_done="archive")
        assert (house.outbox / "a.txt.warning.txt").exists()
    assert not (house.inbox / "a.txt").exists()


def test_an_archived_recipe_is_not_taken_for_an_error_file(house: House) -> None:
    """Whatever its name and its text: it exists nowhere else."""
    for ending in ("error", "warning"):
        house.save(f"notes.{ending}.txt", "inbox/corgi.yaml at the beach --size 64x64\n")
    for _ in "archived", "started again":
        assert house.once(when_done="archive")
    texts = [path.read_text() for path in house.outbox.glob("notes*/*.txt")]
    assert texts == ["inbox/corgi.yaml at the beach --size 64x64\n"] * 2


@pytest.mark.parametrize("name", ["a.yaml", f"{'ä' * 125}.yaml"])
def test_done_recipes_are_deleted_if_set(house: House, name: str) -> None:
    """`when_done: delete` also applies if there was nothing new to render, and to long names."""
    for _ in range(2):
        path = house.save(name, "prompt: a corgi\nseed: 1\n")
        house.once(when_done="delete")
        assert not path.exists()
    assert len(house.pictures()) == 1


@pytest.mark.parametrize("when_done", ["archive", "delete"])
def test_a_recipe_that_an_editor_has_open_is_not_taken_away(house: House, when_done: str) -> None:
    """What the editor writes then is a save like any other."""
    path = house.save("written.txt", "a corgi\n")
    with house.held(when_done=when_done) as hold:
        with subprocess.Popen(
            ["sh", "-c", 'exec 3<>"$0"; echo open; read line; echo "$line" >&3', path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as editor:
            assert editor.stdout
            assert editor.stdout.readline() == "open\n"
            hold.release()
            wait_for(lambda: len(house.listed()) == 1, "the first picture")
            house.save("other.txt", "a star\n")
            wait_for(lambda: not (house.inbox / "other.txt").exists(), "the removal of another")
            assert path.exists()
            editor.communicate("a moon!\n")
        wait_for(lambda: "a moon!" in house.prompts("written"), "the save in its file")
        wait_for(lambda: not list(house.inbox.iterdir()), "the removal")


# -- what else a save may meet


def test_the_same_warning_of_many_recipes_is_one_line(house: House) -> None:
    """Each recipe has it in a file of its own name, too, which goes with the warning."""
    for name in ("a", "b", "c"):
        house.save(f"{name}.txt", "a zebra\n")
    assert house.once()
    assert house.log().count("the demo model does not know 'zebra'") == 1
    assert ".txt and 2 more: the demo model does not know 'zebra'" in house.log()
    house.save("a.txt", "a corgi\n")
    house.save("b.txt", "a yak\n")
    assert house.once()
    files = sorted(house.outbox.glob("*.warning.txt"))
    assert [(file.name, file.read_text().split("'")[1]) for file in files] == [
        ("b.txt.warning.txt", "yak"),
        ("c.txt.warning.txt", "zebra"),
    ]


def test_defaults_come_from_the_nearest_folder(house: House) -> None:
    """A change of them holds from the next save on, as the error of a recipe below says."""
    house.save("_defaults.yaml", "steps: 5\ncfg_scale: 3\nseed: 1\n")
    house.save("pets/_defaults.yaml", "stesp: 6\n")
    path = house.save("pets/a.txt", "a corgi\n")
    assert not house.once()
    error = house.error("pets/a.txt") or ""
    assert "inbox/pets/_defaults.yaml, line 1, column 1" in error
    assert error.endswith(
        "Nothing in pets/a.txt was run. Fix pets/_defaults.yaml, then save pets/a.txt again.\n"
    )
    for steps in (6, 7):
        house.save("pets/_defaults.yaml", f"steps: {steps}\n")
        assert house.once()
        assert len(house.pictures()) == steps - 6
        path.touch()
        assert house.once()
    assert [(request.steps, request.cfg_scale) for request in house.requests()] == [(6, 3), (7, 3)]


def test_what_changes_while_it_is_read_is_read_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes are read when they are complete, with the defaults of that time."""
    meanwhile = {"a.txt": "two\n", "_defaults.yaml": "steps: 7\n"}
    for name in meanwhile:
        house.save(name, {"a.txt": "one\n"}.get(name, "steps: 5\n"))

    def written_meanwhile(file: IO[bytes], *most: int) -> Iterator[bytes]:
        yield from blocks_of(file, *most)
        name = Path(f"/dev/fd/{file.fileno()}").resolve().name
        if text := meanwhile.pop(name, ""):  # in one step: a single run waits for no empty file
            house.save(f".{name}", text).rename(house.inbox / name)

    monkeypatch.setattr("picowatch.files.safe_paths.blocks_of", written_meanwhile)
    monkeypatch.setattr("picowatch.inbox.inbox.Inbox.priority", lambda *_: 0)
    assert house.once()
    assert (house.prompts(), house.error("a.txt"), meanwhile) == (["two"], None, {})
    assert house.requests()[0].steps == 7


def test_what_is_refused_for_a_while_is_not_drawn_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what could not be read, nor a recipe whose picture was away during `make`."""
    house.save("r/a.yaml", "prompt: a corgi\ncount: 2\nimage: pose.png\nsize: 64x64\n")
    house.save("p/_pictures.yaml", "prompt: a fox\nsize: 64x64\n")
    pose, photo = house.draw("r/pose.png"), house.draw("p/1.png")
    assert house.once()
    before = house.pictures()
    pose.rename(house.folder / "away.png")
    assert make(house.settings(), [house.inbox / "r"], house.make_engine) == 1
    (house.folder / "away.png").rename(pose)
    assert house.once() and house.pictures() == before

    denied = refusing(errno.EACCES, lambda root, path: path in ("r/a.yaml", "p/1.png"))
    for readable in (False, True):
        for path in (house.inbox / "r/a.yaml", photo):
            path.chmod(0o640 if readable else 0o600)
        with monkeypatch.context() as patch:
            if not readable:
                wrap("picowatch.files.safe_paths:open_below", preceded_by(denied), patch.setattr)
            assert house.once() is readable
        assert error_files(house.outbox) == (set() if readable else {"r/a.yaml", "p/1.png"})
    assert house.pictures() == before
    photo.touch()
    (house.inbox / "r/a.yaml").touch()
    assert house.once() and len(house.pictures()) == 5, "a save of the recipe"


def test_the_inbox_is_never_written(house: House) -> None:
    house.save("a.txt", "a corgi\n")
    house.inbox.chmod(0o500)
    try:
        before = {path.name: path.stat().st_mtime_ns for path in house.inbox.iterdir()}
        assert house.once()
        after = {path.name: path.stat().st_mtime_ns for path in house.inbox.iterdir()}
    finally:
        house.inbox.chmod(0o700)
    assert before == after
    assert len(house.pictures()) == 1


@pytest.mark.usefixtures("often")
def test_a_young_file_is_read_once_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAT's times have steps of two seconds, which Windows rounds up."""
    step = 2_000_000_000

    def coarse(status: os.stat_result) -> SizeAndTime:
        return SizeAndTime(status.st_size, -(-status.st_mtime_ns // step) * step, 1)

    monkeypatch.setattr("picowatch.inbox.folder._size_and_time", coarse)
    path = house.save("a.txt", "one\n")
    with house.running():
        wait_for(lambda: house.prompts() == ["one"], "the first")
        before = path.stat()
        path.write_text("two\n")
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
        wait_for(lambda: house.prompts() == ["one", "two"], "the second")
