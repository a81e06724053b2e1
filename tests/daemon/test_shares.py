"""Folders at the inbox's first level take turns; settings say what each may have."""

from contextlib import nullcontext

import pytest

from picowatch.commands import account
from picowatch.commands.make import make
from picowatch.outbox.status import read_status
from picowatch.sources import Folders
from tests.digest_engine import fail_on_bad
from tests.house import House, error_files, wait_for


def count(prompt: str, images: int, **fields: object) -> str:
    lines = [f"prompt: {prompt}", "seed: 1", f"count: {images}", "steps: 1", "size: 64x64"]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in fields.items())])


def turns(house: House) -> list[str]:
    return [batch[0].prompt for batch in house.engine.batches]


def test_folders_take_turns(house: House) -> None:
    """Recipes in the inbox itself are as one folder; folders within a folder are none."""
    house.save("ada/1/a.yaml", count("ada", 4))
    house.save("ada/2/a.yaml", count("ada", 4))
    house.save("ben/b.yaml", count("ben", 3))
    house.save("c.yaml", count("root", 1))
    house.save("d.yaml", count("root", 2))
    assert house.once(batch_size=1)
    first, rest = turns(house)[:9], turns(house)[9:]
    assert [sorted(first[at : at + 3]) for at in (0, 3, 6)] == [["ada", "ben", "root"]] * 3
    assert rest == ["ada"] * 5


def test_a_share_is_so_many_turns(house: House) -> None:
    house.save("ada/a.yaml", count("ada", 8))
    house.save("ben/b.yaml", count("ben", 4))
    house.save("c.yaml", count("root", 2))
    assert house.once(batch_size=1, shares={"ada": 2, ".": 0.5})
    assert [turns(house)[:7].count(name) for name in ("ada", "ben", "root")] == [4, 2, 1]
    assert [turns(house)[:14].count(name) for name in ("ada", "ben", "root")] == [8, 4, 2]


def test_a_late_folder_does_not_wait_for_thousands_of_another(house: House) -> None:
    """Nor does it get turns for the time in which it wanted nothing."""
    with house.held("ada/a.yaml", count("ada", 1000), after=5, batch_size=2) as held:
        house.save("ben/b.yaml", count("ben", 8))
        wait_for(lambda: house.status()["images"]["queued"] == 1000 - 12 + 8, "ben's save")
        held.release()
        wait_for(lambda: len(house.listed()) >= 30, "some more")
    assert turns(house)[:6] == ["ada"] * 6
    assert turns(house)[6:14] == ["ben", "ada"] * 4


def test_images_of_others_join_a_batch_after_its_own(house: House) -> None:
    house.save("ada/a.yaml", count("ada", 6))
    house.save("ben/b.yaml", count("ben", 2))
    assert house.once(batch_size=4)
    mixed = [[request.prompt for request in batch] for batch in house.engine.batches]
    assert sorted(mixed) == [["ada"] * 4, ["ben", "ben", "ada", "ada"]]


def test_the_place_in_the_queue_follows_the_turns(house: House) -> None:
    folders, shares = Folders(house.inbox, house.outbox), {"ben": 2}
    with house.held("ada/a.yaml", count("ada", 100), batch_size=1, shares=shares) as held:
        house.save("ben/b.yaml", count("ben", 20))
        house.save("ben/c.yaml", count("late", 10))
        house.save("carl/c.yaml", count("carl", 1))
        wait_for(lambda: house.status()["images"]["queued"] == 130, "all saves")
        status = read_status(house.outbox)
        assert status
        behind = {
            name: account.named(folders, name, status, running=True).behind
            for name in ("ben/b.yaml", "ben/c.yaml", "carl/c.yaml", "ada/a.yaml")
        }
        held.release()
        wait_for(lambda: len(house.listed()) > 40, "ben's")
    started = ["ada", *turns(house)[1:]]
    assert behind["ben/b.yaml"] == 1 and behind["carl/c.yaml"] <= 4
    assert abs(behind["ben/c.yaml"] - started.index("late")) <= 2


