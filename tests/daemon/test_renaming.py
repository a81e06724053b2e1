"""Renaming a recipe keeps its queue: nothing is rendered twice, later images have the new name."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from picowatch.errors import RenderFailed
from picowatch.files.blocks import blocks_of
from picowatch.inbox.files import defaults_for
from picowatch.recipe import DefaultsFile
from tests.house import HeldEngine
from tests.house import House, wait_for


def renamed(house: House, old: str, new: str) -> None:
    """Rename, and wait until picowatch knows."""
    (house.inbox / new).parent.mkdir(exist_ok=True)
    (house.inbox / old).replace(house.inbox / new)
    wait_for(lambda: f"{old}: renamed to {new}" in house.log(), "the renaming")


def test_a_save_while_an_equal_recipe_is_deleted_is_no_rename(house: House) -> None:
    """It is answered, and the other one is forgotten."""
    with house.running():
        kept = house.save("a.txt", "one\n")
        deleted = house.save("sub/a.txt", "one\n")
        wait_for(lambda: len(house.pictures()) == 2, "both")
        with house.seen_at_once():
            kept.touch()
            deleted.unlink()
        wait_for(lambda: len(house.pictures("a")) == 2, "another picture of the one that is kept")
        wait_for(lambda: "sub/a.txt: deleted" in house.log())


def test_a_recipe_that_takes_the_place_of_a_renamed_one_is_another(house: House) -> None:
    """`mv a.yaml c.yaml` and a new a.yaml, which picowatch sees at once: nothing is made twice."""
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("a.yaml", "prompt: a corgi\ncount: 3\n")
        hold.wait_until_held()
        with house.seen_at_once():
            (house.inbox / "a.yaml").rename(house.inbox / "c.yaml")
            house.save("a.yaml", "prompt: a star\ncount: 2\n")
        wait_for(lambda: "a.yaml: renamed to c.yaml" in house.log(), "the renaming")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 5, "all")
    assert house.once()
    assert sorted(house.started()) == ["a corgi"] * 3 + ["a star"] * 2
    assert house.prompts("a").count("a star") == 2
    assert house.prompts("c") == ["a corgi"] * 2


def test_a_rename_while_the_inbox_is_away_renders_nothing_again(house: House) -> None:
    """It is seen when the inbox is back; other recipes are not cancelled meanwhile."""
    hold = HeldEngine(house)
    away = house.folder / "away"
    with house.running(batch_size=1):
        house.save("a.txt", "one\ntwo\nthree\n")
        hold.wait_until_held()
        house.inbox.rename(away)
        wait_for(lambda: "has vanished" in house.log(), "the warning")
        (away / "a.txt").rename(away / "b.txt")
        away.rename(house.inbox)
        wait_for(lambda: "a.txt: renamed to b.txt" in house.log(), "the renaming")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 3, "all")
    assert house.once()
    assert house.started() == ["one", "two", "three"]


def test_a_recipe_that_a_server_moves_into_its_bin_is_deleted(house: House) -> None:
    """A NAS moves what is deleted over the network: that is no rename."""
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        path = house.save("a.yaml", "prompt: a\nseed: 1\ncount: 3\n")
        hold.wait_until_held()
        (house.inbox / "#recycle").mkdir()
        path.rename(house.inbox / "#recycle/a.yaml")
        wait_for(lambda: "a.yaml: deleted, 3 images cancelled" in house.log(), "the deletion")
    assert house.pictures() == []


def test_a_renamed_invalid_recipe_keeps_its_error(house: House) -> None:
    """Beside its new name."""
    path = house.save("a.yaml", "prompt: a corgi\nstesp: 10\n")
    assert not house.once()
    path.rename(house.inbox / "b.yaml")
    assert not house.once(), "it is answered under its new name"
    assert house.error("a.yaml") is None
    assert "inbox/b.yaml, line 2, column 1" in (house.error("b.yaml") or "")


def test_a_recipe_moved_to_a_folder_of_other_settings_keeps_what_it_requested(house: House) -> None:
    """Other defaults and start images hold from its next save on."""
    Image.new("RGB", (64, 64), "red").save(house.inbox / "start.png")
    house.save("other/_defaults.yaml", "steps: 5\n")
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("a.yaml", "- {prompt: a, seed: 1}\n- {prompt: b, seed: 2, image: start.png}\n")
        hold.wait_until_held()
        renamed(house, "a.yaml", "other/a.yaml")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 2, "both pictures")
    assert house.error("other/a.yaml") is None
    assert house.started() == ["a", "b"]
    assert [house.chunk(picture).request.steps for picture in house.pictures()] == [24, 24]
    (house.inbox / "other/a.yaml").touch()
    assert house.once()
    assert len(house.pictures()) == 4


@pytest.mark.parametrize("defaults", ["priority: 10\n", "priority: 10\nsteps: 5\n"])
def test_a_recipe_moved_into_live_overtakes_the_others(house: House, defaults: str) -> None:
    """Its folder's defaults say its priority; an entry with one of its own keeps that."""
    house.save("live/_defaults.yaml", defaults)
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("first.txt", "in progress\n")
        hold.wait_until_held()
        house.save("a.txt", "a\n")
        wait_for(lambda: "a.txt: saved" in house.log())
        house.save("b.txt", "b\n")
        wait_for(lambda: "b.txt: saved" in house.log())
        renamed(house, "b.txt", "live/b.txt")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 3, "all")
    assert house.started() == ["in progress", "b", "a"]


