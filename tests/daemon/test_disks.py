"""Full, read-only, locked and absent disks: picowatch waits, logs it once, and continues."""

import errno
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from picowatch.daemon import followups
from picowatch.daemon.round import MAX_DAEMON_DEATHS
from picowatch.files.atomic import write_atomically
from picowatch.files.essential import Writing
from picowatch.inbox import named_pictures
from picowatch.outbox.outbox import Outbox
from tests.commands.picowatch import picowatch_here
from tests.daemon.processes import disk, ends, fill, process, remount, stopped, without_privileges
from tests.fault_points import preceded_by, refusing, wrap
from tests.house import House, faults, wait_for

FULL = "(0 MB are free on the outbox's disk)"
SMALL = "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 5\n"
OTHER = SMALL.replace("seed: 1", "seed: 11").replace("count: 5", "count: 30")
SEEDS = [*range(1, 6), *range(11, 41)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picowatch.ledger.ledger.LOCK_SECONDS", 0.03)


# -- troubles that come while picowatch runs, and go


@contextmanager
def full(house: House, room: int) -> Iterator[None]:
    """Leave this much room, so that a picture, the journal or a list's line is cut off."""
    filler = fill(house.outbox)
    os.truncate(filler, max(0, filler.stat().st_size - room))
    yield
    filler.unlink()


@contextmanager
def locked(house: House) -> Iterator[None]:
    how: dict[str, Any] = {"isolation_level": None, "check_same_thread": False}
    with closing(sqlite3.connect(house.ledger, **how)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextmanager
def moved(house: House) -> Iterator[None]:
    """Move or unmount it: nothing is written into an empty folder at its path, nor is one made."""
    away = house.outbox.rename(house.outbox.with_name("away"))
    yield
    assert not house.outbox.exists()
    house.outbox.mkdir()
    house.wait_for_rounds(3)
    assert list(house.outbox.iterdir()) == []
    house.outbox.rmdir()
    away.rename(house.outbox)


@contextmanager
def answering_with_errors(house: House, what: str) -> Iterator[None]:
    """Answer all calls with an error, like a share whose machine is off."""
    place = str(house.outbox / what)
    refuse = refusing(errno.ENOTCONN, lambda path, **_: str(path).startswith(place))
    with pytest.MonkeyPatch.context() as patch:
        wrap("os:stat", preceded_by(refuse), patch.setattr)
        yield


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (partial(full, room=0), FULL),
        pytest.param(partial(full, room=20_000), FULL, marks=pytest.mark.heavy),
        pytest.param(partial(full, room=40_000), FULL, marks=pytest.mark.heavy),
        (locked, "database is locked"),
        (moved, "is not there, or another folder is in its place"),
        (partial(answering_with_errors, what=""), ""),
        (partial(answering_with_errors, what=".picowatch/ledger.sqlite"), ""),
    ],
)
def test_trouble_is_waited_for_and_nothing_is_failed(
    house: House,
    caplog: pytest.LogCaptureFixture,
    trouble: Callable[[House], AbstractContextManager[None]],
    said: str,
) -> None:
    """It is logged once; each picture is there once, complete and in the list."""
    house.console.handler = caplog.handler
    with disk(house.outbox.parent / "stick"):
        house.outbox = house.folder / "stick/outbox"
        with house.running():
            house.save("a.yaml", SMALL)
            wait_for(lambda: house.status()["images"]["done"] == 5)
            with house.seen_at_once():  # else what it is writing may leave a little room
                going_on = trouble(house)
                going_on.__enter__()
                house.save("b.yaml", OTHER)
                house.save("wrong.yaml", "promt: a typo\n")
            if said:
                wait_for(lambda: f"{said}; waiting" in caplog.text, said)
                wait_for(lambda: house.console.shown[-1].trouble, "the trouble in the status")
            house.wait_for_rounds(3)
            going_on.__exit__(None, None, None)
            wait_for(lambda: len(house.listed()) == len(SEEDS), "the pictures")
            wait_for(lambda: house.error("wrong.yaml"), "the error file")
            wait_for(lambda: not house.console.shown[-1].trouble, "the end of the trouble")
            house.wait_for_rounds(3)
            assert house.status()["images"]["done"] == len(SEEDS), "however long a lock was held"
        assert sorted(house.seeds()) == SEEDS
        assert list(faults(house.outbox)) == []
        for words in ("; waiting", "; continuing"):
            count = caplog.text.count(words)
            assert count <= 1 and (count or not said), caplog.text
        assert house.error("b.yaml") is None
        assert "replaced" not in house.log()