def test_a_priority_is_lowered_to_that_of_its_folder(house: House) -> None:
    house.save("ada/a.yaml", count("ada", 1, priority=9))
    house.save("ben/b.yaml", count("ben", 1, priority=3))
    assert house.once(max_priority={"ada": 2})
    assert house.started() == ["ben", "ada"]
    warning = (house.outbox / "ada/a.yaml.warning.txt").read_text()
    assert "priority 9 is lowered to 2, the most in the folder ada (max_priority)." in warning


def test_a_full_folder_refuses_a_save_until_there_is_room(house: House) -> None:
    """The error file says so, and goes by itself; others are not affected."""
    most = {"ada": 4}
    with house.held("ada/a.yaml", count("one", 4), batch_size=1, max_queued=most) as held:
        house.save("ada/b.yaml", count("two", 3))
        house.save("ben/b.yaml", count("ben", 9))
        wait_for(lambda: house.error("ada/b.yaml"), "the refusal")
        wait_for(lambda: house.status()["images"]["queued"] == 3 + 9, "ben's")
        said = house.error("ada/b.yaml")
        held.release()
        wait_for(lambda: len(house.pictures("ada/b")) == 3, "the refused save")
        wait_for(lambda: not house.error("ada/b.yaml"), "no error")
    assert said == (
        "inbox/ada/b.yaml\n\nThe folder ada may have 4 images waiting (max_queued), and this save "
        "asks for 3 more. It is read again when fewer wait.\n"
    )
    assert house.log().count("(max_queued)") == 1


def test_a_folder_that_only_settings_name_is_told_once(house: House) -> None:
    """It is among the ignored files until it is there."""
    house.save("adam/a.yaml", count("adam", 1))
    with house.running(shares={"adma": 2, "adam": 2, ".": 2}, max_queued={"later": 9}):
        wait_for(lambda: len(house.status().get("ignored", ())) == 2, "the folders")
        told = dict(house.status()["ignored"])
        house.save("later/a.yaml", count("later", 1))
        wait_for(lambda: len(house.status()["ignored"]) == 1, "a folder less")
    why = "there is no such folder in the inbox, though {} names it"
    meant = f"{why.format('shares')}. Did you mean 'adam'?"
    assert told == {"adma": meant, "later": why.format("max_queued")}
    assert house.log().count(f"adma is not run: {meant}") == 1


@pytest.mark.parametrize("runs", [False, True])
def test_what_waits_for_room_can_be_cancelled(house: House, runs: bool) -> None:
    """It is not accepted later, unless it is saved again; another save goes on waiting."""
    most = {"ada": 2}
    assert house.answer("pause").done
    house.save("ada/a.yaml", count("one", 2))
    house.save("ada/c.yaml", count("three", 2))
    for number in range(2):
        house.save(f"ada/b/{number}.yaml", count("two", 2))
    assert not house.once(max_queued=most)
    with house.running(max_queued=most) if runs else nullcontext():
        path = house.tell("cancel", "ada/b/")
        assert runs or not house.once(max_queued=most)
        answer = house.answer_to(path)
    assert (answer.done, answer.text) == (True, "4 images cancelled.")
    assert error_files(house.outbox) == {"ada/c.yaml"}
    assert house.answer("resume").done and house.once(max_queued=most)
    assert sorted(house.prompts()) == ["one", "one", "three", "three"]
    house.save("ada/b/0.yaml", count("two", 2))
    assert house.once(max_queued=most) and house.prompts().count("two") == 2