def test_entries_with_a_priority_of_their_own_keep_it_where_they_are_moved(house: House) -> None:
    """The folder's is for the others."""
    house.save("live/_defaults.yaml", "priority: 10\n")
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        house.save("first.txt", "in progress\n")
        hold.wait_until_held()
        house.save("a.yaml", "prompt: a\npriority: 5\n")
        wait_for(lambda: "a.yaml: saved" in house.log())
        house.save("b.yaml", "- {prompt: low, priority: 1}\n- {prompt: high}\n")
        wait_for(lambda: "b.yaml: saved" in house.log())
        renamed(house, "b.yaml", "live/b.yaml")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 4, "all")
    assert house.started() == ["in progress", "high", "a", "low"]


def test_what_follows_an_image_goes_to_the_name_that_its_recipe_has_then(house: House) -> None:
    """Failure, contact sheet and archive, although the recipe was renamed in the middle."""
    hold = HeldEngine(house)
    with house.running(batch_size=1, when_done="archive"):
        house.save("a.yaml", "prompt: a\nseed: 1\ngrid: true\n")
        hold.wait_until_held()
        renamed(house, "a.yaml", "b.yaml")
        hold.release()
        wait_for(lambda: (house.outbox / "b/b.yaml").exists(), "the archived recipe")
    assert house.pictures() == ["a/0001-1.png", "b/0001-sheet.png"]
    assert not (house.inbox / "b.yaml").exists()


def test_a_failure_is_reported_beside_the_present_name_of_its_recipe(house: House) -> None:
    """Both that of an image in progress and one that was reported before."""
    go, started = threading.Event(), threading.Event()

    def fail(batch: object) -> None:
        started.set()
        go.wait()
        raise RenderFailed("Bad.")

    house.engine.before_batch = fail
    with house.running(batch_size=1):
        house.save("a.txt", "a\n")
        wait_for(started.is_set)
        renamed(house, "a.txt", "b.txt")
        go.set()
        wait_for(lambda: "Bad." in (house.error("b.txt") or ""), "the error")
        renamed(house, "b.txt", "c.txt")
        wait_for(lambda: "Bad." in (house.error("c.txt") or ""), "the error under its next name")
    assert house.error("a.txt") is None
    assert house.error("b.txt") is None
    assert "b.txt: seed" in house.log()


def test_defaults_that_are_being_written_are_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A recipe is answered with the defaults as they are when they are whole."""
    defaults = house.save("_defaults.yaml", "steps: 5\n")
    left, read_for = [7, 6], [""]

    def written_meanwhile(file: IO[bytes], most: int) -> Iterator[bytes]:
        yield from blocks_of(file, most)
        named = Path(f"/dev/fd/{file.fileno()}").resolve()
        if named == defaults and read_for[-1] == "a.txt" and left:
            defaults.write_text(f"steps: {left.pop()}\nseed: 1\n")

    def noted(root: Path, path: str) -> list[DefaultsFile]:
        read_for.append(path)  # the recipe, or its folder when its priority is looked up
        return defaults_for(root, path)

    monkeypatch.setattr("picowatch.inbox.files.blocks_of", written_meanwhile)
    monkeypatch.setattr("picowatch.inbox.inbox.defaults_for", noted)
    house.save("a.txt", "a corgi\n")
    assert house.once()
    assert house.error("a.txt") is None
    assert house.chunk("a/0001-1.png").request.steps == 7
    assert not left
