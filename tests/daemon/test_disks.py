"""Full, read-only, locked and absent disks: picowatch waits, logs it once, and continues."""

import errno
import itertools
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from picowatch.files.retry import Retry
from picowatch.outbox.commands import Command, Commands, send
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.log import close_log, open_log
from tests.commands.picowatch import DIGESTS, picowatch
from tests.daemon.processes import (
    Reader,
    disk,
    ends,
    fill,
    process,
    remount,
    stopped,
    without_privileges,
)
from tests.house import HeldEngine, House, wait_for

SMALL = "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 5\n"
OTHER = SMALL.replace("seed: 1", "seed: 11")


class Lines(logging.Handler):
    """The console's lines, which no disk can keep back."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def says(self, words: str) -> bool:
        return any(words in line for line in self.lines)


@pytest.fixture
def console(house: House) -> Lines:
    """What the user sees."""
    house.console.handler = Lines()  # type: ignore[assignment]
    return house.console.handler  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again sooner."""
    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.05)
    monkeypatch.setattr("picowatch.daemon.daemon.IDLE_SECONDS", 0.05)


def assert_all_is_there(house: House, *seeds: int) -> None:
    """Each picture once, whole and in the list, the trouble said once, and nothing failed."""
    assert sorted(house.seeds()) == sorted(seeds)
    for picture in house.pictures():
        with Image.open(house.outbox / picture) as image:
            image.load()
    assert sorted(line["file"] for line in house.listed()) == house.pictures()
    assert house.log().count("; waiting") == house.log().count("; continuing") == 1
    assert list(house.outbox.rglob(".picowatch-*")) == []
    assert house.error("a.yaml") is house.error("b.yaml") is None


def wait_for_looks(house: House) -> None:
    """Until the daemon has looked at everything some more times."""
    shown = len(house.console.shown)
    wait_for(lambda: len(house.console.shown) > shown + 10, "some more looks")


# -- full


@pytest.mark.parametrize("room", [0, 20_000, 40_000])
def test_a_full_disk_is_waited_for_and_nothing_is_failed(
    house: House, console: Lines, room: int
) -> None:
    """In the middle of a picture, of the ledger's journal, of a list's line, of an error file."""
    with disk(house.outbox):
        with house.running():
            house.save("a.yaml", SMALL)
            wait_for(lambda: house.status()["images"]["done"] == 5)
            with house.seen_at_once():  # else what it is writing may leave a little room
                filler = fill(house.outbox)
                os.truncate(filler, max(0, filler.stat().st_size - room))
            house.save("b.yaml", OTHER.replace("count: 5", "count: 40"))
            house.save("wrong.yaml", "promt: a typo\n")
            wait_for(lambda: console.says("(0 MB are free on the outbox's disk); waiting"))
            wait_for(lambda: house.console.shown[-1].trouble, "the trouble in the status")
            filler.unlink()
            wait_for(lambda: len(house.listed()) == 45, "the pictures")
            wait_for(lambda: house.error("wrong.yaml"), "the error file")
            wait_for(lambda: "; continuing" in house.log(), "the log")
        assert_all_is_there(house, *range(1, 6), *range(11, 51))


