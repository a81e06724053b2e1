"""Full and read-only disks, an inbox that goes and comes back, a clock that jumps: picowatch waits,
logs it once, and continues."""

import errno
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from picowatch.daemon.settings_file import SettingsFile
from picowatch.engine.child import ChildEngine
from picowatch.files.retry import Retry
from picowatch.ledger.ledger import Ledger
from picowatch.ledger.rows import PutBack
from picowatch.outbox.commands import Command, send
from picowatch.outbox.log import LOG_BYTES, close_log, open_log
from picowatch.settings import load_settings
from tests.commands.picowatch import DIGESTS
from tests.commands.picowatch import picowatch as run_picowatch
from tests.house import PATIENCE, House, wait_for, within
from tests.storm.engine import DigestRenderer

ROOM = 8 * 1024 * 1024


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
    house.console.handler = Lines()
    return house.console.handler


@contextmanager
def disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of its own for a folder, where the machine lets us mount one."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again sooner."""
    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.05)


def fill(folder: Path) -> Path:
    """Take all the room there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


def is_whole(house: House, picture: str) -> bool:
    with Image.open(house.outbox / picture) as image:
        image.load()
        return image.size == (64, 64)


SMALL = "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 5\n"


@pytest.mark.usefixtures("impatient")
def test_a_full_disk_is_waited_for_and_nothing_is_failed(house: House, console: Lines) -> None:
    """It is said once, in the log as soon as that can be written; nothing is rendered twice."""
    with disk(house.outbox, ROOM):
        with house.running():
            house.save("a.yaml", SMALL)
            wait_for(lambda: house.status()["images"]["done"] == 5)
            with house.seen_at_once():  # else what it is writing may leave a little room
                filler = fill(house.outbox)
            house.save("a.yaml", SMALL.replace("seed: 1", "seed: 11"))
            house.save("wrong.yaml", "promt: a typo\n")
            wait_for(lambda: console.says("(0 MB are free on the outbox's disk); waiting"))
            wait_for(lambda: house.console.shown[-1].trouble, "the trouble in the status")
            filler.unlink()
            wait_for(lambda: house.seeds() == [1, 2, 3, 4, 5, 11, 12, 13, 14, 15], "the pictures")
            wait_for(lambda: house.error("wrong.yaml"), "the error file")
            wait_for(lambda: "; continuing" in house.log(), "the log")
        assert all(is_whole(house, picture) for picture in house.pictures())
        assert sorted(line["file"] for line in house.listed()) == house.pictures()
        assert house.log().count("; waiting") == 1
        assert house.error("a.yaml") is None
        assert list(house.outbox.rglob(".picowatch-*")) == []


@pytest.mark.parametrize("log_bytes", [LOG_BYTES, 20_000])
def test_lines_that_a_full_disk_refused_are_logged_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_bytes: int
) -> None:
    """In their order, each once; also where the log would be rotated meanwhile."""
    monkeypatch.setattr("picowatch.outbox.log.LOG_BYTES", log_bytes)
    log = logging.getLogger("picowatch")
    with disk(tmp_path / "disk", ROOM):
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
        (_from_sqlite(sqlite3.SQLITE_FULL, "database or disk is full"), True),
        (_from_sqlite(sqlite3.SQLITE_CANTOPEN, "unable to open database file"), True),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (OSError(errno.EMFILE, "Too many open files"), False),
        (_from_sqlite(sqlite3.SQLITE_BUSY, "database is locked"), False),
        (_from_sqlite(sqlite3.SQLITE_READONLY, "attempt to write a readonly database"), False),
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
    if isinstance(error, sqlite3.Error):  # it says the same of what may not be written
        monkeypatch.setattr("os.access", lambda path, mode: False)
        retry.failed(error)
        assert retry.trouble == str(error)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("room", range(0, 60_000, 20_000))
def test_a_disk_that_fills_up_anywhere_is_waited_for(
    house: House, console: Lines, room: int
) -> None:
    """In the middle of a picture, of the ledger's journal, of a list's line."""
    with disk(house.outbox, ROOM), house.running():
        house.save("a.yaml", SMALL)
        wait_for(lambda: len(house.pictures()) == 5)
        filler = fill(house.outbox)
        with filler.open("rb+") as file:
            file.truncate(max(0, filler.stat().st_size - room))
        house.save("b.yaml", SMALL.replace("count: 5", "count: 40"))
        wait_for(lambda: console.says("; waiting"))
        filler.unlink()
        wait_for(lambda: len(house.pictures("b")) == 40, "forty pictures")
        wait_for(lambda: len(house.listed()) == 45, "the list")
        assert sorted(line["file"] for line in house.listed()) == house.pictures()
        assert all(is_whole(house, picture) for picture in house.pictures())
    assert not console.says("failed")


def test_a_signal_ends_the_waiting_for_a_disk(house: House) -> None:
    """Within two seconds, with exit code 0; the next start renders the pictures."""
    with disk(house.outbox, ROOM):
        with process(house) as picowatch:
            lines = Reader(picowatch)
            house.save("a.yaml", SMALL)
            wait_for(lambda: len(house.pictures()) == 5)
            filler = fill(house.outbox)
            house.save("b.yaml", SMALL)
            wait_for(lambda: lines.say("; waiting"))
            assert ends(picowatch) == 0
        filler.unlink()
        assert house.once()
        assert len(house.pictures()) == 10


def test_a_full_disk_ends_a_single_run_in_words(house: House) -> None:
    """With exit code 1 and no traceback."""
    house.save("a.yaml", SMALL)
    with disk(house.outbox, ROOM):
        fill(house.outbox)
        ended = subprocess.run(
            [sys.executable, "-m", "picowatch", "run", "--once"],
            cwd=house.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert ended.returncode == 1
    assert "cannot be written: [Errno 28] No space left on device" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.usefixtures("impatient")
def test_invalid_settings_on_a_full_disk_are_answered_when_there_is_room(
    house: House, console: Lines
) -> None:
    """picowatch goes on with the settings it has, and so it does once they are valid again."""
    path = house.folder / "picowatch.yaml"
    path.write_text("max_attempts: 3\n")
    flags = {"inbox": house.inbox, "outbox": house.outbox, "models": house.models}
    file = SettingsFile(path, lambda: load_settings(flags, {}, path))
    error = house.outbox / "settings.error.txt"
    with disk(house.outbox, ROOM), house.running(settings_file=file):
        with house.seen_at_once():
            filler = fill(house.outbox)
            path.write_text("max_attempts: many\n")
        wait_for(lambda: console.says("; waiting"), "the trouble")
        filler.unlink()
        wait_for(error.exists, "the error file")
        path.write_text("max_attempts: 4\n")
        wait_for(lambda: "was saved; picowatch starts over" in house.log(), "the valid file")
        assert not error.exists()
        house.save("a.yaml", SMALL)
        wait_for(lambda: len(house.pictures()) == 5, "the pictures")
        assert house.log().count("max_attempts 'many'") == 1


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("hash", "cannot write: [Errno 11] can't start new thread; waiting"),
        ("engine", "could not be started: [Errno 11] can't start new thread. Trying again"),
    ],
)
def test_a_thread_that_the_system_refuses_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch, refused: str, words: str
) -> None:
    """As in a container or a service whose limit of processes is reached."""
    allowed = threading.Event()
    start = threading.Thread.start

    def start_if_allowed(thread: threading.Thread) -> None:
        if thread.name == refused and not allowed.is_set():
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr("picowatch.work.worker.RESTART_SECONDS", 0.05)
    monkeypatch.setattr("picowatch.work.worker.START_AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)
    house.make_engine = lambda options: ChildEngine(options, DigestRenderer)
    with house.running():
        house.save("a.yaml", SMALL)
        wait_for(lambda: words in house.log(), words)
        allowed.set()
        wait_for(lambda: len(house.pictures()) == 5, "the pictures")
    assert house.error("a.yaml") is None
    assert house.log().count("can't start new thread") == 1


@pytest.mark.parametrize("allowed", [0, 1])
def test_pictures_are_published_without_the_threads_that_the_system_refuses(
    house: House, monkeypatch: pytest.MonkeyPatch, allowed: int
) -> None:
    """Each once, whether none of the publisher's threads was started or some were."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_if_allowed(thread: threading.Thread) -> None:
        if thread.name.startswith("publisher"):
            if len(started) >= allowed:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr(threading.Thread, "start", start_if_allowed)
    house.save("a.yaml", SMALL)
    assert house.once(batch_size=1)
    assert house.seeds() == [1, 2, 3, 4, 5]
    assert len(house.listed()) == 5
    assert house.error("a.yaml") is None


