"""`picowatch status NAME`: what became of it, however its name is written."""

import json
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from shutil import copytree
from typing import Any

import pytest

from picowatch.ledger.account import Account, Failure, moment
from tests.commands.picowatch import PROJECT, picowatch_here
from tests.digest_engine import fail_on_bad
from tests.house import House, wait_for

# Other names of recipes, and the recipe or folder that each is.
BAD = ("night/bad", "night/bad.txt", "inbox/night/bad.txt", "outbox/night/bad", "*bad*")
NAMES = {
    **dict.fromkeys(BAD, "night/bad.txt"),
    **dict.fromkeys(("night", "inbox/night/", "night/*"), "night"),
    **dict.fromkeys(("inbox", "."), "everything"),
}
COUNTS = {
    "night/bad.txt": {"requested": 2, "done": 1, "failed": 1, "refused": 0},
    "night": {"requested": 4, "done": 3, "failed": 1, "refused": 1},
    "everything": {"requested": 5, "done": 4, "failed": 1, "refused": 1},
}

NO_RECIPE = "recipes are .yaml, .yml, .json, .csv and .txt"


def shown(house: House, *words: str) -> list[str]:
    return picowatch_here(house.folder, "status", *words).stdout.splitlines()


def told(house: House, *words: str) -> dict[str, Any]:
    answer = picowatch_here(house.folder, "status", "--json", *words)
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.fixture
def morning(house: House) -> House:
    """A night with a failed image, a refused recipe and a file that is no recipe."""
    house.engine.before_batch = fail_on_bad
    house.save("night/bad.txt", "bad --seed 5\none\n")
    house.save("night/good.txt", "one\ntwo\n")
    house.save("night/wrong.yaml", "promt: a corgi\nstesp: 3\n")
    house.save("night/notes.md", "mine")
    house.save("day.txt", "one\n")
    assert not house.once(batch_size=1)
    return house


def test_a_recipe_a_folder_or_everything_has_an_account(morning: House) -> None:
    """The same in words and as JSON, without a daemon, too."""
    for written, meant in NAMES.items():
        found = told(morning, written)
        account = found["account"]
        assert {name: account[name] for name in COUNTS[meant]} == COUNTS[meant], written
        assert account["began"] <= account["ended"] <= time.time()
        failed = [failure for failure in found["failures"] if failure["entry"]]
        where = [(row["recipe"], row["entry"], row["image"], row["seed"]) for row in failed]
        assert where == [("night/bad.txt", 1, 1, 5)]
    lines = shown(morning, "night")
    assert lines[0] == "picowatch is not running"
    assert lines[1].startswith("night: 3 of 4 done ")
    assert lines[1].endswith(", 1 failed, 1 file refused")
    # The failed image came after the recipe was refused.
    assert [line.split()[::2][0] for line in lines[2:]] == ["failed", "refused", "ignored"]
    assert lines[4].startswith("ignored night/notes.md: ")
    assert lines[3].endswith(
        "night/wrong.yaml: line 1, column 1: unknown field 'promt'. Did you mean 'prompt'?; "
        "line 2, column 1: unknown field 'stesp'. Did you mean 'steps'?"
    )
    assert shown(morning, "night/notes.md")[1:] == [
        "night/notes.md: nothing is requested",
        f"ignored night/notes.md: {NO_RECIPE}",
    ]


def test_failures_that_the_error_file_only_counts_are_listed(house: House) -> None:
    house.engine.before_batch = fail_on_bad
    house.save("my bad.yaml", "prompt: bad\ncount: 22\n")
    assert not house.once(batch_size=1)
    error = house.error("my bad.yaml") or ""
    assert "\nAnd 2 more: `picowatch status --all 'my bad.yaml'` lists them.\n" in error
    lines = shown(house, "--all", "my bad.yaml")
    assert sum("my bad.yaml: entry 1, image " in line for line in lines) == 22
    assert shown(house, "my bad.yaml")[2 + 20 :] == ["and 2 more: --all shows them"]