def test_lines_that_a_full_disk_refused_are_logged_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In their order, each once; also where the log would be rotated meanwhile."""
    monkeypatch.setattr("picowatch.outbox.log.LOG_BYTES", 20_000)
    log = logging.getLogger("picowatch")
    with disk(tmp_path / "disk"):
        open_log(tmp_path / "disk/picowatch.log", "text", None)
        try:
            for number in range(350):
                log.info("picture %s", number)
            filler = fill(tmp_path / "disk")
            for number in range(350, 1000):
                log.info("picture %s", number)
            filler.unlink()
            log.info("picture 1000")
        finally:
            close_log()
        files = sorted((tmp_path / "disk").glob("picowatch.log*"), reverse=True)
        lines = [line for file in files for line in file.read_text().splitlines()]
    assert [int(line.rpartition(" ")[2]) for line in lines] == [*range(1001)]


def test_trouble_of_two_engines_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What one of them can write does not end the other's trouble."""
    caplog.set_level("INFO", "picowatch")
    retry = Retry(threading.Event(), tmp_path, keeps_trying=True)

    def by(engine: str, call: Callable[[], object]) -> None:
        thread = threading.Thread(target=call, name=engine)
        thread.start()
        thread.join()

    full = OSError(errno.ENOSPC, "No space left on device")
    for _ in range(3):
        by("publisher_0", lambda: retry.failed(full))
        by("publisher_1", retry.worked)
        by("publisher_1", lambda: retry.failed(full))
    assert caplog.text.count("cannot write") == 1
    by("publisher_1", retry.worked)
    assert retry.trouble and "continuing" not in caplog.text
    by("publisher_0", retry.worked)
    assert caplog.text.count("; continuing") == 1
    assert not retry.trouble


