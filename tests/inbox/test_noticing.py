"""Which files in the inbox are recipes, and how saves are noticed."""

import errno
import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import IO, Any
from unittest.mock import Mock

import pytest

from picowatch.commands.make_files import put
from picowatch.files.safe_paths import open_below
from picowatch.inbox.folder import InboxFolder
from picowatch.inbox.names import is_recipe_path
from picowatch.inbox.read import Saved, read
from picowatch.inbox.scan import Scan, scan
from picowatch.inbox.watch import Watch
from tests.fault_points import preceded_by, refusing, wrap
from tests.house import House, wait_for

RECIPES = ("a.yaml", "A.YML", "b.Txt", "pets/deep/c.txt", "a b.yaml")
# Editors', sync tools' and systems' own files.
NO_RECIPES = [
    "a.json~", ".a.json.swp", "a.json___jb_old___", "_defaults.json", "_pictures.json",
    "4913", ".a.yaml", "~a.yaml", "#a.yaml#", ".#a.yaml", "_defaults.yaml",
    "a.yaml~", "a.yaml.swp", "a.sync-conflict-20260101-1.yaml", "a (conflicted copy 1).txt",
    ".git/a.yaml", "__MACOSX/a.yaml", "@eaDir/a.txt", "$RECYCLE.BIN/a.txt",
    "pets/node_modules/a.yaml", "lost+found/a.yaml", "a.yaml___jb_tmp___",
    "(A Document Being Saved By TextEdit)/a.yaml", "a_conflict-20260101-120000.yaml",
    "a (SFConflict me@example.org 2026-01-01-12-00-00).txt", "#recycle/a.yaml",
    "@Recycle/a.yaml", "#snapshot/daily/a.yaml", "@Recently-Snapshot/a.yaml",
    "~snapshot/a.yaml", "System Volume Information/a.txt",
]  # fmt: skip


def test_names_tell_recipes_from_other_files() -> None:
    """In any case of letters and any folder."""
    assert [path for path in RECIPES if not is_recipe_path(path)] == []
    assert [path for path in NO_RECIPES if is_recipe_path(path)] == []


def test_saves_are_accepted_in_the_order_of_their_times(house: House) -> None:
    """Those of one time by their names, with numbers as such."""
    for name, seconds in (("a10.txt", 5), ("a9.txt", 5), ("b.txt", 3), ("c.txt", 9)):
        os.utime(house.save(name, "one\n"), (seconds, seconds))
    assert house.once()
    assert re.findall(r" (\w+\.txt): saved", house.log()) == ["b.txt", "a9.txt", "a10.txt", "c.txt"]


# -- writers


