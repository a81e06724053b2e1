"""Each sentence under "What a save means": recipes in, pictures and log out."""

import os
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import pytest

from picowatch.errors import EngineDied
from picowatch.files.inside import blocks_of
from picowatch.inbox.scan import scan
from picowatch.outbox.listing import request_in
from tests.digest_engine import Batch
from tests.house import HeldEngine, House, wait_for


def test_a_saved_recipe_becomes_its_pictures(house: House) -> None:
    """Each image has a picture in the recipe's folder, with a number and its seed in the name.

    A copy is a recipe of its own.
    """
    path = house.save("pets/corgi.yaml", "prompt: a corgi\nseed: 7\ncount: 2\n")
    assert house.once()
    assert house.pictures() == ["pets/corgi/0001-7.png", "pets/corgi/0002-8.png"]
    shutil.copy(path, house.inbox / "b.yaml")
    assert house.once()
    assert house.pictures("b") == ["b/0001-7.png", "b/0002-8.png"]


def test_a_line_of_the_list_says_when_and_how_a_picture_was_rendered(house: House) -> None:
    """That includes a picture that a crash left out of the list; a recipe is not delayed by it."""
    house.save("corgi.yaml", "prompt: a corgi\nseed: 1\nsize: 64x128\nhires: {scale: 2}")
    before = int(time.time())
    assert house.once()
    (line,) = house.listed()
    assert before <= datetime.fromisoformat(line["finished"]).timestamp() <= time.time()
    assert [*line][:6] == ["file", "recipe", "finished", "seconds", "device", "size"]
    assert (line["seconds"], line["device"]) == (0.0, "digest")
    assert (line["width"], line["height"], line["size"]) == (64, 128, "64x128")

    (house.outbox / "images.jsonl").unlink()
    with closing(sqlite3.connect(house.outbox / ".picowatch/ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE images SET listed = 0")
    assert house.once()
    (again,) = house.listed()
    assert again | {"finished": ""} == line | {"finished": ""}
    written = datetime.fromtimestamp((house.outbox / line["file"]).stat().st_mtime, UTC)
    assert again["finished"] == written.isoformat(timespec="seconds")
    assert request_in(again) == house.chunk(line["file"]).request


# -- one save after the other: what the user does, and how many pictures there are then

TOUCHED, READ, PICTURES_DELETED = "a new time", "only read", "its pictures are deleted"
NOTHING_NEW = "saved, nothing new to render; its newest picture is a/"
FIXED = "prompt: a corgi\nseed: 1\n"


MORNING = "a corgi at sunrise\n"
ROWS = "prompt,seed\na corgi,1\n"
SHARED = "- {prompt: x, seed: 1, count: 3}\n- {prompt: x, seed: 2}\n"
STAR = "prompt: a star\nseed: 1\n"
SAVES = {
    "nothing again without a save": ("a.txt", [(MORNING, 1), (READ, 1)], ""),
    "comments alone are answered with a reason": (
        "a.txt", [("# a corgi\n# a star\n", 0)], "saved, 0 images queued, it says nothing to render"
    ),
    "so in YAML": (
        "a.yaml", [("# prompt: a corgi\n", 0)], "saved, 0 images queued, it says nothing to render"
    ),
    "entries that did not change keep their pictures": (
        "a.txt", [("a circle\na star\n", 2), ("a circle\na moon\n", 3)], "1 image queued, 1 kept"
    ),
    "a new row of a table is one more picture": (
        "a.csv", [(ROWS, 1), (f"{ROWS}a cat,2\n", 2)], "1 image queued, 1 kept"
    ),
    "the same line every morning and touch mean again": (
        "a.txt", [(MORNING, 1), (MORNING, 2), (TOUCHED, 3)],
        "saved, 1 image queued, random seeds drawn again",
    ),
    "fixed seeds are left alone": (
        "a.yaml", [(FIXED, 1), (TOUCHED, 1), (f"{FIXED}# a note\n", 1)],
        f"{NOTHING_NEW}0001-1.png",
    ),
    "a b a renders nothing the third time": (
        "a.yaml", [(FIXED, 1), (STAR, 2), (FIXED, 2)], f"{NOTHING_NEW}0001-1.png"
    ),
    "entries that overlap share their pictures": (
        "a.yaml", [(SHARED, 3), ("- {prompt: x, seed: 2}\n", 3)], NOTHING_NEW
    ),
    "rows that moved are the same, and touch means again": (
        "a.csv", [("prompt\na\nb\n", 2), ("prompt\nb\na\n", 2), (TOUCHED, 4)],
        "saved, nothing new to render; its newest picture is a/0001",
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


@pytest.mark.parametrize(("name", "saves", "said"), SAVES.values(), ids=SAVES)
def test_a_save_asks_for_what_is_new_in_it(
    house: House, name: str, saves: list[tuple[str, int]], said: str
) -> None:
    """Each save has a run of its own; no picture is rendered twice, and none vanishes."""
    path, seen = house.inbox / name, set[str]()
    for save, pictures in saves:
        match save:
            case "a new time":
                path.touch()
            case "only read":
                path.read_text()
            case "its pictures are deleted":
                for picture in house.pictures():
                    (house.outbox / picture).unlink()
                seen.clear()
            case _:
                house.save(name, save)
        assert house.once()
        assert len(house.pictures()) == pictures, f"after {save!r}"
        assert seen <= set(house.pictures())
        seen |= set(house.pictures())
    assert said in house.log()
    made = list(zip(house.prompts(), house.seeds(), strict=True))
    assert len(made) == len(set(made))
    assert house.error(name) is None


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
        return [one.detail[0].prompt if one.detail else one.prompt for one in house.requests()]

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


def test_a_new_priority_holds_for_what_was_requested_before(house: House) -> None:
    """Entries share images, then the highest counts; one in progress is tried again by it."""
    hold, tries = HeldEngine(house), []

    def die_once(batch: Batch) -> None:
        tries.append(batch[0].prompt)
        if tries == ["a"]:
            hold.wait_until_released()
            raise EngineDied("It was killed.")

    house.engine.before_batch = die_once
    shared = (
        "- {prompt: c, seed: 5, count: 3, priority: 1}\n"
        "- {prompt: c, seed: 6, priority: -1}\n- {prompt: c, seed: 7, priority: 2}\n"
    )
    with house.running(batch_size=1):
        house.save("a.yaml", "prompt: a\nseed: 1\npriority: 3\n")
        wait_for(lambda: tries, "the first try")
        for name, text in (
            ("b", "prompt: b\nseed: 5\ncount: 2\n"),
            ("c", "prompt: c\nseed: 5\ncount: 2\n"),
            ("c", shared),
            ("a", "prompt: a\nseed: 1\npriority: -1\n"),
        ):
            save(house, f"{name}.yaml", text)
        hold.release()
        wait_for(lambda: len(house.pictures()) == 6)
    started = [(one.prompt, one.seed) for batch in house.engine.batches for one in batch]
    queued = [("c", 7), ("c", 5), ("c", 6), ("b", 5), ("b", 6)]
    assert started == [("a", 1), *queued, ("a", 1)]


def test_compatible_images_of_other_recipes_ride_along(house: House) -> None:
    """The first queued image is in the next batch; an exact one runs alone."""
    hold = HeldEngine(house)
    with house.running(batch_size=4):
        house.save("a.txt", "in progress\n")
        hold.wait_until_held()
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
    """A newer save or a deletion cancels queued images and stops those in progress.

    They are not shown as "1 of 0" while they stop. An engine that is being started heeds only a
    later interrupt, which is not lost.
    """
    hold, told = HeldEngine(house), list[str]()

    def at_the_third_time() -> bool:
        told.append("again")
        return len(told) == 3

    house.engine.heeds = at_the_third_time
    with house.running(batch_size=1):
        path = house.save("a.txt", "first\nsecond\n")
        hold.wait_until_held()
        if what == "saved":
            house.save("a.txt", "other\n")
        else:
            path.unlink()
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


def test_another_folder_in_the_place_of_the_inbox_cancels_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unmounting it deletes nothing, even in the middle of a scan; queued images are rendered.

    Neither does the next start, as those recipes were never in the folder that is there now, and
    their return is no new save.
    """
    hold, is_time = HeldEngine(house), threading.Event()

    def replaced(root: Path, *rest: Any) -> Any:
        if is_time.is_set():
            is_time.clear()
            house.inbox.rename(house.folder / "unmounted")
            house.inbox.mkdir()
        return scan(root, *rest)

    monkeypatch.setattr("picowatch.inbox.inbox.scan", replaced)
    with house.running(batch_size=1):
        house.save("a.txt", "first\nsecond\n")
        hold.wait_until_held()
        is_time.set()
        wait_for(lambda: "is another folder now" in house.log(), "the new folder")
        save(house, "b.txt", "third\n")
    hold.release()
    (house.inbox / "b.txt").unlink()
    assert house.once()
    assert house.prompts() == ["first", "second"]
    assert "b.txt: deleted, 1 image cancelled" in house.log()
    house.inbox.rmdir()
    (house.folder / "unmounted").rename(house.inbox)
    assert house.once()
    assert len(house.pictures()) == 2
    assert "a.txt: deleted" not in house.log()


def mounted(inbox: Path) -> None:
    """Mount an empty disk in the place of the last one."""
    if os.path.ismount(inbox):
        subprocess.run(["umount", inbox], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "picowatch", inbox], check=True)


@pytest.mark.parametrize("is_running", [False, True])
def test_another_disk_at_the_inbox_cancels_nothing(house: House, is_running: bool) -> None:
    """The roots of both disks have the same inode, and here the same device number."""
    hold = HeldEngine(house)
    try:
        mounted(house.inbox)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root may mount disks")
    try:
        with house.running(batch_size=1):
            house.save("a.txt", "first\nsecond\n")
            hold.wait_until_held()
            if is_running:
                with house.seen_at_once():
                    mounted(house.inbox)
                wait_for(lambda: "is another folder now" in house.log(), "the other disk")
                hold.release()
                wait_for(lambda: len(house.listed()) == 2, "both pictures")
        hold.release()
        mounted(house.inbox)
        house.save("b.txt", "third\n")
        assert house.once()
    finally:
        subprocess.run(["umount", house.inbox], check=True)
    assert house.prompts() == ["first", "second", "third"]
    assert "deleted" not in house.log()


def test_an_upgrade_takes_no_recipe_for_deleted(house: House) -> None:
    """Earlier versions noted only the inbox's inode, which is that of other disks, too."""
    recipes = [house.save(f"{name}.txt", "a corgi\n") for name in "ab"]
    assert house.once()
    with closing(sqlite3.connect(house.outbox / ".picowatch/ledger.sqlite")) as ledger, ledger:
        ledger.execute("UPDATE recipes SET folder = ?", (f"{house.inbox.stat().st_ino}",))
    recipes[0].unlink()
    assert house.once()
    recipes[1].unlink()
    assert house.once()
    assert "a.txt: deleted" not in house.log()
    assert "b.txt: deleted" in house.log()
    assert len(house.pictures()) == 2


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
    house.save("pets/a.txt", "a star\n")
    house.once(when_done="archive")
    assert (house.outbox / "pets/a/a.txt").read_text() == "a corgi\n"
    assert (house.outbox / "pets/a/a-2.txt").read_text() == "a star\n"


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
    hold = HeldEngine(house)
    path = house.save("written.txt", "a corgi\n")
    with house.running(when_done=when_done):
        hold.wait_until_held()
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
    assert [(one.name, one.read_text().split("'")[1]) for one in files] == [
        ("b.txt.warning.txt", "yak"),
        ("c.txt.warning.txt", "zebra"),
    ]


def test_a_warning_has_its_file_though_that_of_an_equal_one_was_deleted(house: House) -> None:
    with house.running():
        for name in ("a", "b"):
            house.save(f"{name}.txt", "a zebra\n")
            file = house.outbox / f"{name}.txt.warning.txt"
            wait_for(file.exists, "the warning")
            file.unlink()


def test_defaults_come_from_the_nearest_folder(house: House) -> None:
    """Defaults apply field by field, and a change of them only from the next save on.

    So the error of a recipe that has a mistake above it says to save the recipe again, too.
    """
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
    assert [(one.steps, one.cfg_scale) for one in house.requests()] == [(6, 3), (7, 3)]


def test_what_changes_while_it_is_read_is_read_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recipes are read when they are complete, with the defaults of that time."""
    meanwhile = {"a.txt": "two\n", "_defaults.yaml": "steps: 7\n"}
    for name in meanwhile:
        house.save(name, {"a.txt": "one\n"}.get(name, "steps: 5\n"))

    def written_meanwhile(file: IO[bytes], most: int) -> Iterator[bytes]:
        yield from blocks_of(file, most)
        name = Path(f"/dev/fd/{file.fileno()}").resolve().name
        if text := meanwhile.pop(name, ""):
            house.save(name, text)

    monkeypatch.setattr("picowatch.inbox.files.blocks_of", written_meanwhile)
    monkeypatch.setattr("picowatch.inbox.inbox.defaults_for", lambda *_: [])  # for the priority
    assert house.once()
    assert (house.prompts(), house.error("a.txt"), meanwhile) == (["two"], None, {})
    assert house.requests()[0].steps == 7


def test_the_inbox_is_never_written(house: House) -> None:
    """A read-only inbox works."""
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
