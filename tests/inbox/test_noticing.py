"""Which files in the inbox are recipes, and how saves are noticed."""

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picowatch.inbox import inbox as inbox_module
from picowatch.inbox import watching
from picowatch.inbox.names import is_recipe_path
from picowatch.inbox.settling import Settling, held_open_for_writing
from picowatch.inbox.watching import OVERFLOW_LOGGER, events_are_reliable, file_system_type
from picowatch.save import Stamp
from tests.daemon.test_what_a_save_means import HeldEngine
from tests.house import House, wait_for

ONE, OTHER = Stamp(1, 1, 1), Stamp(2, 2, 1)


@pytest.mark.parametrize("path", ["a.yaml", "A.YML", "b.Txt", "pets/deep/c.txt", "a b.yaml"])
def test_yaml_and_txt_of_any_case_are_recipes(path: str) -> None:
    """In any subfolder."""
    assert is_recipe_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "a.json~", ".a.json.swp", "a.json___jb_old___", "_defaults.json", "_pictures.json",
            "4913", ".a.yaml", "~a.yaml", "#a.yaml#", ".#a.yaml", "_defaults.yaml",
        "a.yaml~", "a.yaml.swp", "a.sync-conflict-20260101-1.yaml", "a (conflicted copy 1).txt",
        ".git/a.yaml", "__MACOSX/a.yaml", "@eaDir/a.txt", "$RECYCLE.BIN/a.txt",
        "pets/node_modules/a.yaml", "lost+found/a.yaml", "a.yaml___jb_tmp___",
        "(A Document Being Saved By TextEdit)/a.yaml", "a_conflict-20260101-120000.yaml",
        "a (SFConflict me@example.org 2026-01-01-12-00-00).txt", "#recycle/a.yaml",
        "@Recycle/a.yaml", "#snapshot/daily/a.yaml", "@Recently-Snapshot/a.yaml",
        "~snapshot/a.yaml", "System Volume Information/a.txt",
    ],
)  # fmt: skip
def test_names_that_are_never_recipes(path: str) -> None:
    """Editors', sync tools' and systems' own files."""
    assert not is_recipe_path(path)


def test_a_file_settles_once_it_was_quiet() -> None:
    """Each event starts the quiet time again."""
    settling = Settling(0.5)
    settling.note("a", ONE, 0.0, by_event=True)
    settling.note("a", ONE, 0.4, by_event=True)
    assert settling.settled(0.8, lambda path: ONE) == []
    assert [file.path for file in settling.settled(0.9, lambda path: ONE)] == ["a"]
    assert len(settling) == 0


def test_a_file_that_still_changes_does_not_settle() -> None:
    """Also without an event."""
    settling = Settling(0.5)
    settling.note("a", ONE, 0.0, by_event=False)
    assert settling.settled(0.6, lambda path: OTHER) == []
    assert settling.settled(1.0, lambda path: OTHER) == []
    assert len(settling.settled(1.2, lambda path: OTHER)) == 1


def test_a_scan_that_sees_nothing_new_does_not_start_the_quiet_time_again() -> None:
    """A polling inbox settles, too."""
    settling = Settling(0.5)
    settling.note("a", ONE, 0.0, by_event=False)
    settling.note("a", ONE, 0.4, by_event=False)
    assert len(settling.settled(0.5, lambda path: ONE)) == 1