def test_a_read_only_outbox_is_waited_for(house: House) -> None:
    """Somebody took the permission away, or the system mounted it read-only after an error."""
    with process(house, *without_privileges()) as picowatch:
        lines = Reader(picowatch)
        house.save("a.yaml", SMALL)
        wait_for(lambda: (house.status()["images"] or {}).get("done") == 5)
        with stopped(picowatch):
            folders = [house.outbox, *(path for path in house.outbox.rglob("*") if path.is_dir())]
            for folder in folders:
                folder.chmod(0o555)
        house.save("b.yaml", SMALL)
        wait_for(lambda: lines.say("; waiting"))
        with stopped(picowatch):
            for folder in folders:
                folder.chmod(0o755)
        wait_for(lambda: len(house.pictures("b")) == 5)
        wait_for(lambda: "; continuing" in house.log())
        assert ends(picowatch) == 0
    assert house.log().count("; waiting") == 1
    assert house.error("b.yaml") is None


@pytest.mark.parametrize(
    "taken", [".picowatch/lock", ".picowatch/ledger.sqlite", ".picowatch/gallery", "images.jsonl"]
)
def test_a_start_without_permission_in_the_outbox_is_refused(house: House, taken: str) -> None:
    """Somebody ran picowatch with `sudo`; a service manager would wait for this start for ever."""
    house.save("a.yaml", SMALL)
    assert house.once()
    house.save("b.yaml", SMALL)
    path = house.outbox / taken
    for closed, mode in ((path, 0o555), (path.parent, 0)):
        before = closed.stat().st_mode
        closed.chmod(mode)
        ended = subprocess.run(
            [*without_privileges(), sys.executable, "-m", "picowatch", "run"],
            cwd=house.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        closed.chmod(before)
        assert ended.returncode == 2
        assert "cannot be written" in ended.stderr
        assert str(closed.relative_to(house.folder)) in ended.stderr


@pytest.mark.usefixtures("impatient")
def test_a_start_that_cannot_write_says_once_what_it_repairs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash on a full disk: it tries every two seconds, perhaps for a weekend."""
    house.save("a.txt", "a star --size 64x64\n")
    assert house.once()
    (picture,) = house.pictures()
    (house.outbox / picture).unlink()
    with sqlite3.connect(house.outbox / ".picowatch/ledger.sqlite") as ledger:
        ledger.execute("UPDATE images SET state = 'running'")
    (house.outbox / ".picowatch/lock").write_text("1234")
    tries, real = [0], Ledger.put_back

    def without_room(ledger: Ledger, image: int, why: PutBack) -> None:
        tries[0] += 1
        if tries[0] <= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(ledger, image, why)

    monkeypatch.setattr(Ledger, "put_back", without_room)
    with house.running():
        wait_for(lambda: len(house.pictures()) == 1, "the picture")
    assert tries[0] == 4
    assert house.log().count("queued again") == 1
    assert house.log().count("killed or stopped in the middle of something") == 1


def test_show_says_that_a_folder_is_closed(tmp_path: Path) -> None:
    """The outbox may be private: docs/permissions.md."""
    (tmp_path / "outbox").mkdir(mode=0o000)
    said = subprocess.run(
        [*without_privileges(), sys.executable, "-m", "picowatch", "show", "outbox/latest.png"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert said.returncode == 1
    assert "picowatch: outbox/latest.png cannot be read: Permission denied. " in said.stderr


def test_a_read_only_disk_is_told_from_a_missing_permission(house: House) -> None:
    """A service may write nowhere else than the unit says, whatever a shell may."""
    with disk(house.outbox, ROOM):
        subprocess.run(["mount", "-o", "remount,ro", house.outbox], check=True)
        ended = run_picowatch(house.folder, "run")
    assert ended.returncode == 2
    assert "outbox cannot be written: Read-only file system. " in ended.stderr
    assert "ReadWritePaths=" in ended.stderr


def test_make_removes_what_a_daemon_of_another_user_may_not(house: House) -> None:
    """In a folder that `make` created; the same text under another name is no renamed recipe."""
    if os.geteuid():
        pytest.skip("only root may write into a folder where the daemon may not")
    (house.inbox / "mine").mkdir(mode=0o555)
    recipe = house.folder / "a.txt"
    recipe.write_text("a star --size 64x64\n")
    with process(house, *without_privileges()) as picowatch:
        for name in ("mine/1", "mine/2", "mine/1"):
            made = run_picowatch(house.folder, "make", "--rm", "--name", name, recipe)
            assert made.returncode == 0
            assert made.stdout.startswith(f"outbox/{name}/")
        assert ends(picowatch) == 0
    assert len(house.pictures("mine")) == 3
    assert list((house.inbox / "mine").iterdir()) == []
    assert "warning" not in house.log()


@pytest.mark.parametrize("closed", ["models", "models/checkpoints"])
def test_the_demo_model_is_no_substitute_for_models_that_cannot_be_read(
    house: House, closed: str
) -> None:
    """As for users who are not in the group that docs/permissions.md gives the models to."""
    (house.models / "checkpoints").mkdir()
    house.save("a.txt", "a star --size 64x64\n")
    (house.folder / closed).chmod(0)
    said = {
        command: subprocess.run(
            [*without_privileges(), sys.executable, "-m", "picowatch", *command.split()],
            cwd=house.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        for command in ("check inbox/a.txt", "models", "run --once")
    }
    (house.folder / closed).chmod(0o755)
    assert "checkpoints cannot be read" in said["models"].stdout
    for command in ("check inbox/a.txt", "run --once"):
        assert said[command].returncode == 1
        assert "none that is installed can be used: checkpoints cannot be read" in (
            said[command].stdout + said[command].stderr
        )
    assert house.pictures() == []


def test_an_unmounted_inbox_cancels_nothing(house: House) -> None:
    """Its queue continues; the recipes that come back with it are the same ones."""
    with disk(house.folder / "stick", ROOM), ExitStack() as mounts:
        stick = house.folder / "stick"
        (stick / "a.yaml").write_text(SMALL)
        bind(stick, house.inbox)
        mounts.callback(unbind, house.inbox)
        with house.running():
            wait_for(lambda: len(house.pictures()) == 5)
            unbind(house.inbox)
            wait_for(lambda: "is another folder now" in house.log(), "the unmount")
            bind(stick, house.inbox)
            (house.inbox / "b.txt").write_text("a star --size 64x64\n")
            wait_for(lambda: house.prompts("b") == ["a star"], "a save after the mount")
    assert len(house.pictures()) == 6
    assert "deleted" not in house.log()


def test_a_share_that_is_away_at_the_start_is_waited_for(house: House) -> None:
    """After a reboot; nothing is cancelled, and nothing is rendered again.

    It is a mistake only where the outbox was never used.
    """
    away = house.folder / "away"
    house.save("random.txt", "a star --size 64x64\n")
    with process(house) as picowatch:
        wait_for(lambda: house.pictures("random"), "the first picture")
        send(house.outbox, Command("pause"))
        wait_for(lambda: house.status()["paused"], "the pause")
        house.save("a.yaml", SMALL)
        wait_for(lambda: house.status()["images"]["queued"] == 5, "the queue")
        assert ends(picowatch) == 0
    house.inbox.rename(away)
    send(house.outbox, Command("resume"))
    with process(house) as picowatch:
        lines = Reader(picowatch)
        wait_for(lambda: lines.say("inbox is not there; waiting for it"), "the message")
        away.rename(house.inbox)
        house.save("b.txt", "a heart --size 64x64\n")
        wait_for(lambda: house.prompts("b") == ["a heart"], "what is saved then")
        wait_for(lambda: len(house.pictures("a")) == 5, "the queue")
        assert ends(picowatch) == 0
    assert len(house.pictures("random")) == 1
    assert "cancelled" not in house.log()
    shutil.rmtree(house.outbox)
    house.inbox.rename(away)
    command = [sys.executable, "-m", "picowatch", "run"]
    assert subprocess.run(command, cwd=house.folder, timeout=PATIENCE).returncode == 2


def test_an_outbox_that_is_read_only_at_the_start_is_waited_for(house: House) -> None:
    """The system mounts a disk so after an error."""
    with disk(house.outbox, ROOM):
        house.save("a.yaml", SMALL)
        assert house.once()
        remount = ["mount", "-o", "remount,ro", str(house.outbox)]
        subprocess.run(remount, check=True)
        house.save("b.yaml", SMALL)
        with process(house) as picowatch:
            lines = Reader(picowatch)
            wait_for(lambda: lines.say("Read-only file system"), "the message")
            subprocess.run([word.replace(",ro", ",rw") for word in remount], check=True)
            wait_for(lambda: len(house.pictures("b")) == 5, "the pictures")
            assert ends(picowatch) == 0
        assert len(house.pictures()) == 10


def test_a_share_that_goes_away_while_it_is_compared_is_waited_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS may list a file, and then not say whether it is a folder."""
    is_stale = threading.Event()

    class Entry:
        def __init__(self, found: os.DirEntry[str]) -> None:
            self._found = found
            self.name, self.is_symlink = found.name, found.is_symlink

        def is_dir(self, *, follow_symlinks: bool = True) -> bool:
            if self.name == "a.yaml" and is_stale.is_set():
                raise OSError(errno.ESTALE, "Stale file handle")
            return self._found.is_dir(follow_symlinks=follow_symlinks)

    @contextmanager
    def scandir(folder: Path) -> Iterator[Iterator[Entry]]:
        with os.scandir(folder) as found:
            yield map(Entry, found)

    house.save("a.yaml", SMALL)
    with house.running():
        wait_for(lambda: len(house.pictures("a")) == 5, "the first pictures")
        seen_os = SimpleNamespace(**{**vars(os), "scandir": scandir})
        monkeypatch.setattr("picowatch.inbox.files.os", seen_os)
        is_stale.set()
        house.save("b.yaml", SMALL)
        wait_for(lambda: len(house.pictures("b")) == 5, "what can be told")
        is_stale.clear()
        house.save("a.yaml", SMALL.replace("seed: 1", "seed: 9"))
        wait_for(lambda: len(house.pictures("a")) == 10, "what is there again")
    assert "deleted" not in house.log()


def test_a_deleted_inbox_may_be_created_again(house: House) -> None:
    """Nothing is cancelled, and what is saved in the new one is rendered."""
    hold = threading.Event()
    house.engine.before_batch = lambda batch: assert_set(hold)
    with house.running(batch_size=1):
        house.save("a.yaml", SMALL)
        wait_for(lambda: house.engine.batches)
        with house.seen_at_once():  # else an inbox without its recipe may be seen
            shutil.rmtree(house.inbox)
        wait_for(lambda: "has vanished; nothing is cancelled" in house.log())
        hold.set()
        wait_for(lambda: len(house.pictures("a")) == 5, "what waited")
        house.inbox.mkdir()
        house.save("deep/b.txt", "a star --size 64x64\n")
        wait_for(lambda: house.prompts("deep/b") == ["a star"])
    assert "is another folder now; it is watched again" in house.log()
    assert "cancelled" not in house.log().replace("nothing is cancelled", "")


def assert_set(event: threading.Event) -> None:
    assert event.wait(PATIENCE)


@contextmanager
def process(
    house: House, *before: str, settings: Sequence[str] = ()
) -> Iterator["subprocess.Popen[str]"]:
    """`picowatch run` on the digest engine in a process of its own."""
    command = [*before, sys.executable, "-m", "tests.storm.daemon", str(house.folder), *settings]
    picowatch = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield picowatch
    finally:
        picowatch.kill()
        picowatch.wait()
        assert picowatch.stdout
        picowatch.stdout.close()


@contextmanager
def stopped(process: "subprocess.Popen[str]") -> Iterator[None]:
    """It does nothing meanwhile, so that it sees all that happens at once."""
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(process.pid), "its stop")
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Whether each thread is; proc(5) has the state after the name in brackets."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has just ended
        return False
    return all(thread.rpartition(")")[2].split()[0] == "T" for thread in threads)