def test_what_lies_beside_a_photo_belongs_to_it(house: House) -> None:
    """It is read with the photo; a text that no photo has is told so."""
    house.save("d/_pictures.yaml", "prompt: a star\n")
    house.draw("d/a.png")
    for name in ("d/a.yaml", "d/a.txt", "d/b.txt"):
        house.save(name, "steps: 5\n")
    house.draw("d/a.mask.png")
    assert house.once()
    for name in ("d/a.yaml", "d/a.txt", "d/a.mask.png"):
        why = "it belongs to d/a.png, whose status tells what became of it"
        assert shown(house, name)[-1] == f"ignored {name}: {why}"
    assert "it belongs to no picture" in shown(house, "d/b.txt")[-1]
    house.save("d/_defaults.yaml", "steps: 5\n")
    assert "holds for the recipes of its folder" in shown(house, "d/_defaults.yaml")[-1]


def test_what_is_not_read_yet_is_told_beside_what_is(house: House) -> None:
    """A photo of a template, too, but nothing that is there for others; and what keeps it so."""
    house.save("d/_pictures.yaml", "prompt: a star\nmask: where.png\n")
    house.draw("d/where.png", "white")
    for name in ("d/a.png", "e/start.png"):
        house.draw(name)
    house.save("e/a.yaml", "prompt: a star\nimage: start.png\n")
    assert house.once()
    before = {folder: shown(house, folder) for folder in ("d", "e")}
    assert not any("ignored" in line for lines in before.values() for line in lines)
    house.draw("d/more/b.png")
    house.draw("d/more/b.mask.png")
    house.save("d/a.txt", "a moon")
    house.save("e/b.yaml", "prompt: a moon\n")
    after = {"d": "ignored d/more/b.png", "e": "ignored e/b.yaml"}
    for folder, line in after.items():
        assert {*shown(house, folder)} - {*before[folder]} == {f"{line}: it is not read yet"}
    for written in ("e/b", "inbox/e/b.yaml", "e/b*"):
        assert shown(house, written)[-1] == "ignored e/b.yaml: it is not read yet"
    house.draw("set/1.png")
    house.save("d/more/_pictures.yaml", "promt: a star\n")
    assert not house.once()
    for name, why in {
        "set/1.png": "a picture here is used only if a recipe names it",
        "d/where.png": "its template d/_pictures.yaml names it",
        "d/more/b.png": "its template d/more/_pictures.yaml is refused",
    }.items():
        assert f"ignored {name}: {why}" in shown(house, name)[-1]


def test_every_key_is_documented(morning: House) -> None:
    """And a name as messages give it is understood in every working directory."""
    page = (PROJECT / "docs/commands.md").read_text()
    elsewhere = morning.folder / "elsewhere"
    elsewhere.mkdir()
    folders = ("--inbox", morning.inbox, "--outbox", morning.outbox)
    answer = picowatch_here(elsewhere, "status", "--json", *folders, "inbox/night/bad.txt")
    found = json.loads(answer.stdout)
    assert found["account"]["name"] == "night/bad.txt"
    keys = {"account", "failures", *found["account"], *found["failures"][0]}
    keys |= found["account"]["slowest"].keys()
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []


NEAREST = {
    ("status", "night/bda"): "'night/bda' in the inbox. Did you mean 'night/bad.txt'?",
    ("status", "night/../dya.txt"): "'night/../dya.txt' in the inbox.",
    ("status", "/etc/passwd"): "'/etc/passwd' in the inbox.",
    ("status", "x" * 300): f"'{'x' * 300}' in the inbox.",
    ("status", "nigth"): "'nigth' in the inbox. Did you mean 'night'?",
    ("cancel", "inbox/dya.txt"): "'dya.txt' in the inbox. Did you mean 'day.txt'?",
    ("retry", "bad.txt"): "'bad.txt' in the inbox. Did you mean 'night/bad.txt'?",
    ("retry", "xyzzy"): "'xyzzy' in the inbox.",
    ("delete", "outbox/nihgt"): "'nihgt' in the {gallery}. Did you mean 'night'?",
}


@pytest.mark.parametrize("runs", [True, False])
def test_a_name_that_nothing_has_is_told_the_nearest(morning: House, runs: bool) -> None:
    """Without a daemon, too: at its next start nobody would read the answer."""
    with morning.running() if runs else nullcontext():
        for words, said in NEAREST.items():
            answer = picowatch_here(morning.folder, *words)
            assert answer.returncode == 1
            expected = said.format(gallery="gallery" if runs else "outbox")
            assert f"There is no {expected}" in answer.stderr
        whole = picowatch_here(morning.folder, "delete", "outbox")
    assert "That is the whole outbox." in whole.stderr


