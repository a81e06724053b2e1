"""`picowatch show --why`: which save asked for a picture, and what differs from the one before."""

import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from picowatch.commands.show import WHY
from picowatch.ledger.ledger import VERSION
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import fail_on_bad
from tests.house import House, wait_for

CAT = "prompt: a cat\n"
Step = str | Callable[[House], object]


def asked(house: House, *words: str) -> str:
    """Return what the command prints, or says about an error."""
    answer = picowatch_here(house.folder, "show", "--why", *words)
    assert bool(answer.stderr) == bool(answer.returncode)
    return answer.stdout or answer.stderr


def because(why: str) -> str:
    return WHY[why].replace("; ", f"\n{' ' * 11}")


def touch(house: House) -> None:
    (house.inbox / "a.yaml").touch()


def remove(house: House) -> None:
    (house.inbox / "a.yaml").unlink()


def delete_pictures(house: House) -> None:
    for picture in house.pictures():
        (house.outbox / picture).unlink()


def lose_the_ledger(house: House) -> None:
    house.ledger.unlink()


def animals(text: str) -> Callable[[House], object]:
    def write(house: House) -> None:
        (house.models / "wildcards").mkdir(exist_ok=True)
        (house.models / "wildcards/animals.txt").write_text(text)

    return write


def defaults(text: str) -> Callable[[House], object]:
    return lambda house: house.save("_defaults.yaml", text)


def photo(colour: str, width: int = 64) -> Callable[[House], object]:
    return lambda house: house.draw("photo.png", colour, (width, 64))


# What is done, with a run after each save; why the newest picture was drawn; what differs.
DRAWN: dict[str, tuple[list[Step], str, list[str]]] = {
    "first": ([CAT], "first", []),
    "another prompt": (
        [f"{CAT}seed: 1\n", "prompt: a dog\nseed: 1\n"], "changed", ['prompt: "a cat" → "a dog"']
    ),
    "another prompt without a seed": (
        [CAT, "prompt: a dog\n"], "reseeded", ['prompt: "a cat" → "a dog"', "seed: N → N"]
    ),
    "another format": ([CAT, f"{CAT}format: webp\n"], "changed", ['format: none → "webp"']),
    "an entry more": (["- {prompt: a cat}\n", "- {prompt: a cat}\n- {prompt: b}\n"], "new", []),
    "a higher count": ([CAT, f"{CAT}count: 2\n"], "more", ["seed: N → N"]),
    "touched": ([CAT, touch, ""], "redrawn", ["seed: N → N"]),
    "deleted": ([f"{CAT}seed: 1\n", delete_pictures, touch, ""], "gone", []),
    "a wildcard file": (
        [animals("a cat\n"), "prompt: __animals__\nseed: 1\n", animals("a dog\n"), touch, ""],
        "changed",
        ["a wildcard file of the prompt says something else now", 'prompt: "a cat" → "a dog"'],
    ),
    "a prompt with wildcards": (
        [animals("a cat\n"), "prompt: __animals__ in red\nseed: 1\n",
         "prompt: __animals__ in blue\nseed: 1\n"], "changed",
        ['prompt: "a cat in red" → "a cat in blue"'],
    ),
    "a start image": (
        [photo("red"), f"{CAT}seed: 1\nimage: photo.png\n", photo("blue"), touch, ""], "changed",
        ["its own bytes are the same, but a file that it names changed",
         "image: another file, sha256 H → H"],
    ),
    "the defaults": (
        [defaults("steps: 2\n"), f"{CAT}seed: 1\n", defaults("steps: 3\n"), touch, ""], "changed",
        ["its own bytes are the same, but a _defaults.yaml, a setting, or another file that it is "
         "read with changed", "steps: 2 → 3"],
    ),
    "a start image of another size": (
        [photo("red"), f"{CAT}seed: 1\nimage: photo.png\nsize: picture\n", photo("red", 128),
         touch, ""],
        "changed",
        ["its own bytes are the same, but a file that it names changed", "width: 64 → 128",
         "image: another file, sha256 H → H"],
    ),
    "removed and saved again": ([CAT, remove, "", "prompt: a dog\n"], "first", []),
    "a long prompt": (
        [f"prompt: {'a' * 90} cat {'b' * 90}\nseed: 1\n",
         f"prompt: {'a' * 90} red dog {'b' * 90}\nseed: 1\n"], "changed",
        [f'prompt: "…{"a" * 29} cat {"b" * 29}…" → "…{"a" * 29} red dog {"b" * 29}…"'],
    ),
    "the ledger lost, and half was drawn": (
        ["- {prompt: a cat, seed: 1}\n- {prompt: bad, seed: 1}\n", lose_the_ledger, ""], "lost", []
    ),
    "the ledger lost since": ([CAT, lose_the_ledger, ""], "", []),
    "touched, and the ledger lost since": (
        [CAT, touch, "", lose_the_ledger, ""], "", ["seed: N → N"]
    ),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "why", "differs"), DRAWN.values(), ids=DRAWN)