def test_a_single_run_renders_what_had_to_wait_for_room(house: House) -> None:
    """A save is read again when the queue is empty; one that never fits says so."""
    for number in range(4):
        house.save(f"ada/{number}.yaml", count(f"ada {number}", 2))
    house.save("ada/five.yaml", count("five", 5))
    assert not house.once(max_queued={"ada": 3}), "one asks for too many"
    assert len(house.listed()) == 8
    assert error_files(house.outbox) == {"ada/five.yaml"}
    assert "Ask for fewer." in (house.error("ada/five.yaml") or "")
    assert house.log().count("It is read again when fewer wait.") == 3
    (house.inbox / "ada/five.yaml").unlink()
    assert house.answer("pause").done
    for number in range(2):
        house.save(f"ada/later{number}.yaml", count(f"later {number}", 2))
    assert not house.once(max_queued={"ada": 3}), "there is no room while it is paused"
    assert house.answer("resume").done
    assert house.once(max_queued={"ada": 3}) and not error_files(house.outbox)
    assert len(house.listed()) == 12


@pytest.mark.parametrize("runs", [False, True])
def test_make_waits_for_room(house: House, runs: bool) -> None:
    most = {"ada": 2, ".": 2}
    settings = house.settings(max_queued=most)
    house.save("ada/_pictures.yaml", "resize_to: 32\n")
    for number in range(5):
        house.draw(f"ada/{number}.png")
    recipes = [house.folder / f"{letter}.yaml" for letter in "ab"]
    for recipe in recipes:
        recipe.write_text(count(recipe.stem, 2))
    with house.running(max_queued=most) if runs else nullcontext():
        assert make(settings, [house.inbox / "ada"], house.make_engine) == 0
        assert make(settings, recipes, house.make_engine) == 0
    assert len(house.pictures()) == 9


def test_make_waits_for_room_after_a_restart(house: House) -> None:
    """What lacks room is known again only once it was read."""
    most = {"ada": 2}
    assert house.answer("pause").done
    for letter in "ab":
        house.save(f"ada/{letter}.yaml", count(letter, 2))
    assert not house.once(max_queued=most)
    path = house.tell("make", "ada/b.yaml")
    with house.running(max_queued=most):
        house.wait_for_rounds()
        house.tell("resume")
        answer = house.answer_to(path)
    assert answer.done and len(answer.pictures) == 2


def test_what_lacked_room_is_read_as_the_command_wanted(house: House) -> None:
    """`make` draws no seed again, and `retry --all` renders deleted results again."""
    most = {"ada": 3}
    house.engine.before_batch = fail_on_bad
    for number in range(4):
        house.save(f"ada/{number}.yaml", "prompt: aa\n---\nprompt: bad\n")
    house.save("ada/photos/_pictures.yaml", count("photo", 1))
    for number in range(4):
        house.draw(f"ada/photos/{number}.png", f"rgb({number},0,0)")
    assert not house.once()
    house.engine.before_batch = lambda batch: None
    assert make(house.settings(max_queued=most), [house.inbox / "ada"], house.make_engine) == 0
    assert sorted(house.prompts()) == ["aa"] * 4 + ["bad"] * 4 + ["photo"] * 4
    for picture in house.pictures("ada/photos"):
        (house.outbox / picture).unlink()
    with house.running(max_queued={"ada": 1}):
        house.tell("retry all", "ada/photos")
        wait_for(lambda: len(house.pictures("ada/photos")) == 4, "deleted results")
    assert "max_queued" in house.log()


def test_a_failed_image_has_the_priority_of_its_new_folder(house: House) -> None:
    """Also if it is tried again after that."""
    house.engine.before_batch = fail_on_bad
    house.save("free/y.yaml", count("bad", 1, priority=9))
    assert not house.once()
    house.engine.before_batch = lambda batch: None
    house.save("ben/z.yaml", count("other", 1))
    (house.inbox / "free/y.yaml").rename(house.inbox / "ben/y.yaml")
    assert house.once(max_priority={"ben": 0})
    house.engine.batches.clear()
    house.save("a.yaml", count("first", 1, priority=1))
    assert house.answer("retry", "ben/y.yaml").done
    assert house.started() == ["first", "bad"]