def test_two_engines_trouble_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A successful write of one does not end the other's trouble."""
    caplog.set_level("INFO", "picowatch")
    writing = Writing(threading.Event(), tmp_path)
    full = OSError(errno.ENOSPC, "No space left on device")
    engine, other = ("thread", "one"), ("thread", "other")
    for _ in range(3):
        writing.refused(engine, full)
        writing.works(other)
        writing.refused(other, full)
    assert caplog.text.count("cannot write") == 1
    writing.works(other)
    assert writing.trouble and "continuing" not in caplog.text
    writing.works(engine)
    assert caplog.text.count("; continuing") == 1
    assert not writing.trouble


def test_a_disk_that_fills_as_a_start_image_is_copied_refuses_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The picture may be open meanwhile, but the fault is not its own."""
    write, refused = write_atomically, [OSError(errno.ENOSPC, "No space left")]

    def full_once(path: Path, content: Any) -> None:
        if refused:
            raise refused.pop()
        write(path, content)

    monkeypatch.setattr(named_pictures, "write_atomically", full_once)
    house.draw("start.png")
    house.save("a.yaml", "prompt: a corgi\nseed: 1\nsize: 64x64\nimage: start.png\n")
    assert house.once()
    assert not refused and house.seeds() == [1]
    assert house.error("a.yaml") is None


@pytest.mark.parametrize("how", ["full", "locked"])
def test_a_single_run_waits_for_nothing_and_ends_in_words(house: House, how: str) -> None:
    """It has exit code 1 and no traceback; the next run renders what is missing."""
    said = {"full": FULL, "locked": ": database is locked"}[how]
    with disk(house.outbox):
        assert house.once()
        house.save("a.yaml", SMALL)
        with full(house, 0) if how == "full" else locked(house):
            quick = {"PICOWATCH_SETTLE_SECONDS": "0.05"}
            ended = picowatch_here(house.folder, "run", "--once", **quick)
        assert ended.returncode == 1
        assert said in ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        assert house.once()
        assert house.seeds() == [1, 2, 3, 4, 5]
        assert house.error("a.yaml") is None


def test_an_end_that_a_full_disk_keeps_from_the_ledger_is_no_death(house: House) -> None:
    """The pictures in progress are not at fault, however often it happens."""
    house.save("a.yaml", SMALL)
    with disk(house.outbox):
        fills: list[Path] = []
        house.engine.before_batch = lambda batch: fills.append(fill(house.outbox))
        for _ in range(MAX_DAEMON_DEATHS + 1):
            assert not house.once(batch_size=5)
            fills.pop().unlink()
        house.engine.before_batch = lambda batch: None
        assert house.once()
        assert house.seeds() == [1, 2, 3, 4, 5]
        assert house.error("a.yaml") is None
        assert "was killed" not in house.log()


@pytest.mark.parametrize("what", ["the inbox moved away", "dropped pictures, too", "a file grows"])
def test_a_single_run_waits_ten_settle_times_for_the_inbox(house: House, what: str) -> None:
    """It renders all else, says what it waited for, and has exit code 1; the next one continues."""
    is_over = threading.Event()

    def grow() -> None:
        while not is_over.wait(0.01):
            with (house.inbox / "growing.yaml").open("a") as file:
                file.write("# more\n")

    growing = threading.Thread(target=grow)

    def change(done: int) -> None:
        if what != "a file grows":
            if house.inbox.exists():
                house.inbox.rename(house.folder / "away")
        elif not growing.ident:
            growing.start()

    house.save("a.yaml", SMALL)
    if what == "dropped pictures, too":
        house.save("p/_pictures.yaml", "prompt: a fox\n")
        for number in range(3):
            house.draw(f"p/{number}.png")
    house.engine.after_step = change
    assert not house.once(when_done="archive", batch_size=2, settle_seconds=0.2)
    is_over.set()
    said = "growing.yaml" if what == "a file grows" else "inbox is not there"
    assert said in house.log().split("picowatch exits: ")[-1]
    assert len(house.pictures("a")) == 5
    house.engine.after_step = lambda done: None
    if (away := house.folder / "away").exists():
        away.rename(house.inbox)
    house.save("growing.yaml", SMALL)
    assert house.once(when_done="archive")
    assert len(house.listed()) == 10 + 3 * (what == "dropped pictures, too")


# -- in the middle of a start, or before it


def test_a_read_only_outbox_is_waited_for(house: House) -> None:
    """In a new outbox it is a mistake: a service's unit may forbid writing there."""
    with disk(house.outbox):
        remount(house.outbox, "ro")
        ended = picowatch_here(house.folder, "run")
        assert ended.returncode == 2
        assert "outbox cannot be written: Read-only file system. " in ended.stderr
        assert "ReadWritePaths=" in ended.stderr
        remount(house.outbox, "rw")
        assert house.once()
        remount(house.outbox, "ro")
        house.save("b.yaml", SMALL)
        with process(house, *without_privileges()) as daemon:
            console = house.folder / "console"
            wait_for(lambda: "Read-only file system" in console.read_text(), "the message")
            remount(house.outbox, "rw")
            wait_for(lambda: len(house.pictures("b")) == 5, "the pictures")
            folders = [house.outbox, *(path for path in house.outbox.rglob("*") if path.is_dir())]
            for mode, saved in ((0o555, "c.yaml"), (0o755, "d.yaml")):
                with stopped(daemon):
                    for folder in folders:
                        folder.chmod(mode)
                house.save(saved, SMALL)
                wait_for(lambda: console.read_text().count("; waiting") == 2, "the second trouble")
            wait_for(lambda: house.pictures("c") and house.pictures("d"), "the pictures")
            ends(daemon)
        assert house.error("c.yaml") is None