def test_why_it_was_drawn(house: House, steps: list[Step], why: str, differs: list[str]) -> None:
    """The recipe's lines have the newest image's, and JSON says the same."""
    house.engine.before_batch = fail_on_bad
    for step in steps:
        if not isinstance(step, str):
            step(house)
            continue
        if step:
            house.save("a.yaml", step)
        house.once()
        house.engine.before_batch = lambda batch: None
    names = [name for name in house.pictures() if "sheet" not in name]
    shown = asked(house, str(house.outbox / names[-1]))
    assert shown.startswith(f"{names[-1]}: entry ")
    assert f"\n  because  {because(why)}\n" in shown
    plain = re.sub(r"\d{4,}", "N", re.sub(r"[0-9a-f]{12} → [0-9a-f]{12}", "H → H", shown))
    more = re.findall(r"^           (.+)$", plain, re.MULTILINE)
    assert more == WHY[why].split("; ")[1:] + differs
    assert ("\n  before   a/" in shown) == any("→" in line for line in differs)
    assert shown in asked(house, str(house.inbox / "a.yaml")) or why == "gone"
    told_as_json = json.loads(asked(house, "--json", names[-1]))
    assert told_as_json["rule"] == why
    shown_fields = told_as_json["differs"].keys() - {"unexpanded_prompt"}
    assert len(shown_fields) == sum("→" in line for line in differs)


def test_a_dropped_picture_s_template_is_named(house: House) -> None:
    house.save("photos/_pictures.yaml", "prompt: a cat\nseed: 1\n")
    house.draw("photos/1.png")
    assert house.once()
    house.save("photos/_pictures.yaml", "prompt: a dog\nseed: 1\n")
    assert house.answer("retry all", "photos").done
    assert house.once()
    shown = asked(house, "photos/1-2.png")
    assert "of inbox/photos/1.png\n" in shown
    assert "(by a command)" in shown
    assert "its own bytes are the same, but its template changed\n  before   photos/1.png" in shown
    house.save("photos/1.yaml", "steps: 9\n")
    assert house.once()
    shown = asked(house, "photos/1-3.png")
    assert "(a file beside it changed)" in shown
    assert "but a file beside it, or a _defaults.yaml, changed" in shown


def test_a_replaced_result_is_the_one_before(house: House) -> None:
    house.save("photos/_pictures.yaml", "resize_to: 32\nformat: jpeg\nreplace: true\n")
    for colour in ("red", "blue"):
        house.draw("photos/1.png", colour)
        assert house.once()
    for name in ("photos/1.jpg", str(house.inbox / "photos/1.png")) * 2:
        shown = asked(house, name)
        assert "photos/1.jpg: entry 1, image 1 of inbox/photos/1.png\n" in shown
        assert shown.count("\n  before   photos/1.jpg\n           image: another file") == 1
        if name != "photos/1.jpg":
            lose_the_ledger(house)
            assert house.once()


def test_images_that_wait_or_were_requested_again(house: House) -> None:
    """Also while picowatch is running."""
    house.engine.before_batch = fail_on_bad
    house.save("a.yaml", "prompt: bad\nseed: 7\n")
    house.once()
    assert "failed: entry 1, image 1 of inbox/a.yaml\n" in asked(house, "a.yaml")
    house.tell("pause")
    with house.running():
        wait_for(lambda: house.status()["paused"], "the pause")
        touch(house)
        wait_for(lambda: "a.yaml: saved, 1 image queued" in house.log().partition("failed")[2])
        shown = asked(house, "a.yaml")
    assert shown.startswith("queued: entry 1")
    assert f"because  {because('failed')}\n" in shown
    assert house.answer("cancel", "a.yaml").done
    house.tell("resume")
    house.engine.before_batch = lambda batch: None
    touch(house)
    house.once()
    assert f"because  {because('cancelled')}\n" in asked(house, "a.yaml")


def test_wrong_use_is_answered(house: House) -> None:
    assert f"No picowatch has ever used the outbox {house.outbox}. " in asked(house, "a.yaml")
    house.save("a.yaml", f"{CAT}sweep: {{steps: [2, 3]}}\n")
    house.save("b.yaml", "stesp: 3\n")
    house.once()
    for name in ("c.yaml", "b.yaml", str(house.draw("photo.png"))):
        shown = asked(house, name)
        assert f"The ledger knows no picture and no recipe '{name}'. Name a picture of" in shown
    assert "is a contact sheet. Name one of its pictures." in asked(house, "a/0003-sheet.png")
    assert "argument --all: not allowed with argument --why" in asked(house, "--all", "a.yaml")
    with closing(sqlite3.connect(house.ledger)) as sql:
        sql.execute("PRAGMA user_version = 8")
    assert f"is of version 8, not {VERSION}. Start picowatch" in asked(house, "a.yaml")
    house.ledger.write_bytes(b"no database" * 100)
    assert "cannot be read: file is not a database. Start picow" in asked(house, "a.yaml")
