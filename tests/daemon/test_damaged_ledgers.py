"""A ledger that is damaged or gone: nothing is lost and nothing is rendered twice."""

import json
import sqlite3
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from picowatch.daemon.recovery import open_ledger
from picowatch.ledger.rows import Counts
from picowatch.outbox.commands import Command, send, wait_for_answer
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.request import ImageRequest
from tests.house import PATIENCE, House, wait_for

LISTED = 3000  # pictures
RECIPES = {
    "fixed.yaml": "prompt: a corgi\nseed: 1\ncount: 4\n",
    "random.txt": "a star\na star\na {red|blue} circle\n",
    "pets/sweep.yaml": "prompt: a cat\nsweep: {steps: [2, 3]}\n",
    "variations.yaml": "prompt: a dog\nseed: 7\nsweep: {variation_strength: [0, 0.5]}\n",
    "more.yaml": "prompt: a dog\nvariation_strength: 0.5\ncount: 2\n",
}


def garbled(path: Path) -> None:
    """Pages in the middle of the file overwritten, as a broken disk leaves them."""
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"this is no database, " * 500),
    "cut in half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbled pages": garbled,
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}


def ledger(house: House) -> Path:
    return house.outbox / ".picowatch/ledger.sqlite"


def first_page_of(path: Path, table: str) -> int:
    with closing(sqlite3.connect(path)) as sql:
        found = sql.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,))
        return int(found.fetchone()[0])