def _from_sqlite(code: int, words: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "is_of_room"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (_from_sqlite(sqlite3.SQLITE_CANTOPEN, "unable to open database file"), True),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (OSError(errno.EMFILE, "Too many open files"), False),
        (_from_sqlite(sqlite3.SQLITE_BUSY, "database is locked"), False),
    ],
)
def test_only_a_lack_of_room_says_how_much_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_of_room: bool
) -> None:
    """On a disk that is nearly full, other trouble has nothing to do with that."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=52_000_000))
    retry = Retry(threading.Event(), tmp_path, keeps_trying=True)
    retry.failed(error)
    room = " (52 MB are free on the outbox's disk)" if is_of_room else ""
    assert retry.trouble == f"{error}{room}"


def test_a_signal_ends_the_waiting_for_a_disk(house: House) -> None:
    """Within two seconds, with exit code 0; the next start renders the pictures."""
    with disk(house.outbox):
        with process(house) as daemon:
            lines = Reader(daemon)
            house.save("a.yaml", SMALL)
            wait_for(lambda: len(house.pictures()) == 5)
            filler = fill(house.outbox)
            house.save("b.yaml", OTHER)
            wait_for(lambda: lines.count("; waiting"))
            assert ends(daemon) == 0
        filler.unlink()
        assert house.once()
        assert len(house.pictures()) == 10


def test_the_ledger_needs_no_room_in_the_temporary_folder(house: House) -> None:
    """A full /tmp is another disk than the one that messages name, and others fill it."""
    house.save("a.yaml", SMALL.replace("count: 5", "count: 40"))
    house.save("b.yaml", "prompt: b\nseed: 1\nsteps: 1\nsweep: {cfg_scale: [1, 2]}\n")
    folder = house.folder / "tmp"
    folder.mkdir()
    before = folder.stat().st_mtime_ns
    picowatch(house.folder, "run", "--once", program=DIGESTS, TMPDIR=str(folder))
    assert len(house.pictures()) == 43
    assert folder.stat().st_mtime_ns == before


# -- single runs wait for nothing


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("full", "cannot be written: [Errno 28] No space left on device"),
        ("locked", "cannot be written: database is locked"),
    ],
)
def test_a_single_run_ends_in_words(house: House, how: str, said: str) -> None:
    """With exit code 1 and no traceback."""
    house.save("a.yaml", SMALL)
    with disk(house.outbox):
        if how == "full":
            fill(house.outbox)
            ended = picowatch(house.folder, "run", "--once", program=DIGESTS)
        else:
            assert house.once()
            house.save("a.yaml", OTHER)
            with locked(house):
                ended = picowatch(house.folder, "run", "--once", program=DIGESTS)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@contextmanager
def locked(house: House) -> Iterator[sqlite3.Connection]:
    """Another program looks into the ledger, as a backup or a shell may."""
    path = house.outbox / ".picowatch/ledger.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield other


@pytest.mark.parametrize("when", ["in progress", "at the start"])
def test_a_locked_ledger_is_waited_for(house: House, when: str) -> None:
    """It is said once."""
    house.save("a.yaml", SMALL)
    assert house.once()

    def let_go_once_it_is_said(other: sqlite3.Connection) -> None:
        wait_for(lambda: "cannot write: database is locked; waiting" in house.log(), "the log")
        other.execute("ROLLBACK")

    if when == "in progress":
        with house.running():
            with locked(house) as other:
                house.save("b.yaml", OTHER)
                wait_for(lambda: house.status()["trouble"] == "database is locked")
                let_go_once_it_is_said(other)
            wait_for(lambda: len(house.listed()) == 10, "the pictures")
    else:
        house.save("b.yaml", OTHER)
        with locked(house) as other:
            holder = threading.Thread(target=let_go_once_it_is_said, args=(other,))
            holder.start()
            with house.running():
                wait_for(lambda: len(house.listed()) == 10, "the pictures")
            holder.join()
    assert_all_is_there(house, *range(1, 6), *range(11, 16))


# -- read-only


def test_a_read_only_outbox_is_waited_for(house: House) -> None:
    """Somebody took the permission away, or the system mounted it read-only after an error."""
    with process(house, *without_privileges()) as daemon:
        lines = Reader(daemon)
        house.save("a.yaml", SMALL)
        wait_for(lambda: (house.status()["images"] or {}).get("done") == 5)
        with stopped(daemon):
            folders = [house.outbox, *(path for path in house.outbox.rglob("*") if path.is_dir())]
            for folder in folders:
                folder.chmod(0o555)
        house.save("b.yaml", OTHER)
        wait_for(lambda: lines.count("; waiting"))
        with stopped(daemon):
            for folder in folders:
                folder.chmod(0o755)
        wait_for(lambda: len(house.listed()) == 10)
        wait_for(lambda: "; continuing" in house.log())
        assert ends(daemon) == 0
    assert_all_is_there(house, *range(1, 6), *range(11, 16))


def test_a_read_only_disk_is_waited_for_where_picowatch_has_worked_before(house: House) -> None:
    """The system mounts a disk so after an error. Else a service's unit forbids to write there."""
    with disk(house.outbox):
        remount(house.outbox, "ro")
        ended = picowatch(house.folder, "run")
        assert ended.returncode == 2
        assert "outbox cannot be written: Read-only file system. " in ended.stderr
        assert "ReadWritePaths=" in ended.stderr
        remount(house.outbox, "rw")
        house.save("a.yaml", SMALL)
        assert house.once()
        remount(house.outbox, "ro")
        house.save("b.yaml", OTHER)
        with process(house) as daemon:
            lines = Reader(daemon)
            wait_for(lambda: lines.count("Read-only file system"), "the message")
            remount(house.outbox, "rw")
            wait_for(lambda: len(house.pictures("b")) == 5, "the pictures")
            assert ends(daemon) == 0


# -- away


def test_an_outbox_that_is_moved_and_comes_back_misses_nothing(house: House) -> None:
    """Nothing is written meanwhile, also not into an empty mount point; it is said once."""
    hold = HeldEngine(house, after=2)
    away = house.folder / "away"
    with house.running(batch_size=1):
        house.save("a.yaml", SMALL)
        hold.wait_until_held()
        wait_for(lambda: house.status()["images"]["done"] == 2)
        house.outbox.rename(away)
        hold.release()
        wait_for(lambda: house.console.shown[-1].trouble, "the trouble on the console")
        house.save("b.yaml", OTHER)
        wait_for_looks(house)
        assert not house.outbox.exists()
        house.outbox.mkdir()
        wait_for_looks(house)
        assert list(house.outbox.iterdir()) == []
        house.outbox.rmdir()
        away.rename(house.outbox)
        wait_for(lambda: len(house.listed()) == 10, "the rest")
        wait_for(lambda: "it can be written again; continuing" in house.log(), "the log")
    assert_all_is_there(house, *range(1, 6), *range(11, 16))
    words = "is not there, or another folder is in its place; waiting"
    assert f"cannot write: {house.outbox} {words}" in house.log()


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

    monkeypatch.setattr("picowatch.daemon.build.Commands", leave)
    with house.running():
        house.save("a.yaml", SMALL)
        wait_for(lambda: len(house.listed()) == 5, "the pictures")
    assert next(tries) == 5
    assert not away.exists()