@pytest.mark.parametrize(
    ("owner", "call", "number"), [(os, "fsync", errno.ENOSPC), (Path, "replace", errno.EPERM)]
)
def test_a_recipe_is_put_whole_or_not_at_all(
    house: House, monkeypatch: pytest.MonkeyPatch, owner: Any, call: str, number: int
) -> None:
    monkeypatch.setattr(owner, call, refusing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        put(InboxFolder(house.inbox), "a.txt", b"a dog\n")
    assert [*house.inbox.iterdir()] == []


def test_the_name_of_a_picture_in_other_letters_is_that_of_the_same_file(tmp_path: Path) -> None:
    """Such as on macOS, where the sidecars stayed. (A link has that name here.)"""
    for name in ("1.png", "1.txt"):
        (tmp_path / name).write_bytes(b"a")
    (tmp_path / "1.PNG").hardlink_to(tmp_path / "1.png")
    assert InboxFolder(tmp_path).sidecars_of("1.png") == ["1.txt"]
    (tmp_path / "1.jpg").write_bytes(b"another")
    assert InboxFolder(tmp_path).sidecars_of("1.png") == []


def test_a_text_is_looked_for_in_any_letters(tmp_path: Path) -> None:
    """As where A.TXT is opened as A.txt: a scan that missed it would find another version."""
    for name in ("A.png", "A.txt"):
        (tmp_path / name).write_bytes(b"a")
    inbox = InboxFolder(tmp_path)
    found = inbox.size_and_time("A.png")
    assert found and found == inbox.with_sidecars(found, "A.png", {"a.png", "a.txt"})
    assert found != inbox.with_sidecars(found, "A.png", {"a.png"})


@pytest.mark.usefixtures("often")
def test_a_missed_rename_is_no_deletion(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file leaves a folder before, and comes into another after that was searched."""
    missed: list[object] = []

    def miss(root: Path, known: Collection[str]) -> Scan:
        scanned = scan(root, known)
        if not missed and (found := scanned.found.pop("b/corgi.txt", None)):
            missed.append(found)
        return scanned

    monkeypatch.setattr("picowatch.inbox.inbox.scan", miss)
    monkeypatch.setattr(Watch, "start", lambda watch, root: None)
    with house.held("a/corgi.txt", "a corgi\n") as hold:
        other = house.save("b/other.txt", "a star\n")
        (house.inbox / "a/corgi.txt").rename(other.with_name("corgi.txt"))
        wait_for(lambda: re.search("corgi.txt: (deleted|renamed)", house.log()), "the change")
        hold.release()
        wait_for(lambda: len(house.pictures()) == 2, "both pictures")
    assert missed
    assert "a/corgi.txt: renamed to b/corgi.txt, its queue is kept" in house.log()
    assert house.started() == ["a corgi", "a star"]


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set, the ledger is locked; no scan is due by itself."""
    is_locked = threading.Event()

    def refuse(*_: object) -> None:
        if is_locked.is_set():
            raise sqlite3.OperationalError("database is locked")

    for name in ("known_recipe", "known_recipes"):
        wrap(f"picowatch.ledger.queries:{name}", preceded_by(refuse), monkeypatch.setattr)
    for name in ("SCAN_SECONDS", "MOST_SCAN_SECONDS"):
        monkeypatch.setattr(f"picowatch.inbox.inbox.{name}", 3600.0)
    return is_locked


def test_what_was_read_of_a_former_inbox_is_not_taken(
    house: House, locked: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other folder is looked at, even if the ledger is locked at first."""
    is_open, go = threading.Event(), threading.Event()

    def open_slowly(root: Path, path: str) -> IO[bytes]:
        file = open_below(root, path)
        if path == "a.txt":
            is_open.set()
            go.wait()
        return file

    monkeypatch.setattr("picowatch.files.safe_paths.open_below", open_slowly)
    other = house.inbox.with_name("other")
    other.mkdir()
    (other / "b.txt").write_text("a cat\n")
    with house.running():
        house.save("first.txt", "a star\n")  # so that the ledger has changed since the scan
        wait_for(lambda: house.pictures("first"), "its picture")
        house.save("a.txt", "a corgi\n")
        wait_for(is_open.is_set, "the reading of the recipe")
        locked.set()
        house.inbox.rename(house.inbox.with_name("former"))
        other.rename(house.inbox)
        wait_for(lambda: "database is locked" in house.log(), "the look at the other folder")
        locked.clear()
        go.set()
        wait_for(lambda: house.pictures("b"), "a recipe of the other folder")
    assert not house.pictures("a")


def test_an_inbox_that_vanishes_while_a_copy_is_read_makes_no_rename_of_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files are gone then, the original, too."""
    away = house.folder / "away"

    def vanish(
        inbox: InboxFolder, folder: str, path: str, *others: Any, **named: Any
    ) -> Saved | None:
        saved = read(inbox, folder, path, *others, **named)
        if path == "b.txt" and "is not there" not in house.log():
            house.inbox.rename(away)
        return saved

    monkeypatch.setattr("picowatch.inbox.inbox.read", vanish)
    with house.running():
        house.save("a.txt", "a corgi --seed 1\n")
        wait_for(lambda: house.pictures("a") == ["a/0001-1.png"], "the first picture")
        # A copy with the original's time, as `cp -p` makes it: without that it is no rename anyway.
        shutil.copy2(house.inbox / "a.txt", house.folder / "b.txt")
        (house.folder / "b.txt").rename(house.inbox / "b.txt")
        wait_for(lambda: "is not there" in house.log(), "the daemon's next look")
        away.rename(house.inbox)
        wait_for(lambda: house.pictures("b") == ["b/0001-1.png"], "the copy's picture")
    assert "renamed" not in house.log()
    assert len(house.listed()) == 2


@pytest.mark.usefixtures("often")
def test_a_recipe_is_noticed_without_a_scan(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan of very many takes long, and the next one rests. Only a deletion asks for one."""
    scans: list[Path] = []

    def has(line: str) -> None:
        wait_for(lambda: line in house.log(), line)

    note = preceded_by(lambda root, _: scans.append(root))
    wrap("picowatch.inbox.inbox:scan", note, monkeypatch.setattr)
    for rest in ("SCAN_SECONDS", "MOST_SCAN_SECONDS", "EVENT_REST"):
        monkeypatch.setattr(f"picowatch.inbox.inbox.{rest}", 1e9)
    house.save("frames/_pictures.yaml", "prompt: a star\n")
    with house.running():
        has("_pictures.yaml: saved")
        house.wait_for_rounds(2)  # then a scan looks for its pictures
        scans.clear()
        path = house.save("a.yaml", "prompt: a\nseed: 1\n")
        has("a.yaml: saved, 1 image queued")
        house.save(".a.tmp", "prompt: b\nseed: 1\n").rename(path)
        wait_for(lambda: house.prompts() == ["a", "b"], "the edit")
        os.utime(path)
        has("a.yaml: saved, nothing new to render")
        path.rename(house.inbox / "b.yaml")
        has("a.yaml: renamed to b.yaml")
        (house.save("frames/a.txt", "of a picture").parent / "a.txt").touch()
        house.save(".git/a.txt", "of git")
        house.wait_for_rounds()
        assert scans == []
        (house.inbox / "b.yaml").unlink()
        has("b.yaml: deleted")
    assert scans
    assert len(house.listed()) == 2


def test_a_flood_of_events_is_a_scan(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only so many paths are kept."""
    monkeypatch.setattr("picowatch.inbox.inbox.SCAN_SECONDS", 1e9)
    monkeypatch.setattr("picowatch.inbox.watch.MOST_PATHS", 3)
    with house.running():
        house.save("first.txt", "first\n")
        wait_for(lambda: len(house.listed()) == 1, "the first")
        with house.seen_at_once():
            for number in range(20):
                house.save(f"{number}.txt", "one of many\n")
        wait_for(lambda: len(house.listed()) == 21, "all")


def _inotify_instances() -> int:
    found = 0
    for handle in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # it may be closed meanwhile
            found += "inotify" in os.readlink(handle)  # noqa: PTH115
    return found


@pytest.mark.parametrize("refused", ["", ".schedule"])
def test_saves_are_noticed_where_inotify_has_no_room(
    house: House, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """For one more program (fs.inotify.max_user_instances), or for one more folder."""
    full = OSError(errno.EMFILE, "inotify instance limit reached")
    monkeypatch.setattr(f"picowatch.inbox.watch.Observer{refused}", Mock(side_effect=full))
    before = _inotify_instances()
    with house.running():
        house.save("a.txt", "a star\n")
        wait_for(lambda: house.prompts() == ["a star"], "its picture")
        wait_for(lambda: _inotify_instances() <= before, "the end of the one that was refused")
    assert "no file events for" in house.log()


# -- what cannot be read


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(
    ("refused", "number", "wrong", "said"),
    [
        ("a.yaml", errno.EACCES, "a.yaml", "chmod"),
        ("_defaults.yaml", errno.ESTALE, "a.yaml", "_defaults.yaml above it: Stale"),
        ("frames/_pictures.yaml", errno.ESTALE, "frames/_pictures.yaml", "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_once_and_rendered_when_it_can(
    house: House, monkeypatch: pytest.MonkeyPatch, refused: str, number: int, wrong: str, said: str
) -> None:
    """Without another save, and no engine starts for a look. (Root may read all: simulated.)"""
    looks, can_be_read = [0], threading.Event()

    def refuse(root: Path, path: str) -> IO[bytes]:
        if path == refused and not can_be_read.is_set():
            looks[0] += 1
            raise OSError(number, os.strerror(number))
        return open_below(root, path)

    monkeypatch.setattr("picowatch.files.safe_paths.open_below", refuse)
    if wrong == "a.yaml":
        house.save("_defaults.yaml", "steps: 3\n")
        house.save("a.yaml", "prompt: a star\n")
    else:
        house.save("frames/_pictures.yaml", "prompt: a star\nsteps: 3\n")
        house.draw("frames/a.png")
    with house.running():
        wait_for(lambda: said in (house.error(wrong) or ""), "the error file")
        wait_for(lambda: looks[0] > 2, "the second look")
        can_be_read.set()
        wait_for(lambda: house.prompts() == ["a star"], "the picture")
        wait_for(lambda: not [*house.outbox.rglob("*.error.txt")], "the end of the error")
    assert house.log().count("cannot be read") == 1
    assert house.chunk(house.pictures()[0]).request.steps == 3


@pytest.mark.usefixtures("often")
def test_recipes_of_a_folder_that_cannot_be_read_are_not_taken_for_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unreadable is not deleted. (Root may read everything, so the refusal is simulated.)"""
    refused = threading.Event()

    for look, end in (("scandir", "/"), ("lstat", "")):

        def is_in_pets(path: object, end: str = end, **_: int) -> bool:
            return refused.is_set() and "/pets/" in f"{path}{end}"

        refuse = refusing(errno.EACCES, is_in_pets)
        wrap(f"os:{look}", preceded_by(refuse), monkeypatch.setattr)
    with house.held("pets/a.txt", "first\nsecond\n", batch_size=1) as hold:
        gone = house.save("b.txt", "third\n")
        wait_for(lambda: house.log().count(": saved") == 2, "both recipes")
        refused.set()
        wait_for(lambda: "pets is not run: the folder cannot be read" in house.log(), "the scan")
        gone.unlink()
        wait_for(lambda: "b.txt: deleted" in house.log(), "the next round")
        refused.clear()
        hold.release()
        wait_for(lambda: house.prompts("pets/a") == ["first", "second"], "what waited")
        (house.inbox / "pets/a.txt").unlink()
        wait_for(lambda: "pets/a.txt: deleted, 0 images cancelled" in house.log(), "the deletion")
    assert house.log().count("pets is not run") == 1