def test_it_is_told_that_the_status_lacks_some_ignored_files(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("picowatch.daemon.status.IGNORED", 1)
    for name in ("a.md", "b.md", "night/c.md"):
        house.save(name, "mine")
    assert house.once()
    said = "2 more in the whole inbox are ignored: picowatch.log names them"
    assert shown(house, "--all")[2:] == [f"ignored a.md: {NO_RECIPE}", said]
    assert shown(house, "b.md")[2:] == [f"ignored b.md: {NO_RECIPE}", said]


def test_what_was_in_progress_waits_once_picowatch_is_killed(house: House) -> None:
    with house.held("a.txt", "one\ntwo\nthree\n", batch_size=2) as held:
        wait_for(lambda: house.status()["images"]["running"] == 2, "the status")
        copytree(house.outbox, house.folder / "left")  # what a power cut leaves, say
        held.release()
    left = "--outbox", "left"
    assert shown(house, "a", *left)[1] == "a: 0 of 3 done, 3 wait, first in the queue"
    assert shown(house, *left)[:2] == ["picowatch is not running", "queued  3 images: a.txt 1"]
    account = told(house, "a", *left)["account"]
    assert (account["running"], account["waiting"]) == (0, 3)


def test_what_waits_has_a_place_and_a_time(house: House) -> None:
    """Behind what is running and what was saved before, unless it goes first itself."""
    house.save("known.txt", "one\ntwo\n")
    assert house.once(batch_size=1)
    with house.held("first.txt", "one\ntwo\nthree\n", after=2, batch_size=1) as held:
        house.save("last.txt", "one\ntwo\n")
        wait_for(lambda: house.status()["images"]["queued"] == 4, "all saves")
        assert shown(house, "first")[0] == "first: 0 of 3 done, 1 in progress, 2 wait"
        behind = told(house, "last")["account"]
        assert (behind["behind"], behind["waiting"]) == (3, 2)
        assert behind["seconds_until"] is not None
        assert ", 2 wait, behind 3 pictures, about " in shown(house, "last")[0]
        assert picowatch_here(house.folder, "pause").returncode == 0
        wait_for(lambda: house.status()["paused"], "the pause")
        assert shown(house, "last")[0] == "last: 0 of 2 done, 2 wait, behind 3 pictures, paused"
        held.release()


def test_the_newest_failures_come_first(house: House) -> None:
    """By when they failed, not by when they were saved."""
    house.engine.before_batch = fail_on_bad
    house.save("a.txt", "bad --seed 1\n")
    house.save("b.txt", "bad --seed 2\n")
    assert not house.once()
    assert [failure["recipe"] for failure in told(house, ".")["failures"]] == ["b.txt", "a.txt"]
    assert house.answer("retry", "a.txt").done
    assert [failure["recipe"] for failure in told(house, ".")["failures"]] == ["a.txt", "b.txt"]
    assert [error[:5] for error in house.status()["errors"]] == ["b.txt", "a.txt"]


def test_only_times_before_last_night_have_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    now, hour = datetime(2026, 11, 29, 8, 33, tzinfo=UTC).timestamp(), 3600.0
    table: dict[str, tuple[float, float]] = {
        "00:33–05:33": (now - 8 * hour, now - 3 * hour),
        "00:33": (now - 8 * hour, now - 8 * hour),
        "2026-11-28 08:33–00:33": (now - 24 * hour, now - 8 * hour),
        "2026-11-28 08:33–2026-11-29 08:33": (now - 24 * hour, now),
        "2026-11-28 09:03–2026-11-29 08:33": (now - 23.5 * hour, now),  # 09:03–09:33 in spring
        "2026-11-26 08:33–2026-11-29 05:33": (now - 72 * hour, now - 3 * hour),
        "2026-11-24 08:33–2026-11-27 10:33": (now - 120 * hour, now - 46 * hour),
        "2026-11-27 08:33": (now - 48 * hour, now - 48 * hour),
        "2026-11-27 08:33–10:33": (now - 48 * hour, now - 46 * hour),
    }
    for words, (began, ended) in table.items():
        account = Account(requested=1, done=1, began=began, ended=ended)
        assert account.line(now) == f"1 of 1 done {words}"
    assert moment(now, now) == "08:33"
    assert Account().line(now) == "nothing is requested"
    assert Failure("a.txt", "no", now).line(now) == "refused 08:33  a.txt: no"
    monkeypatch.delenv("TZ")
    time.tzset()
