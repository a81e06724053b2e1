"""The totals of folders in the gallery's headings."""

import json
import re

import pytest

from picowatch.outbox.commands import Command, send
from tests.digest_engine import fail_on_bad
from tests.house import HeldEngine, House, wait_for


def totals(house: House) -> dict[str, str]:
    text = (house.outbox / ".picowatch/gallery/totals.js").read_text()
    found: dict[str, str] = json.loads(text.removeprefix("totals(").removesuffix(");\n"))
    return {name: re.sub(r" \d\d:\d\d(–\d\d:\d\d)?", "", line) for name, line in found.items()}


def test_folders_and_those_above_have_totals(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """They follow what is drawn, renamed and deleted; all else is not counted again."""
    monkeypatch.setattr("picowatch.daemon.totals.REST_SECONDS", 0.0)
    monkeypatch.setattr("picowatch.daemon.totals.COUNTING_REST", 0)
    house.engine.before_batch = fail_on_bad
    house.save("night/a.yaml", "prompt: good\nseed: [1, 2]\n---\nprompt: bad\n")
    house.save("night/one.txt", "alone --seed 1\n")
    house.draw("night/photos/1.png")
    house.draw("night/photos/2.png")
    house.save("night/photos/_pictures.yaml", "prompt: a frame\n")
    house.once()
    before = {
        "": "5 of 6 done, 1 failed",
        "night": "5 of 6 done, 1 failed",
        "night/a": "2 of 3 done, 1 failed",
        "night/photos": "2 of 2 done",
    }
    assert totals(house) == before
    with house.running():
        house.save("b.yaml", "prompt: b\nseed: [1, 2]\n")
        changed = before | {"": "7 of 8 done, 1 failed", "b": "2 of 2 done"}
        wait_for(lambda: totals(house) == changed, "what is new")
        (house.inbox / "b.yaml").rename(house.inbox / "c.yaml")
        changed["c"] = changed.pop("b")
        wait_for(lambda: totals(house) == changed, "the new name")
        (house.inbox / "c.yaml").unlink()
        wait_for(lambda: totals(house) == before, "what is left")


def test_what_waits_has_totals(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before a new recipe's first picture, or a photo's; a start counts the same."""
    monkeypatch.setattr("picowatch.daemon.totals.REST_SECONDS", 0.0)
    monkeypatch.setattr("picowatch.daemon.totals.COUNTING_REST", 0)
    house.draw("photos/1.png")
    house.save("photos/_pictures.yaml", "prompt: a frame\n")
    assert house.once()
    assert house.answer("pause").done
    waiting = {
        "": "1 of 4 done, 3 wait",
        "new": "0 of 2 done, 2 wait",
        "photos": "1 of 2 done, 1 waits",
    }
    with house.running():
        house.save("new.txt", "one\ntwo\n")
        wait_for(lambda: "new" in totals(house), "the first in the queue")
        house.draw("photos/2.png", "blue")
        wait_for(lambda: totals(house) == waiting, "what is new")
    (house.outbox / ".picowatch/gallery/totals.js").unlink()
    with house.running(batch_size=1):
        wait_for((house.outbox / ".picowatch/gallery/totals.js").exists, "the first count")
        assert totals(house) == waiting
        held = HeldEngine(house, after=1)
        send(house.outbox, Command("resume"))
        waiting |= {"": "1 of 4 done, 1 in progress, 2 wait"}
        waiting |= {"new": "0 of 2 done, 1 in progress, 1 waits"}
        wait_for(lambda: totals(house) == waiting, "what has begun")
        held.release()
