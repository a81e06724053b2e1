"""Thousands of recipes at once: exactly the right pictures, in little memory.

`make test-heavy` takes ten thousand; `LOAD=all` larger folders, too.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from picowatch.outbox.commands import Command, send
from tests.house import House
from tests.load.live_daemon import live_daemon
from tests.load.recipes import EDITED, Pictures, name_of, text_of, write_recipes

pytestmark = pytest.mark.timeout(900)

MEBIBYTES = 90  # that the daemon may hold
ALL = os.environ.get("LOAD") == "all"
FOLDER = 5_000 if ALL else 250
CHANGED = 3_000 if ALL else 100  # by another branch


def copy_in(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-r", f"{source}/.", target], check=True)


def log_words(house: House, word: str) -> int:
    return house.log().count(word)


def assert_calm(house: House, *allowed: str) -> None:
    """Nothing in the log is worth a warning, but for these words."""
    lines = house.log().splitlines()
    loud = [line for line in lines if line[20:].startswith(("warning ", "error "))]
    assert [line for line in loud if not any(words in line for words in allowed)] == []


def assert_a_further_run_makes_nothing(house: House) -> None:
    assert house.once()
    assert house.engine.batches == []


class Crowd:
    """Many recipes on their way: some are edited, some deleted, each once."""

    def __init__(self, house: House, count: int) -> None:
        self._house = house
        self._count = count
        self._left = random.Random(4).sample(range(count), count)
        self.final = {name_of(number, count): number for number in range(count)}
        self.gone: set[str] = set()

    def edit(self, count: int) -> None:
        """Half of them in place, half by renaming a temporary over them."""
        for turn, number in enumerate(self._take(count)):
            name = name_of(number, self._count)
            path, text = self._house.inbox / name, text_of(number + EDITED)
            if turn % 2:
                path.write_text(text)
            else:
                temporary = path.with_name(f".{path.name}.tmp")
                temporary.write_text(text)
                temporary.replace(path)
            self.final[name] = number + EDITED

    def delete(self, count: int) -> None:
        for number in self._take(count):
            name = name_of(number, self._count)
            (self._house.inbox / name).unlink()
            del self.final[name]
            self.gone.add(name)

    def _take(self, count: int) -> list[int]:
        taken, self._left = self._left[:count], self._left[count:]
        return taken

    def is_answered(self) -> bool:
        """Whether every recipe that is there has its last picture, and the others are missed."""
        pictures = Pictures(self._house)
        missed = all(
            recipe not in self.gone or recipe in pictures.deleted for recipe in pictures.queued
        )
        return missed and all(
            seed in pictures.seeds.get(recipe, ()) for recipe, seed in self.final.items()
        )

    def assert_answered_exactly(self) -> None:
        pictures = Pictures(self._house)
        pictures.assert_consistent()
        for recipe, seed in self.final.items():
            assert set(pictures.seeds[recipe]) <= {seed, seed % EDITED}, recipe
            assert pictures.seeds[recipe][-1] == seed, recipe
        for recipe in self.gone:
            assert len(pictures.seeds.get(recipe, ())) <= 1, recipe


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_a_crowd_of_recipes_edited_and_deleted_in_progress_ends_exactly_right(
    house: House, count: int
) -> None:
    """Each has the picture of its last bytes, none is made twice or for nobody; memory is small."""
    write_recipes(house.folder / "source", count)
    crowd = Crowd(house, count)
    with live_daemon(house, held=True) as daemon:
        copy_in(house.folder / "source", house.inbox)
        daemon.wait_for(lambda: daemon.images()["queued"] > count // 5, "a part of the crowd")
        crowd.edit(count // 40)
        crowd.delete(count // 100)
        daemon.wait_for(lambda: daemon.images()["queued"] > count // 2, "half of the crowd")
        daemon.release()
        daemon.wait_for(lambda: daemon.made() > count // 10, "a tenth of the pictures")
        crowd.edit(count // 40)
        crowd.delete(count // 100)
        daemon.wait_until_idle()
        daemon.wait_for(crowd.is_answered, "every answer")
        assert daemon.mebibytes() < MEBIBYTES
    crowd.assert_answered_exactly()
    assert_calm(house)
    assert_a_further_run_makes_nothing(house)


def _move(house: House) -> None:
    (house.inbox / "a").rename(house.inbox / "b")


def _move_one_by_one(house: House) -> None:
    (house.inbox / "b").mkdir()
    for path in sorted((house.inbox / "a").iterdir()):
        path.rename(house.inbox / "b" / path.name)


@pytest.mark.parametrize("move", [_move, pytest.param(_move_one_by_one, marks=pytest.mark.heavy)])
def test_a_renamed_folder_of_recipes_keeps_its_queue(
    house: House, move: Callable[[House], None]
) -> None:
    """Nothing is cancelled, drawn or rendered again: as when a single recipe is renamed."""
    count = FOLDER
    (house.inbox / "a").mkdir()
    for number in range(count):
        house.save(f"a/r{number:05}.yaml", f"prompt: corgi {number}\nsize: 64x64\nsteps: 1\n")
    with live_daemon(house, held=True) as daemon:
        daemon.wait_until_asked(count)
        move(house)
        daemon.wait_for(lambda: log_words(house, ", its queue is kept") == count, "the new names")
        daemon.release()
        daemon.wait_until_idle()
        assert daemon.images() == {
            "queued": 0, "running": 0, "done": count, "failed": 0, "cancelled": 0,
        }  # fmt: skip
    assert log_words(house, ": saved, ") == count
    listed = {line["recipe"] for line in house.listed()}
    in_progress = {recipe for recipe in listed if recipe.startswith("a/")}
    assert len(listed) == count
    assert len(in_progress) <= 16, "what was in progress keeps the name that it had"
    assert_calm(house)
    assert_a_further_run_makes_nothing(house)


def _delete(house: House) -> None:
    shutil.rmtree(house.inbox / "a")


def _move_out(house: House) -> None:
    (house.inbox / "a").rename(house.folder / "elsewhere")


@pytest.mark.parametrize("remove", [_delete, pytest.param(_move_out, marks=pytest.mark.heavy)])
def test_a_deleted_folder_of_recipes_is_cancelled_whole(
    house: House, remove: Callable[[House], None]
) -> None:
    """However many there are; what lies beside it stays."""
    count = FOLDER
    (house.inbox / "a").mkdir()
    for number in range(count):
        house.save(f"a/r{number:05}.yaml", text_of(number))
    with live_daemon(house, held=True, batch_size=1) as daemon:
        daemon.wait_until_asked(count)
        daemon.wait_for(lambda: daemon.images()["running"] == 1, "the one in progress")
        house.save("stays.yaml", text_of(count))
        remove(house)
        daemon.wait_for(lambda: daemon.images()["cancelled"] == count, "the deletions")
        daemon.release()
        daemon.wait_until_idle()
    Pictures(house).assert_consistent()
    assert [line["seed"] for line in house.listed()] == [count], "what was in progress is stopped"
    assert_calm(house)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_checkout_is_a_save_of_what_it_changed(house: House) -> None:
    """Another branch brings other bytes for many recipes; the rest is left alone."""
    count, changed = CHANGED * 3 // 2, CHANGED

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *identity, "-C", house.inbox, *arguments], check=True)

    write_recipes(house.inbox, count)
    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("checkout", "-q", "-b", "other")
    for number in range(changed):
        house.save(name_of(number, count), text_of(number + EDITED))
    git("commit", "-q", "-a", "-m", "second")
    git("checkout", "-q", "main")
    with live_daemon(house) as daemon:
        daemon.wait_until_made(count)
        git("checkout", "-q", "other")
        daemon.wait_until_made(count + changed)
        git("checkout", "-q", "main")
        daemon.wait_for(
            lambda: log_words(house, "nothing new to render") == changed, "the first bytes again"
        )
    pictures = Pictures(house)
    pictures.assert_consistent()
    for number in range(count):
        seeds = [number, number + EDITED] if number < changed else [number]
        assert pictures.seeds[name_of(number, count)] == seeds
    assert_a_further_run_makes_nothing(house)


@pytest.mark.heavy
def test_large_recipes_at_once_take_little_memory(house: House) -> None:
    """Few are read at a time, so that two hundred of a megabyte each are not held at once."""
    count = 160
    comment = "#" + "x" * 99 + "\n"
    source = house.folder / "source"
    source.mkdir()
    for number in range(count):
        (source / f"r{number:05}.txt").write_text(comment * 10_000 + f"recipe {number}\n")
    with live_daemon(house, held=True) as daemon:
        copy_in(source, house.inbox)
        daemon.wait_until_asked(count)
        assert daemon.mebibytes() < MEBIBYTES


def test_what_is_cancelled_while_picowatch_is_stopped_is_never_rendered(house: House) -> None:
    """It learns of the saves and of the command at once, and accepts them in several rounds."""
    with live_daemon(house) as daemon:
        daemon.stop()
        for number in range(300):
            house.save(f"night/{number}.yaml", text_of(number))
        command = send(house.outbox, Command("cancel", "night"))
        daemon.go_on()
        daemon.wait_for(lambda: not command.exists(), "the answer")
        daemon.wait_until_idle()
    assert house.pictures() == []
    assert house.status()["images"]["cancelled"] == 300
