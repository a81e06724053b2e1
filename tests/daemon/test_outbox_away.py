"""The outbox is moved, unmounted or deleted in progress: nothing is lost or misplaced."""

import errno
import itertools
import os
import shutil
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from picowatch.outbox.commands import Commands
from picowatch.outbox.lock import OutboxLock
from tests.commands.picowatch import picowatch
from tests.daemon.test_one_fault_stops_nothing_else import held_after
from tests.daemon.test_trouble import ROOM, Reader, bind, disk, ends, process, stopped, unbind
from tests.house import PATIENCE, House, wait_for
from tests.kinds import one_of_each_kind

SMALL = "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 5\n"
MANY = SMALL.replace("count: 5", "count: 60")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again sooner."""
    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("picowatch.daemon.daemon.IDLE_SECONDS", 0.05)


def stands_for_all(house: House, count: int) -> bool:
    """Each picture is there once, and in the list once."""
    pictures = house.pictures()
    return len(pictures) == count and sorted(one["file"] for one in house.listed()) == pictures


def test_an_outbox_that_is_moved_and_comes_back_misses_nothing(house: House) -> None:
    """Nothing is written anywhere meanwhile, and no folder is created in its place."""
    go = held_after(house, 2)
    away = house.folder / "away"
    with house.running(batch_size=1):
        house.save("a.yaml", SMALL)
        wait_for(lambda: house.status()["images"]["done"] == 2)
        house.outbox.rename(away)
        go.set()
        wait_for(lambda: house.console.shown[-1].trouble, "the trouble on the console")
        house.save("b.yaml", SMALL.replace("seed: 1", "seed: 11"))
        shown = len(house.console.shown)
        wait_for(lambda: len(house.console.shown) > shown + 20, "some more looks")
        assert not house.outbox.exists()
        assert house.console.shown[-1].images["done"] == 2
        away.rename(house.outbox)
        wait_for(lambda: house.console.shown[-1].images["done"] == 10, "the rest")
        wait_for(lambda: stands_for_all(house, 10), "the lists")
        wait_for(lambda: "it can be written again; continuing" in house.log(), "the log")
    assert sorted(house.seeds()) == [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]
    words = "is not there, or another folder is in its place; waiting"
    assert house.log().count(f"cannot write: {house.outbox} {words}") == 1
    assert house.log().count("continuing") == house.log().count("; waiting") == 1


def test_an_outbox_that_goes_away_during_a_start_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is created in its place, which would keep it away for ever."""
    away, tries = house.folder / "away", itertools.count(1)

    def leave(outbox: Path) -> Commands:
        match next(tries):
            case 1:
                outbox.rename(away)
            case 4:
                away.rename(outbox)
        return Commands(outbox)

    monkeypatch.setattr("picowatch.daemon.commands.Commands", leave)
    with house.running():
        house.save("a.yaml", SMALL)
        wait_for(lambda: stands_for_all(house, 5), "the pictures")
    assert next(tries) == 5
    assert not away.exists()


def test_an_outbox_that_answers_with_errors_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a share does whose machine is off: nothing looks deleted or moved, all is an error."""
    stat, is_off = os.stat, threading.Event()

    def refuse(path: str | Path | int, **how: Any) -> os.stat_result:
        if is_off.is_set() and str(path).startswith(str(house.outbox)):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", refuse)
    house.save("a.yaml", SMALL)
    with house.running():
        wait_for(lambda: house.status()["images"]["done"] == 5)
        is_off.set()
        wait_for(lambda: house.console.shown[-1].trouble, "the trouble on the console")
        shown = len(house.console.shown)
        wait_for(lambda: len(house.console.shown) > shown + 20, "some more looks")
        is_off.clear()
        house.save("b.yaml", SMALL)
        wait_for(lambda: len(house.pictures("b")) == 5, "the pictures of the next save")


def test_a_ledger_that_cannot_be_looked_at_is_not_another_one(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share may answer once with an error: nothing is started over, and no picture given up."""
    stat, refused = os.stat, SimpleQueue[str]()

    def refuse(path: str | Path | int, **how: Any) -> os.stat_result:
        if str(path).endswith("ledger.sqlite") and threading.current_thread().name == "daemon":
            refused.put(str(path))
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return stat(path, **how)

    with house.running():
        monkeypatch.setattr(os, "stat", refuse)
        (daemon,) = (one for one in threading.enumerate() if one.name.endswith("(live)"))
        daemon.name = "daemon"
        assert refused.get(timeout=PATIENCE)
        house.save("a.yaml", SMALL)
        wait_for(lambda: len(house.pictures("a")) == 5, "the pictures")
    assert "replaced" not in house.log()