def overwrite(path: Path, table: str) -> None:
    page = first_page_of(path, table)
    content = bytearray(path.read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xa5" * 4096
    path.write_bytes(content)


def replace_by_anothers(path: Path, version: int) -> None:
    """Another program's database, which counts its versions as well."""
    path.unlink()
    with closing(sqlite3.connect(path)) as sql:
        sql.execute("CREATE TABLE images (url TEXT)")
        sql.execute(f"PRAGMA user_version = {version}")
        sql.commit()


# Tables, and indexes that a start or a save reads.
PAGES = (
    "recipes",
    "saves",
    "facts",
    "images",
    "entries",
    "entry_images",
    "numbers",
    "tallies",
    "images_queue",
    "images_running",
    "images_failed",
    "images_unlisted",
    "sheets_due",
)
AT_REST: dict[str, Callable[[Path], object]] = {
    **{f"the page of {name}": partial(overwrite, table=name) for name in PAGES},
    "another program's": lambda path: replace_by_anothers(path, 0),
    "another program's, of a version": lambda path: replace_by_anothers(path, 2),
    "another program's, of a high version": lambda path: replace_by_anothers(path, 4000),
}


def as_after_a_crash(house: House) -> None:
    """A lock that nobody released: the ledger is read whole at the next start."""
    (house.outbox / ".picowatch/lock").write_text("99999999")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_rebuilt_from_the_pictures(house: House, damage: str) -> None:
    """What is rendered stays, random seeds included; the damaged file is kept."""
    for name, text in RECIPES.items():
        house.save(name, text)
    assert house.once()
    pictures = house.pictures()
    assert len(pictures) == 4 + 3 + (2 + 1) * 2 + 2, "each sweep has a sheet"
    DAMAGES[damage](ledger(house))
    as_after_a_crash(house)
    assert house.once()
    assert house.pictures() == pictures
    assert sorted(line["file"] for line in house.listed()) == [
        picture for picture in pictures if not picture.endswith("sheet.png")
    ]
    kept = list(ledger(house).parent.glob("ledger.sqlite.damaged-????????-??????"))
    assert len(kept) == (damage not in ("empty", "gone"))
    assert ("a new one is built from the pictures" in house.log()) == bool(kept)
    assert house.once()
    assert house.pictures() == pictures


def test_what_was_queued_in_a_damaged_ledger_is_rendered_with_the_same_seeds(house: House) -> None:
    """The seeds of all follow from one picture of a recipe."""
    house.save("a.yaml", "prompt: a corgi\ncount: 6\n")
    stop_after(house, 2)
    made = house.seeds()
    assert 1 <= len(made) < 6
    garbled(ledger(house))
    as_after_a_crash(house)
    assert house.once()
    first = min(made)
    assert sorted(house.seeds()) == list(range(first, first + 6))


def stop_after(house: House, pictures: int) -> None:
    """A daemon that ends in the middle of its queue."""
    ended = threading.Event()

    def hold(batch: Sequence[ImageRequest]) -> None:
        if len(house.pictures()) >= pictures:
            ended.wait(PATIENCE)

    house.engine.before_batch = hold
    with house.running(batch_size=1):
        wait_for(lambda: len(house.pictures()) >= pictures)
    ended.set()
    house.engine.before_batch = lambda batch: None


def test_a_picture_that_the_user_deleted_is_not_rendered_again(house: House) -> None:
    """It is still in the list."""
    house.save("a.yaml", "prompt: a corgi\nseed: 1\ncount: 3\n")
    assert house.once()
    (house.outbox / "a/0002-2.png").unlink()
    ledger(house).unlink()
    assert house.once()
    assert house.seeds() == [1, 3]


def test_a_picture_without_its_metadata_is_not_rendered_again(house: House) -> None:
    """A program that edits pictures leaves them out, but the picture is in the list."""
    house.save("a.txt", "a corgi\na star --seed 7\n")
    assert house.once()
    before = house.pictures()
    for file in before:
        with Image.open(house.outbox / file) as picture:
            picture.copy().save(house.outbox / file)
    ledger(house).unlink()
    assert house.once()
    assert house.pictures() == before
    assert len(house.listed()) == 2


def test_a_list_of_many_deleted_pictures_is_read_in_little_memory(house: House) -> None:
    """Its lines hold whole requests, of which a rebuild needs one at a time."""
    house.save("a.yaml", f"prompt: {'a corgi, ' * 100}\nseed: 1\n")
    assert house.once()
    (line,) = house.listed()
    (house.outbox / line["file"]).unlink()
    ledger(house).unlink()
    with (house.outbox / "images.jsonl").open("a") as listing:
        for seed in range(2, LISTED + 1):
            file = f"a/{seed:04}-{seed}.png"
            listing.write(json.dumps({**line, "file": file, "seed": seed}) + "\n")
    outbox = Outbox(house.settings())
    tracemalloc.start()
    restored = open_ledger(ledger(house), outbox, check=False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert restored.counts() == Counts(done=LISTED)
    restored.close()
    assert peak < LISTED * 1000


def test_a_new_save_after_the_damage_means_what_it_always_means(house: House) -> None:
    """`touch` draws random seeds again, changes are rendered."""
    path = house.save("a.txt", "a star\n")
    house.save("b.txt", "a cat --seed 5\n")
    assert house.once()
    ledger(house).unlink()
    assert house.once()
    assert len(house.pictures()) == 2
    path.touch()
    house.save("b.txt", "a dog --seed 5\n")
    assert house.once()
    assert sorted(house.prompts()) == ["a cat", "a dog", "a star", "a star"]


@pytest.mark.parametrize("damage", ["no database", "empty"])
def test_a_ledger_that_turns_out_damaged_in_the_middle_of_work(house: House, damage: str) -> None:
    """picowatch moves it aside, starts with a new one and renders the rest."""
    house.save("a.yaml", "prompt: a corgi\ncount: 4\n")
    hurt = False

    def hurt_once(batch: Sequence[ImageRequest]) -> None:
        nonlocal hurt
        if not hurt and len(house.pictures()) >= 2:  # the fourth batch at the latest
            hurt = True
            DAMAGES[damage](ledger(house))

    house.engine.before_batch = hurt_once
    assert house.run_once(batch_size=1) == 0
    assert hurt
    first = min(house.seeds())
    assert sorted(house.seeds()) == list(range(first, first + 4))
    assert "It is kept as ledger.sqlite.damaged-" in house.log()


def test_numbers_go_on_after_those_of_a_folder_that_only_differs_in_case(house: House) -> None:
    """Such folders share their numbers, so that they can be copied to a disk that knows no case."""
    for name, seed in (("a.yaml", 1), ("A.yaml", 5)):
        house.save(name, f"prompt: a corgi\nseed: {seed}\ncount: 2\n")
        assert house.once()
    if "A/0003-5.png" not in house.pictures():
        pytest.skip("this file system takes both names for one")
    (house.outbox / "A/0004-6.png").unlink()
    ledger(house).unlink()
    house.save("a.yaml", "prompt: a corgi\nseed: 9\n")
    assert house.once()
    assert house.pictures("a")[-1] == "a/0005-9.png"


@pytest.mark.parametrize("damage", AT_REST)
def test_a_ledger_that_was_damaged_at_rest_is_rebuilt(house: House, damage: str) -> None:
    """After a good end it is not read whole; what its first use shows is enough."""
    house.save("a.txt", "a star\n")
    assert house.run_once() == 0
    AT_REST[damage](ledger(house))
    house.save("b.txt", "a cat\n")
    for _ in range(2):
        assert house.run_once() == 0
        assert sorted(house.prompts()) == ["a cat", "a star"]
    assert len(list(ledger(house).parent.glob("ledger.sqlite.damaged-????????-??????"))) == 1


def test_a_lost_ledger_leaves_renamed_recipes_their_pictures(house: House) -> None:
    """Pictures say what their recipe was called; a new recipe of the old name is another one."""
    path = house.save("a.yaml", "prompt: a star\n")
    with house.running():
        wait_for(lambda: house.prompts() == ["a star"])
        for name in ("b.yaml", "c.yaml"):
            path = path.rename(house.inbox / name)
            wait_for(partial(says, house, f"renamed to {name}"))
        house.save("a.yaml", "prompt: a cat\n")
        wait_for(lambda: sorted(house.prompts()) == ["a cat", "a star"])
    ledger(house).unlink()
    assert house.once()
    assert sorted(house.prompts()) == ["a cat", "a star"]
    path.touch()
    assert house.once()
    assert sorted(house.prompts()) == ["a cat", "a star", "a star"]


@pytest.mark.parametrize(
    "more", ["count: 3", "count: 2\nsweep: {steps: [3, 4]}", "count: 3\nsweep: {steps: [3, 4, 5]}"]
)
def test_a_lost_ledger_leaves_random_draws_all_of_their_images(house: House, more: str) -> None:
    """Count x sweep: neighbouring seeds have some of the same images, but not all."""
    house.save("a.yaml", f"prompt: a star in a {{red|blue}} sky\n{more}\n")
    assert house.once()
    before = house.pictures()
    for _ in "twice":
        ledger(house).unlink()
        assert house.once()
        assert house.pictures() == before


def test_a_lost_ledger_leaves_a_renamed_recipe_its_contact_sheet(house: House) -> None:
    """Sheets, too, say what their recipe was called."""
    path = house.save("a.yaml", "prompt: a star\nseed: 1\ncount: 2\ngrid: true\n")
    with house.running():
        wait_for(lambda: len(house.pictures()) == 3, "the pictures and their sheet")
        path.rename(house.inbox / "b.yaml")
        wait_for(partial(says, house, "renamed to b.yaml"))
    before = house.pictures()
    ledger(house).unlink()
    assert house.once()
    assert house.pictures() == before


def test_a_lost_ledger_passes_by_what_others_wrote_into_the_memos(house: House) -> None:
    """Recipes are rendered as if it were not there."""
    assert house.once()
    memos = [{"cancelled": "a.txt", "stamp": "yesterday"}, {"cancelled": "b.txt", "stamp": "1"}]
    path = house.outbox / ".picowatch/memos.jsonl"
    path.write_text("\n".join(map(json.dumps, [*memos, ["paused"]])) + '\n{"paused": true')
    ledger(house).unlink()
    for name in ("a.txt", "b.txt"):
        house.save(name, "a star\n")
    assert house.once()
    assert house.prompts() == ["a star", "a star"]


def says(house: House, words: str) -> bool:
    return words in house.log()


def tell(house: House, command: Command) -> None:
    place = send(house.outbox, command)
    wait_for(lambda: (answer := wait_for_answer(place, 0.0)) and answer.done)


def test_a_lost_ledger_leaves_a_pause_and_what_was_cancelled(house: House) -> None:
    """What was saved again since is rendered, once the work continues."""
    with house.running():
        tell(house, Command("pause"))
        for name in ("a.txt", "b.txt", "c.txt"):
            house.save(name, f"{name}\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3)
        for name in ("a.txt", "b.txt"):
            tell(house, Command("cancel", name))
        (house.inbox / "b.txt").rename(house.inbox / "d.txt")
        wait_for(lambda: "renamed to d.txt" in house.log())
    ledger(house).unlink()
    (house.inbox / "a.txt").touch()
    with house.running():
        wait_for(lambda: house.log().count("saved, ") == 6)
        assert house.status()["paused"]
        tell(house, Command("resume"))
        wait_for(lambda: len(house.prompts()) == 2)
    assert sorted(house.prompts()) == ["a.txt", "c.txt"]


@pytest.mark.parametrize("known", ["", "queued", "cancelled"])
def test_a_ledger_from_a_backup_beside_newer_pictures_renders_nothing_twice(
    house: House, known: str
) -> None:
    """It has never heard of them, has them in its queue, or one of them had been cancelled then."""
    house.save("corgi.yaml", RECIPES["fixed.yaml"])
    assert house.once()
    backup = ledger(house).read_bytes()
    house.save("random.txt", RECIPES["random.txt"])
    later = house.save("later.yaml", "prompt: a cat\nseed: 9\n")
    if known:
        send(house.outbox, Command("pause"))
        assert not house.once()
        if known == "cancelled":
            send(house.outbox, Command("cancel", later.name))
            assert not house.once()
            later.touch()
        backup = ledger(house).read_bytes()
        send(house.outbox, Command("resume"))
    assert house.once()
    pictures = house.pictures()
    assert len(pictures) == 8
    ledger(house).write_bytes(backup)
    house.engine.batches.clear()
    for _ in "twice":
        assert house.once()
        assert (house.started(), house.pictures()) == ([], pictures)
    assert house.log().count("is older than the pictures, as from a backup") == 1


def test_a_deleted_picture_that_is_requested_again_does_not_make_its_ledger_a_backup(
    house: House,
) -> None:
    """Delete x save x restart: the newest line of the list is one that waits to be rendered."""
    path = house.save("a.yaml", "prompt: a star\nseed: 1\n")
    with house.running():
        wait_for(house.pictures)
        (house.outbox / house.pictures()[0]).unlink()
        tell(house, Command("pause"))
        path.touch()
        wait_for(lambda: house.status()["images"]["queued"] == 1)
    with house.running():
        tell(house, Command("resume"))
        wait_for(house.pictures, "the picture again")
    assert "is older than the pictures" not in house.log()


@pytest.mark.parametrize(
    ("file_name", "names"),
    [
        ("{seed}-{number:04}", ["77-0001", "78-0002", "5-0004"]),
        ("{recipe} {number}", ["a 1", "a 2", "a 4"]),
        ("{width}x{height}-{number}", ["128x128-1", "128x128-2", "128x128-4"]),
        ("{steps}.{number}.{cfg_scale}", ["24.1.4.0", "24.2.4.0", "24.4.4.0"]),
        ("{number:04}-{seed}", ["0001-77", "0002-78", "0004-5"]),
    ],
)
def test_a_lost_ledger_knows_the_numbers_in_names_wherever_they_stand(
    house: House, file_name: str, names: list[str]
) -> None:
    """Not a seed or a width in front of it; and those of deleted pictures stay used."""
    house.save("a.yaml", "prompt: a\nseed: [77, 78, 99]\n")
    assert house.once(file_name=file_name)
    (house.outbox / house.listed()[-1]["file"]).unlink()
    ledger(house).unlink()
    house.save("a.yaml", "prompt: a\nseed: [77, 78, 5]\n")
    assert house.once(file_name=file_name)
    assert house.pictures() == sorted(f"a/{name}.png" for name in names)