@pytest.mark.parametrize("what", ["", ".picowatch/ledger.sqlite"])
def test_an_outbox_that_answers_with_errors_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """As a share does whose machine is off: nothing looks deleted or replaced, all is an error."""
    stat, is_off = os.stat, threading.Event()

    def refuse(path: str | Path | int, **how: Any) -> os.stat_result:
        if is_off.is_set() and str(path).startswith(str(house.outbox / what)):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return stat(path, **how)

    monkeypatch.setattr(os, "stat", refuse)
    with house.running():
        house.save("a.yaml", SMALL)
        wait_for(lambda: house.status()["images"]["done"] == 5)
        is_off.set()
        wait_for_looks(house)
        is_off.clear()
        house.save("b.yaml", OTHER)
        wait_for(lambda: len(house.listed()) == 10, "the pictures of the next save")
    assert "replaced" not in house.log()


def test_a_second_picowatch_that_took_the_outbox_ends_the_first(house: House) -> None:
    """Where somebody deleted the first one's lock: it says so."""
    with process(house) as first:
        lines = Reader(first)
        wait_for(lambda: lines.count("is watching"))
        wait_for(lambda: house.status()["images"] is not None)
        with stopped(first):  # it would be the second one itself if it were quicker
            (house.outbox / ".picowatch").rename(house.folder / "deleted")
            (house.outbox / ".picowatch").mkdir()
            lock = OutboxLock(house.outbox)
        wait_for(lambda: lines.count("Another picowatch is already using the outbox"))
        first.wait(60)
        lock.release()


def test_an_inbox_that_is_away_at_the_start_is_waited_for(house: House) -> None:
    """After a reboot; nothing is cancelled, and nothing is rendered again."""
    away = house.folder / "away"
    house.save("random.txt", "a star --size 64x64\n")
    assert house.once()
    send(house.outbox, Command("pause"))
    house.save("a.yaml", SMALL)
    assert not house.once()
    house.inbox.rename(away)
    send(house.outbox, Command("resume"))
    with process(house) as daemon:
        lines = Reader(daemon)
        wait_for(lambda: lines.count("inbox is not there; waiting for it"), "the message")
        wait_for(lambda: len(house.pictures("a")) == 5, "the queue")
        away.rename(house.inbox)
        house.save("b.txt", "a heart --size 64x64\n")
        wait_for(lambda: house.prompts("b") == ["a heart"], "what is saved then")
        assert ends(daemon) == 0
    assert len(house.pictures("random")) == 1
    assert "cancelled" not in house.log()


# -- threads


@pytest.mark.parametrize("refused", ["hash", "publisher"])
def test_threads_that_the_system_refuses_lose_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """As in a container or a service whose limit of processes is reached: waited for, or done
    without."""
    allowed, start = threading.Event(), threading.Thread.start

    def start_if_allowed(thread: threading.Thread) -> None:
        if thread.name.startswith(refused) and not allowed.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)
    with house.running(batch_size=1):
        house.save("a.yaml", SMALL)
        if refused == "hash":
            wait_for(lambda: "[Errno 11] can't start new thread; waiting" in house.log())
            allowed.set()
        wait_for(lambda: len(house.listed()) == 5, "the pictures")
    assert house.seeds() == [1, 2, 3, 4, 5]
    assert house.error("a.yaml") is None
    assert house.log().count("can't start new thread") == (refused == "hash")