def test_another_folder_in_the_outbox_place_stays_as_it_is(house: House) -> None:
    """An empty mount point is no outbox: nothing is written there."""
    go = held_after(house, 2)
    away = house.folder / "away"
    with house.running(batch_size=1):
        house.save("a.yaml", SMALL)
        wait_for(lambda: house.status()["images"]["done"] == 2)
        house.outbox.rename(away)
        house.outbox.mkdir()
        go.set()
        wait_for(lambda: house.console.shown[-1].trouble, "the trouble on the console")
        shown = len(house.console.shown)
        wait_for(lambda: len(house.console.shown) > shown + 20, "some more looks")
        assert list(house.outbox.iterdir()) == []
        house.outbox.rmdir()
        away.rename(house.outbox)
        wait_for(lambda: house.console.shown[-1].images["done"] == 5, "the rest")
        wait_for(lambda: stands_for_all(house, 5), "the lists")


def test_an_outbox_that_is_away_at_the_end_is_finished_at_the_next_start(house: House) -> None:
    """What was rendered and not written is rendered again, once."""
    go = held_after(house, 2)
    away = house.folder / "away"
    with house.running(batch_size=1):
        house.save("a.yaml", SMALL)
        wait_for(lambda: house.status()["images"]["done"] == 2)
        house.outbox.rename(away)
        go.set()
        wait_for(lambda: house.console.shown[-1].trouble, "the trouble on the console")
    assert not house.outbox.exists()
    away.rename(house.outbox)
    assert house.once()
    assert house.seeds() == [1, 2, 3, 4, 5]
    assert stands_for_all(house, 5)


def test_an_outbox_that_is_unmounted_and_mounted_again_gets_every_picture(house: House) -> None:
    """The mount point stays empty; the disk that comes back is the outbox again."""
    with disk(house.folder / "stick", ROOM), ExitStack() as mounts:
        stick = house.folder / "stick"
        house.outbox.mkdir()
        bind(stick, house.outbox)
        mounts.callback(lambda: subprocess.run(["umount", "-l", house.outbox], check=False))
        with process(house) as daemon:
            lines = Reader(daemon)
            house.save("a.yaml", MANY)
            wait_for(lambda: len(house.pictures()) > 5)
            unbind(house.outbox)
            wait_for(lambda: lines.say("another folder is in its place; waiting"))
            assert list(house.outbox.iterdir()) == []
            bind(stick, house.outbox)
            wait_for(lambda: stands_for_all(house, 60), "the pictures")
            assert ends(daemon) == 0
        assert sorted(house.seeds()) == list(range(1, 61))
        unbind(house.outbox)
        assert list(house.outbox.iterdir()) == []


def delete(folder: Path) -> None:
    """At once: deleted file by file, picowatch may write between two of them."""
    aside = folder.parent.with_name("deleted")
    folder.rename(aside)
    shutil.rmtree(aside)


@pytest.mark.parametrize(
    "what",
    one_of_each_kind(
        [".picowatch", ".picowatch/ledger.sqlite", ".picowatch/lock"], [".picowatch/ledger.sqlite"]
    ),
)
def test_state_that_is_deleted_while_running_is_rebuilt(house: House, what: str) -> None:
    """From the list; and a second picowatch is still refused.

    Only what was just being written, and is in no list, may be rendered twice.
    """
    with process(house) as daemon:
        lines = Reader(daemon)
        house.save("a.yaml", MANY)
        wait_for(lambda: len(house.pictures()) > 5)
        gone = house.outbox / what
        delete(gone) if gone.is_dir() else gone.unlink()
        wait_for(lambda: lines.say("picowatch starts over"))
        wait_for(lambda: lines.count("is watching") == 2, "the new beginning")
        house.save("b.yaml", SMALL.replace("seed: 1", "seed: 1001"))
        assert picowatch(house.folder, "run").returncode == 3
        seeds = [*range(1, 61), *range(1001, 1006)]
        wait_for(lambda: sorted(one["seed"] for one in house.listed()) == seeds, "the pictures")
        assert ends(daemon) == 0
    assert sorted(set(house.seeds())) == seeds
    assert len(house.pictures()) <= len(seeds) + 3, "a batch"


def test_a_second_picowatch_that_took_the_outbox_ends_the_first(house: House) -> None:
    """Where somebody deleted the first one's lock: it says so."""
    with process(house) as first:
        lines = Reader(first)
        wait_for(lambda: lines.say("is watching"))
        wait_for(lambda: house.status()["images"] is not None)
        with stopped(first):  # it would be the second one itself if it were quicker
            delete(house.outbox / ".picowatch")
            (house.outbox / ".picowatch").mkdir()
            lock = OutboxLock(house.outbox)
        wait_for(lambda: lines.say("Another picowatch is already using the outbox"))
        first.wait(60)
        lock.release()