def test_the_folder_in_which_it_was_started_may_be_moved_and_replaced(house: House) -> None:
    """It writes nothing where the folder was moved to, and goes on in a backup at its place."""
    elsewhere, file = house.folder.with_name("elsewhere"), house.folder / "picowatch.yaml"
    file.write_text("format: webp\n")
    with process(house) as picowatch:
        house.save("a.txt", "one --seed 1\n")
        wait_for(lambda: house.pictures() == ["a/0001-1.webp"], "the first picture")
        house.folder.rename(elsewhere)
        away = f"{house.outbox} is not there, or another folder is in its place; waiting"
        wait_for(lambda: away in (elsewhere / "console").read_text(), "the trouble")
        (elsewhere / "inbox/b.txt").write_text("two --seed 2\n")
        shutil.copytree(elsewhere, house.folder)
        shutil.rmtree(elsewhere)
        wait_for(lambda: house.pictures("b") == ["b/0001-2.webp"], "the second picture")
        file.write_text("format: png\n")
        wait_for(lambda: house.log().count("is watching") == 3, "the new settings")
        house.save("c.txt", "three --seed 3\n")
        wait_for(lambda: house.pictures("c") == ["c/0001-3.png"], "the third picture")
        ends(picowatch)
    assert house.prompts() == ["one", "two", "three"]


def test_recipes_that_wait_for_a_folder_do_not_use_up_a_round(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, those after them are archived."""
    archive = Outbox.archive

    def refuse(outbox: Outbox, name: str, blocks: Iterator[bytes], mtime_ns: int | None) -> None:
        if name == "a/a.yaml":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), f"{outbox.root}/a")
        archive(outbox, name, blocks, mtime_ns)

    monkeypatch.setattr(Outbox, "archive", refuse)
    monkeypatch.setattr(followups, "SLICE_SECONDS", 0.0)
    with house.running(when_done="archive"):
        house.save("a.yaml", SMALL)
        wait_for(lambda: "cannot write a: Permission denied; waiting" in house.log(), "the first")
        after = house.save("b.yaml", SMALL)
        wait_for(lambda: not after.exists(), "the one after it")
    assert (house.inbox / "a.yaml").exists()
