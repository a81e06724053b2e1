"""Which files in the inbox are recipes, and how saves are noticed."""

import errno
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from picowatch.inbox.names import is_recipe_path
from picowatch.inbox.putting import put
from picowatch.inbox.settling import held_open_for_writing
from picowatch.inbox.watching import Watch
from tests.house import HeldEngine
from tests.house import House, wait_for


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


def test_a_recipe_with_an_older_time_is_a_save(house: House) -> None:
    """Times are compared for inequality only: `mv` brings old ones, clocks jump."""
    path = house.save("a.txt", "a corgi\n")
    house.once()
    house.save("a.txt", "a star\n")
    os.utime(path, (1, 1))
    house.once()
    assert house.prompts() == ["a corgi", "a star"]


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


def test_a_misspelt_special_name_is_said_once(house: House) -> None:
    """A private name that is not like one is a draft's, of which nothing is said."""
    for name in ("_default.yaml", "pets/_Picture.yml", "_notes.yaml"):
        house.save(name, "prompt: x\n")
    assert house.once()
    log = house.log()
    assert log.count("_default.yaml is not run: if it is meant to be _defaults.yaml, rename") == 1
    assert log.count("_Picture.yml is not run: if it is meant to be _pictures.yaml, rename") == 1
    assert log.count(" is not run: ") == 2


def test_what_is_no_recipe_is_said_once_and_not_run(house: House) -> None:
    """When it comes, and not at each look; what is hidden or in a folder of code is not said."""
    for name in (
        "_Pictures.json", "pets/make.PY", "table.csv", "notes.md", "README",
        "a.sync-conflict-20260101-120000-ABC.yaml", ".vscode/settings.json",
        "node_modules/a.json", "_draft.yaml",
    ):  # fmt: skip
        house.save(name, "{}")
    for number in range(3):
        (house.inbox / "photos").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(house.inbox / f"photos/{number}.jpg")
    with house.running():
        wait_for(lambda: house.log().count(" is not run: ") == 7, "a word about each")
        house.save("_defaults.json", "{}")
        said = "_defaults.json is not run: it must be called _defaults.yaml, which may contain JSON"
        wait_for(lambda: said in house.log())
        house.save("_defaults.json", "{} ")
        house.save("notes.md", "more")
        house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"])
    log = house.log()
    for name in ("pets/make.PY", "table.csv", "notes.md", "README"):
        assert log.count(f"{name} is not run: recipes are .yaml, .yml, .json and .txt") == 1
    assert log.count("conflict copy of a sync tool") == 1
    assert log.count("photos is not run: it has pictures, but no _pictures.yaml that says") == 1
    assert log.count(" is not run: ") == 8


def test_a_recipe_of_comments_only_is_answered_with_a_reason(house: House) -> None:
    """It is valid, and its user waits for pictures."""
    house.save("a.txt", "# a corgi\n# a star\n")
    house.save("b.yaml", "# prompt: a corgi\n")
    house.once()
    for name in ("a.txt", "b.yaml"):
        assert f"{name}: saved, 0 images queued, it says nothing to render" in house.log()


def test_a_recipe_without_hard_links_is_put_whole_or_not_at_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, too: a name that comes before its bytes is that of an empty file."""

    def refuse(path: Path, other: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert put(house.inbox, "a.txt", b"a corgi\n") == ("a.txt", True)
    assert put(house.inbox, "a.txt", b"a star\n") == ("a-2.txt", True)
    assert put(house.inbox, "a.txt", b"a corgi\n") == ("a.txt", False)
    written = {path.name: path.read_text() for path in house.inbox.iterdir()}
    assert written == {"a.txt": "a corgi\n", "a-2.txt": "a star\n"}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put(house.inbox, "b.txt", b"a dog\n")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(Path, "replace", refuse)  # or it dies there
    with pytest.raises(OSError, match="not permitted"):
        put(house.inbox, "c.txt", b"a cat\n")
    left = {path.name: path.read_text() for path in house.inbox.iterdir()}
    assert left in (written, {**written, "c.txt": ""})


def test_saves_are_noticed_without_a_single_event(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New, edited and deleted recipes: as on a network share, and where events were lost."""
    monkeypatch.setattr(Watch, "start", lambda watch, root: None)
    with house.running():
        path = house.save("a.txt", "a corgi\n")
        wait_for(lambda: house.prompts() == ["a corgi"], "the new one")
        house.save("a.txt", "a star!\n")
        wait_for(lambda: house.prompts() == ["a corgi", "a star!"], "the edited one")
        path.unlink()
        wait_for(lambda: "a.txt: deleted" in house.log(), "the deletion")
    assert len(house.pictures()) == 2, "nothing is found twice"


def test_a_name_that_is_not_utf8_is_said_and_not_run(house: House) -> None:
    """It could stand in no log, list or page as it is; that of a folder neither."""
    folder = Path(os.fsdecode(os.fsencode(house.inbox) + b"/caf\xe9"))
    folder.mkdir()
    (folder / "a.txt").write_text("x\n")
    folder.with_name(f"{folder.name}.txt").write_text("x\n")
    house.save("a.txt", "a corgi\n")
    assert house.once()
    assert house.prompts() == ["a corgi"]
    assert house.log().count("caf\\udce9.txt is not run: its name is not valid UTF-8") == 1
    assert house.log().count("caf\\udce9 is not run: the folder's name is not valid UTF-8") == 1


def test_recipes_that_are_there_at_start_go_by_their_times(house: House) -> None:
    """Not by their names."""
    for number, name in enumerate(("c", "a", "b")):
        os.utime(house.save(f"{name}.txt", f"{name}\n"), (number, number))
    house.once(batch_size=1)
    assert house.started() == ["c", "a", "b"]


def test_an_inbox_that_is_a_link_may_be_turned_to_another_folder(house: House) -> None:
    """As if another folder were in its place: recipes and start images come from there."""
    folders = [house.folder / "first", house.folder / "second"]
    for folder, colour in zip(folders, ("red", "blue"), strict=True):
        folder.mkdir()
        Image.new("RGB", (64, 64), colour).save(folder / "start.png")
    house.inbox.rmdir()
    house.inbox.symlink_to(folders[0])
    with house.running():
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