class Reader:
    """Reads what a process prints, so that it never blocks."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._lines: list[str] = []
        assert process.stdout
        self._output = process.stdout
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(ValueError):  # it was closed, after the end of the process
            self._lines.extend(self._output)

    def count(self, words: str) -> int:
        return sum(words in line for line in self._lines)

    def say(self, words: str) -> bool:
        return any(words in line for line in self._lines)


def ends(picowatch: "subprocess.Popen[str]") -> int:
    """The exit code after SIGTERM, which has two seconds."""
    picowatch.send_signal(signal.SIGTERM)
    started = time.monotonic()
    code = picowatch.wait(PATIENCE)
    assert time.monotonic() - started < within(2)
    return code


def without_privileges() -> list[str]:
    """Root may read and write everywhere, unless it gives up the capabilities to."""
    if os.geteuid():
        return []
    lost = "-dac_override,-dac_read_search"
    command = ["setpriv", "--bounding-set", lost, "--inh-caps", lost]
    if not shutil.which("setpriv") or subprocess.run([*command, "true"]).returncode:
        pytest.skip("root cannot give up its privileges here (setpriv)")
    return command


def bind(source: Path, target: Path) -> None:
    subprocess.run(["mount", "--bind", source, target], check=True)


def unbind(target: Path) -> None:
    subprocess.run(["umount", "-l", target], check=True)


def test_the_ledger_needs_no_room_in_the_temporary_folder(house: House) -> None:
    """A full /tmp is another disk than the one that messages name, and others fill it."""
    house.save("a.yaml", "prompt: a\nseed: 1\nsteps: 1\ncount: 40\n")
    house.save("b.yaml", "prompt: b\nseed: 1\nsteps: 1\nsweep: {cfg_scale: [1, 2]}\n")
    folder = house.folder / "tmp"
    folder.mkdir()
    before = folder.stat().st_mtime_ns
    run_picowatch(house.folder, "run", "--once", program=DIGESTS, TMPDIR=str(folder))
    assert len(house.pictures()) == 43
    assert folder.stat().st_mtime_ns == before