def test_a_writer_that_holds_the_file_open_is_seen(tmp_path: Path) -> None:
    """A reader is not."""
    path = tmp_path / "a.txt"
    path.write_text("x")
    code = "import sys; f = open(sys.argv[1], sys.argv[2]); print('open', flush=True); input()"
    identity = (path.stat().st_dev, path.stat().st_ino)
    for mode, held in (("a", {identity}), ("r", set())):
        process = subprocess.Popen(
            [sys.executable, "-c", code, path, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin and process.stdout
        process.stdout.readline()
        assert held_open_for_writing([identity]) == held
        process.communicate(b"\n")
    assert held_open_for_writing([identity]) == set()


def writing_slowly(path: Path) -> subprocess.Popen[bytes]:
    """A script that has written half of a recipe, and writes the rest at the next line of input."""
    code = (
        "import sys\n"
        "f = open(sys.argv[1], 'w')\n"
        "f.write('prompt: a corgi\\nseed: 1\\nsteps: 3'); f.flush()\n"
        "print('half', flush=True); input()\n"
        "f.write('0\\n'); f.close()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    return process


def test_a_script_that_writes_line_by_line_is_waited_for(house: House) -> None:
    """However long its pauses are: each prefix may be a valid recipe."""
    with house.running():
        process = writing_slowly(house.inbox / "a.yaml")
        house.save("other.txt", "a star\n")
        house.save("third.txt", "a star\n")
        wait_for(lambda: len(house.pictures()) == 2, "recipes saved after it")
        process.communicate(b"\n")
        wait_for(lambda: len(house.pictures()) == 3, "the recipe")
    assert house.chunk("a/0001-1.png").request.steps == 30


def test_a_recipe_with_two_names_is_waited_for_under_both(house: House) -> None:
    """By a hard link or a symbolic one."""
    process = writing_slowly(house.inbox / "b.yaml")
    (house.inbox / "a.yaml").hardlink_to(house.inbox / "b.yaml")
    (house.inbox / "c.yaml").symlink_to(house.inbox / "b.yaml")
    with house.running():
        house.save("other.txt", "a star\n")
        wait_for(lambda: len(house.pictures()) == 1, "a recipe saved after it")
        process.communicate(b"\n")
        wait_for(lambda: len(house.pictures()) == 4, "the recipe")
    assert {house.chunk(f"{name}/0001-1.png").request.steps for name in "abc"} == {30}


def test_one_save_by_rename_is_one_run(house: House) -> None:
    """Write a temporary, rename it over the recipe: as most scripts and many editors do."""
    with house.running():
        for count, text in enumerate(("a corgi\n", "a star\n"), 1):
            temporary = house.save(".a.txt.tmp", text)
            temporary.replace(house.inbox / "a.txt")
            wait_for(partial(lambda count: len(house.pictures()) == count, count), text)
    assert house.prompts() == ["a corgi", "a star"]


def test_a_backup_rename_as_vim_does_it_is_no_deletion(house: House) -> None:
    """x → x~, a new x, x~ deleted."""
    with house.running():
        path = house.save("a.txt", "a corgi\n")
        wait_for(lambda: len(house.pictures()) == 1)
        with house.seen_at_once():  # for longer than the settle time it would be a deletion
            backup = path.rename(house.inbox / "a.txt~")
            house.save("a.txt", "a star\n")
            backup.unlink()
        wait_for(lambda: len(house.pictures()) == 2)
    assert "deleted" not in house.log()


def test_a_rename_is_one_though_the_old_name_is_noticed_late(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a new folder, which is scanned before the event of the old name comes."""
    note = Settling.note

    def late(settling: Settling, path: str, stamp: Stamp | None, *given: Any, **named: Any) -> None:
        if path != "a.yaml" or stamp is not None:
            note(settling, path, stamp, *given, **named)

    monkeypatch.setattr(Settling, "note", late)
    with house.running():
        path = house.save("a.yaml", "prompt: a corgi\n")
        wait_for(lambda: len(house.pictures()) == 1)
        (house.inbox / "live").mkdir()
        path.rename(house.inbox / "live/b.yaml")
        wait_for(lambda: "live/b.yaml: " in house.log() or "renamed" in house.log(), "an answer")
    assert "a.yaml: renamed to live/b.yaml" in house.log()
    assert len(house.pictures()) == 1


def test_a_folder_full_of_recipes_may_be_moved_in(house: House) -> None:
    """Folders that come with their files, and new ones that fill at once."""
    elsewhere = house.folder / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    for number in range(20):
        # A copy gets its time last, which may be another save.
        (elsewhere / "deep" / f"{number}.txt").write_text(f"prompt {number} --seed 1\n")
    with house.running():
        elsewhere.rename(house.inbox / "moved")
        shutil.copytree(house.inbox / "moved", house.inbox / "copied")
        wait_for(lambda: len(house.pictures()) == 40, "forty pictures")


def test_folders_that_appear_many_at_once_are_watched_in_silence(house: House) -> None:
    """`git init` and `mkdir -p` make watchdog 7.1.0 add a watch twice and warn of it."""
    with house.running():
        for number in range(30):
            (house.inbox / f"{number}/a/b/c/d/e").mkdir(parents=True)
        house.save("29/a/b/c/d/e/deep.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"])
    assert "ended by itself" not in house.log()


def test_hard_links_are_recipes(house: House) -> None:
    """They raise no closing event."""
    source = house.folder / "source.txt"
    source.write_text("a corgi\n")
    with house.running():
        os.link(source, house.inbox / "a.txt")
        wait_for(lambda: house.prompts() == ["a corgi"])


def test_a_recipe_with_an_older_time_is_a_save(house: House) -> None:
    """Times are compared for inequality only: `mv` brings old ones, clocks jump."""
    path = house.save("a.txt", "a corgi\n")
    house.once()
    house.save("a.txt", "a star\n")
    os.utime(path, (1, 1))
    house.once()
    assert house.prompts() == ["a corgi", "a star"]


def test_contents_are_compared_at_start(house: House) -> None:
    """Even an edit that kept size and time is found then."""
    path = house.save("a.txt", "a corgi\n")
    stat = path.stat()
    house.once()
    house.save("a.txt", "a bird!\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    house.once()
    assert house.prompts() == ["a corgi", "a bird!"]


def test_polling_notices_what_events_would(house: House) -> None:
    """New, edited and deleted recipes, without a single event."""
    with house.running():
        path = house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"], "the new one")
        house.save("a.txt", "a star!\n")
        wait_for(lambda: house.prompts() == ["a corgi", "a star!"], "the edited one")
        path.unlink()
        wait_for(lambda: "a.txt: deleted" in house.log(), "the deletion")
        assert house.status()["watch"] == "polling"
    assert len(house.pictures()) == 2, "nothing is found twice"


def test_the_limit_of_watches_is_said_and_answered_by_polling(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """watchdog starts silently with a part of the folders then."""
    monkeypatch.setattr("picowatch.inbox.watching._watched_inodes", lambda: [1])
    (house.inbox / "pets").mkdir()
    with house.running():
        house.save("pets/a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"])
        assert house.status()["watch"] == "polling"
    assert "sysctl fs.inotify.max_user_watches" in house.log()


def test_folders_that_come_and_go_while_the_watch_is_set_up_are_not_taken_for_the_limit(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """watchdog watches a new one as soon as it hears of it."""
    start, old = watching.Watch.start, house.inbox / "old"
    old.mkdir()

    def busy_start(watch: watching.Watch) -> None:
        old.rmdir()
        start(watch)
        watched = watching._watched_inodes()
        monkeypatch.setattr(watching, "_watched_inodes", lambda: watched)
        (house.inbox / "ben").mkdir()

    monkeypatch.setattr(watching.Watch, "start", busy_start)
    with house.running():
        house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"])
        assert house.status()["watch"] == "events"


def test_network_folders_are_polled(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other machines' writes raise no events there."""
    monkeypatch.setattr("picowatch.inbox.folder.file_system_type", lambda root: "nfs4")
    with house.running():
        house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"])
        assert house.status()["watch"] == "polling"


def test_a_scan_replaces_lost_events(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """watchdog's warning of an overflow is the only sign of it."""
    monkeypatch.setattr(inbox_module.Inbox, "_take_folder_hints", lambda *_: None)
    with house.running():
        folder = house.folder / "full"
        folder.mkdir()
        (folder / "a.txt").write_text("a corgi\n")
        folder.rename(house.inbox / "full")
        logging.getLogger(OVERFLOW_LOGGER).warning("Inotify queue overflowed")
        wait_for(lambda: house.prompts() == ["a corgi"])
    assert "file events were lost" in house.log()


def test_fifos_and_folders_with_recipe_names_are_never_opened(house: House) -> None:
    """Opening a FIFO would hang until somebody writes."""
    os.mkfifo(house.inbox / "pipe.txt")
    (house.inbox / "folder.yaml").mkdir()
    house.save("a.txt", "a corgi\n")
    assert house.once()
    assert house.prompts() == ["a corgi"]


def test_links_are_followed_only_inside_the_inbox(house: House) -> None:
    """A link out of it is not read."""
    secret = house.folder / "secret.txt"
    secret.write_text("a secret\n")
    (house.inbox / "out.txt").symlink_to(secret)
    inside = house.save("_inside", "a corgi\n")
    (house.inbox / "in.txt").symlink_to(inside)
    (house.inbox / "dangling.txt").symlink_to(house.inbox / "nothing.txt")
    assert house.once()
    assert house.prompts() == ["a corgi"]


def test_a_file_without_permission_is_answered(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And run once it may be read. (Root may read everything, so the refusal is staged.)"""
    path = house.save("a.txt", "a corgi\n")
    really_open = os.open

    def refuse(target: Path, flags: int, **options: int) -> int:
        if Path(target).name == path.name:
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_open(target, flags, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        assert not house.once()
        assert "chmod" in (house.error("a.txt") or "")
        assert house.once(), "it is answered once"
    assert house.once()
    assert house.prompts() == ["a corgi"]
    assert house.error("a.txt") is None


def test_conflict_copies_are_said_once_and_not_run(house: House) -> None:
    """A sync tool's loser of two edits is no recipe."""
    house.save("a.sync-conflict-20260101-120000-ABC.yaml", "prompt: x\n")
    assert house.once()
    assert house.pictures() == []
    assert house.log().count("conflict copy") == 1


def test_a_misspelt_special_name_is_said_once(house: House) -> None:
    """A private name that is not like one is a draft's, of which nothing is said."""
    for name in ("_default.yaml", "pets/_Picture.yml", "_draft.yaml", "_notes.yaml"):
        house.save(name, "prompt: x\n")
    house.save("a.txt", "a corgi\n")
    assert house.once()
    assert house.prompts() == ["a corgi"]
    log = house.log()
    assert log.count("_default.yaml is not run: if it is meant to be _defaults.yaml, rename") == 1
    assert log.count("_Picture.yml is not run: if it is meant to be _pictures.yaml, rename") == 1
    assert log.count(" is not run: ") == 2


def test_files_that_only_look_like_recipes_are_said_once_and_not_run(house: House) -> None:
    """When they come, and not at each look; what is hidden or in a folder of code is not said."""
    for name in ("_Pictures.json", "pets/make.PY", ".vscode/settings.json", "node_modules/a.json"):
        house.save(name, "{}")
    with house.running():
        said = "pets/make.PY is not run: recipes are .yaml, .yml, .json and .txt"
        wait_for(lambda: said in house.log())
        house.save("_defaults.json", "{}")
        said = "_defaults.json is not run: it must be called _defaults.yaml, which may contain JSON"
        wait_for(lambda: said in house.log())
        house.save("_defaults.json", "{} ")
        house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"])
    assert house.log().count("_defaults.json") == house.log().count("_Pictures.json") == 1
    assert house.log().count(" is not run: ") == 3


def test_a_folder_whose_name_is_not_utf8_is_said_once(house: House) -> None:
    """Recipes in it are not run, and it is known why."""
    folder = Path(os.fsdecode(os.fsencode(house.inbox) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.txt").write_text("a corgi\n")
    house.save("b.txt", "a star\n")
    assert house.once()
    assert house.started() == ["a star"]
    words = "caf\\udce9 is not run: the folder's name is not valid UTF-8; rename it"
    assert house.log().count(words) == 1


def test_a_name_that_is_not_utf8_is_said_and_not_run(house: House) -> None:
    """It could stand in no log, list or page as it is."""
    (Path(os.fsdecode(os.fsencode(house.inbox) + b"/caf\xe9.txt"))).write_text("x\n")
    house.save("a.txt", "a corgi\n")
    assert house.once()
    assert house.prompts() == ["a corgi"]
    assert "caf\\udce9.txt is not run: its name is not valid UTF-8" in house.log()


def test_recipes_that_are_there_at_start_go_by_their_times(house: House) -> None:
    """Not by their names."""
    for number, name in enumerate(("c", "a", "b")):
        os.utime(house.save(f"{name}.txt", f"{name}\n"), (number, number))
    house.once(batch_size=1)
    assert house.started() == ["c", "a", "b"]


@pytest.mark.parametrize(
    "content",
    [
        "a corgi näch\n".encode(),
        b"\xef\xbb\xbf" + "a corgi näch\r\n".encode(),
        "a corgi näch\r".encode("utf-16"),
    ],
)
def test_encodings_of_common_editors_are_read(house: House, content: bytes) -> None:
    """UTF-8, with BOM, UTF-16 with BOM; any line ends."""
    house.save("a.txt", content)
    assert house.once()
    assert house.prompts() == ["a corgi näch"]


def test_other_encodings_are_refused_with_their_place(house: House) -> None:
    """The first bad byte's line and column, and what to do."""
    house.save("a.txt", "a corgi\na café\n".encode("latin-1"))
    assert not house.once()
    error = house.error("a.txt") or ""
    assert "line 2, column 6" in error
    assert "UTF-8" in error


@pytest.mark.parametrize(
    ("kind", "reliable"),
    [("ext4", True), ("tmpfs", True), ("nfs4", False), ("cifs", False), ("9p", False),
     ("fuse.sshfs", False), ("fuseblk", True), ("virtiofs", False)],
)  # fmt: skip
def test_events_are_not_trusted_on_network_file_systems(kind: str, reliable: bool) -> None:
    """Remote writers raise none there."""
    assert events_are_reliable(kind) is reliable


def test_the_file_system_of_a_folder_is_that_of_its_deepest_mount(tmp_path: Path) -> None:
    """With spaces in its name, and the last one mounted over it."""
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/sda1 / ext4 rw 0 0\n"
        "server:/x /mnt/my\\040share nfs4 rw 0 0\n"
        "/dev/sdb1 /mnt/my ext4 rw 0 0\n"
    )
    assert file_system_type(Path("/mnt/my share/inbox"), mounts) == "nfs4"
    assert file_system_type(Path("/mnt/my/inbox"), mounts) == "ext4"
    assert file_system_type(Path("/home"), mounts) == "ext4"
    assert file_system_type(Path("/home"), tmp_path / "none") == ""


def test_a_dead_watch_is_set_up_anew(house: House) -> None:
    """The observer's threads are looked after."""
    with house.running():
        house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"])
        for thread in threading.enumerate():
            if "Emitter" in type(thread).__name__:
                thread.stop()  # type: ignore[attr-defined]  # watchdog's
        wait_for(lambda: "setting it up again" in house.log())
        house.save("b.txt", "a star\n")
        wait_for(lambda: "a star" in house.prompts())


@pytest.mark.parametrize("watch", ["events", "polling"])
def test_an_inbox_that_is_a_link_may_be_turned_to_another_folder(house: House, watch: str) -> None:
    """As if another folder were in its place: recipes and start images come from there."""
    folders = [house.folder / "first", house.folder / "second"]
    for folder, colour in zip(folders, ("red", "blue"), strict=True):
        folder.mkdir()
        Image.new("RGB", (64, 64), colour).save(folder / "start.png")
    house.inbox.rmdir()
    house.inbox.symlink_to(folders[0])
    with house.running(watch=watch):
        house.save("a.yaml", "prompt: a\nseed: 1\nimage: start.png\n")
        wait_for(lambda: house.prompts() == ["a"], "the first folder's")
        link = house.folder / "link"
        link.symlink_to(folders[1])
        link.replace(house.inbox)
        wait_for(lambda: "is another folder now" in house.log(), "the change")
        house.save("b.yaml", "prompt: b\nseed: 1\nimage: start.png\n")
        wait_for(lambda: house.prompts() == ["a", "b"], "the second folder's")
    starts = [house.chunk(picture).request.image_hash for picture in house.pictures()]
    assert starts[0] != starts[1]
    assert "deleted" not in house.log()


def test_recipes_of_a_folder_that_cannot_be_read_are_not_taken_for_deleted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is seen to be gone is gone. (Root may read everything: the refusal is staged.)"""
    refused = threading.Event()
    really_scan, really_look = os.scandir, os.lstat

    def scandir(path: str | Path) -> os.PathLike[str]:
        if refused.is_set() and Path(path).name == "pets":
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_scan(path)  # type: ignore[return-value]

    def lstat(path: str | Path, **options: int) -> os.stat_result:
        if refused.is_set() and Path(path).parent.name == "pets":
            raise PermissionError(errno.EACCES, "Permission denied")
        return really_look(path, **options)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "lstat", lstat)
    hold = HeldEngine(house)
    with house.running(batch_size=1):
        path = house.save("pets/a.txt", "first\nsecond\n")
        gone = house.save("b.txt", "third\n")
        for name in ("pets/a.txt", "b.txt"):
            wait_for(lambda: f"{name}: saved" in house.log(), "both recipes")  # noqa: B023
        hold.wait_until_held()
        refused.set()
        wait_for(lambda: "pets is not run: the folder cannot be read" in house.log(), "the scan")
        gone.unlink()
        wait_for(lambda: "b.txt: deleted" in house.log(), "the next round")
        refused.clear()
        hold.release()
        wait_for(lambda: len(house.pictures()) >= 2, "what waited")
        path.unlink()
        wait_for(lambda: "pets/a.txt: deleted, 0 images cancelled" in house.log(), "the deletion")
    assert house.prompts("pets/a") == ["first", "second"]
    assert house.log().count("pets is not run") == 1
