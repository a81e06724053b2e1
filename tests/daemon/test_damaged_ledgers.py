"""A ledger that is damaged or gone: nothing is lost and nothing is rendered twice."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from PIL import Image

from tests.digest_engine import Batch
from tests.house import House

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


def ledger(house: House) -> Path:
    return house.outbox / ".picowatch/ledger.sqlite"


def kept(house: House) -> list[Path]:
    """Return damaged ledgers that were set aside."""
    return sorted(ledger(house).parent.glob("ledger.sqlite.damaged-????????-??????"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_ledger_is_rebuilt_from_the_list(house: House, damage: str) -> None:
    """Rendered pictures stay, random seeds included; the damaged file is kept.

    So do those that were deleted, or edited by a program that kept no metadata.
    """
    for name, text in RECIPES.items():
        house.save(name, text)
    assert house.once()
    pictures = [one for one in house.pictures() if not one.endswith("sheet.png")]
    assert len(pictures) == 4 + 3 + 2 + 2 + 2 + 9
    DAMAGES[damage](ledger(house))
    house.engine.batches.clear()
    (house.outbox / pictures[0]).unlink()
    Image.new("RGB", (64, 64)).save(house.outbox / pictures[-1])
    for _ in "twice":
        assert house.once()
        assert house.started() == []
    assert sorted(line["file"] for line in house.listed()) == pictures
    assert len(kept(house)) == (damage not in ("empty", "gone"))
    assert ("a new one is built from images.jsonl" in house.log()) == bool(kept(house))


@pytest.mark.parametrize(
    ("before", "after", "new"),
    [
        ("a star\na {red|blue} dog\n", "a moon\na star\na {red|blue} dog\n", ["a moon"]),
        ("a star\na star\n", "a star\na star\na star\n", ["a star"]),
        ("a star\na moon\n", "a moon\n", []),
    ],
)
def test_a_new_ledger_knows_entries_wherever_they_are_in_the_file(
    house: House, before: str, after: str, new: list[str]
) -> None:
    """A line of images.jsonl says which entry its picture is of, and which of equal ones."""
    house.save("a.txt", before)
    assert house.once()
    ledger(house).unlink()
    house.engine.batches.clear()
    house.save("a.txt", after)
    for _ in "twice":
        assert house.once()
        assert house.started() == new


def test_a_new_ledger_draws_the_same_text_in_another_file(house: House) -> None:
    """It is a new request, though the file that had it is gone."""
    path = house.save("job-1.yaml", "prompt: a corgi\nseed: 1\n")
    assert house.once()
    path.unlink()
    ledger(house).unlink()
    house.save("job-2.yaml", "prompt: a corgi\nseed: 1\n")
    for _ in "twice":
        assert house.once()
        assert house.started() == ["a corgi"] * 2


def test_a_damaged_page_of_any_table_heals_at_the_next_start(house: House) -> None:
    """Tables and indexes are damaged in turn: pictures stay, and the next save is rendered."""
    for name in ("random.txt", "pets/sweep.yaml"):
        house.save(name, RECIPES[name])
    assert house.once()
    whole = ledger(house).read_bytes()
    listed = (house.outbox / "images.jsonl").read_bytes()
    house.engine.batches.clear()
    with closing(sqlite3.connect(ledger(house))) as sql:
        pages = {page for (page,) in sql.execute("SELECT rootpage FROM sqlite_master") if page}
    assert len(pages) > 10
    for done, page in enumerate((0, *(root - 1 for root in sorted(pages)))):
        damaged = bytearray(whole)
        damaged[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = b"\xa5" * PAGE_BYTES
        ledger(house).write_bytes(damaged)
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
    with closing(sqlite3.connect(ledger(house))) as sql, sql:
        sql.execute("UPDATE recipes SET size_and_time = 'x' || substr(size_and_time, 2)")
    house.engine.batches.clear()
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
            DAMAGES[damage](ledger(house))

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
    ledger(house).unlink()
    house.save("a.yaml", "prompt: a\nseed: [77, 78, 5]\n")
    assert house.once(file_name=file_name)
    assert house.pictures() == sorted(f"a/{name}.png" for name in names)
