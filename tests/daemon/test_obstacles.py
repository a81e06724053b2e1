"""Obstacles and missing permissions: they are reported, and everything else goes on."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from picowatch.files.atomic import rename
from picowatch.outbox.encoding import SHEET_KEYWORD
from tests.commands.picowatch import DIGESTS, clean_environment, command, picowatch
from tests.daemon.processes import ends, process, without_privileges
from tests.house import HeldEngine, House, wait_for

ONE = "prompt: a star\nseed: 7\nsize: 64x64\n"
TYPO = "promt: a typo\n"


def still_answers(house: House) -> None:
    """Check that the daemon accepts another save and renders its picture."""
    house.save("still.yaml", ONE)
    wait_for(lambda: house.pictures("still"), "another recipe's picture")


def test_whatever_lies_in_the_outbox_stops_nothing(house: House) -> None:
    """Files and folders in the place of picowatch's own are ignored or logged."""
    (house.outbox / "c").mkdir(parents=True)
    (house.outbox / "a").write_text("mine")
    (house.outbox / "c/99999999999999999999-1.png").write_bytes(b"foreign")  # no 63 bits hold it
    for folder in ("b/b.yaml", "wrong.yaml.error.txt", "latest.png", "index.html", "preview.png"):
        (house.outbox / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        house.save(f"{name}.yaml", ONE)
    for name in ("wrong", "other"):
        house.save(f"{name}.yaml", TYPO)
    for again in (False, True):
        assert house.once(when_done="archive") is again
    assert house.pictures() == [
        *("a_/0001-7.png", "b/0001-7.png", "c/0001-7.png", "c/99999999999999999999-1.png")
    ]
    assert sorted(line["file"] for line in house.listed()) == house.pictures()[:3]
    assert (house.outbox / "a").read_text() == "mine"
    assert (house.outbox / "b/b-2.yaml").read_text() == ONE, "the next free name"
    assert "Did you mean 'prompt'" in (house.error("other.yaml") or "")
    for name in ("wrong.yaml.error.txt", "latest.png", "index.html"):
        assert f"{name} cannot be written: Is a directory" in house.log()
    assert house.log().count("Did you mean 'prompt'") == 2
    assert "Free some space" not in house.log()


@pytest.mark.parametrize(
    ("name", "obstacle"),
    [
        ("images.jsonl", os.mkfifo),
        ("picowatch.log", os.mkfifo),
        (".picowatch/lock", os.mkfifo),
        (".picowatch/ledger.sqlite", Path.mkdir),
        (".picowatch/ledger.sqlite-journal", Path.mkdir),
        (".picowatch/gallery", Path.touch),
    ],
)
def test_something_else_in_the_place_of_a_file_ends_the_start_in_words(
    house: House, name: str, obstacle: Callable[[Path], None]
) -> None:
    """Opening a pipe would block, and a ledger that is a folder be waited for, both forever."""
    (house.outbox / ".picowatch").mkdir(parents=True)
    obstacle(house.outbox / name)
    for once in ([], ["--once"]):
        ended = picowatch(house.folder, "run", *once, program=DIGESTS)
        assert ended.returncode == 2
        assert f"outbox/{name} is not a " in ended.stderr


def test_a_pipe_that_replaces_a_list_later_ends_the_run_in_words(house: House) -> None:
    """Opening it would block forever; the picture is listed by the next run without it."""
    pipe = house.outbox / "images.jsonl"
    house.engine.before_batch = lambda batch: os.mkfifo(pipe)
    house.save("a.yaml", ONE)
    assert not house.once()
    assert (
        f"picowatch exits: cannot write: [Errno 22] it is not a regular file: '{pipe}'"
        in house.log()
    )
    pipe.unlink()
    assert house.once()
    assert [line["file"] for line in house.listed()] == ["a/0001-7.png"]


def test_whatever_lies_among_the_commands_is_passed_by(house: House) -> None:
    """Pipes are not opened, folders are not read; the next command is answered."""
    folder = house.outbox / ".picowatch/commands"
    with house.running():
        os.mkfifo(folder / "0.json")
        (folder / "1.json").mkdir()
        (folder / "2.json").symlink_to("/dev/zero")
        for command in ("pause", "resume"):
            assert picowatch(house.folder, command).returncode == 0
        still_answers(house)


def test_a_folder_that_may_not_be_written_holds_up_no_other(house: House) -> None:
    """Its pictures fail with a remedy; all else in it waits until that is allowed."""
    with process(house, *without_privileges()) as daemon:
        house.save("pets/a.yaml", ONE)
        house.save("pets/b.yaml", TYPO)
        wait_for(lambda: house.pictures("pets") and house.error("pets/b.yaml"), "both answers")
        folders = (house.outbox / "pets/a", house.outbox / "pets")
        for folder in folders:
            folder.chmod(0o555)
        house.save("pets/b.yaml", ONE)
        house.save("pets/c.yaml", TYPO)
        house.save("pets/a.yaml", ONE + "count: 2\n")
        wait_for(lambda: "pets/a/0002-8.png failed: " in house.log(), "the failure of the picture")
        said = "cannot write pets/c.yaml.error.txt: Permission denied"
        still_answers(house)
        wait_for(lambda: said in str(house.status()["errors"]), "the status")
        assert house.log().count(": Permission denied; waiting") == 1, "for the first file there"
        assert not house.status()["trouble"]
        answer = picowatch(house.folder, "delete", "pets/a/0001-7.png", "still/0001-7.png")
        assert (answer.returncode, answer.stderr) == (
            1,
            "1 picture deleted. No permission to delete: pets/a/0001-7.png. Give the user that "
            "runs picowatch permission to write to its folder.\n",
        )
        for folder in folders:
            folder.chmod(0o755)
        wait_for(lambda: house.error("pets/c.yaml"), "the error file")
        assert picowatch(house.folder, "retry").returncode == 0
        wait_for(lambda: len(house.pictures("pets/a")) == 2, "the picture")
        wait_for(lambda: house.error("pets/a.yaml") is None, "the end of its error")
        wait_for(lambda: house.error("pets/b.yaml") is None, "the end of the other's error")
        wait_for(lambda: said not in str(house.status()["errors"]), "the end of the trouble")
        assert picowatch(house.folder, "delete", "pets/a/0001-7.png").returncode == 0
        ends(daemon)


@pytest.mark.parametrize(
    ("grid", "when_done", "refused"),
    [("true", "keep", "s/0002-sheet.png"), ("false", "archive", "s/s.yaml")],
)
def test_a_single_run_ends_although_one_folder_may_not_be_written(
    house: House, grid: str, when_done: str, refused: str
) -> None:
    """It does all else, says what it waited for, and has exit code 1; the next one continues."""
    house.save("s.yaml", ONE)
    assert house.once()
    (house.outbox / "s").chmod(0o555)
    (house.folder / "picowatch.yaml").write_text(f"settle_seconds: 0.1\nwhen_done: {when_done}\n")
    house.save("s.yaml", f"{ONE}grid: {grid}\n")
    for name in "abc":
        house.save(f"{name}.yaml", ONE)
    once = [*without_privileges(), *command("run", "--once", program=DIGESTS)]
    for _ in "twice":
        ended = subprocess.run(
            once, cwd=house.folder, env=clean_environment(), capture_output=True, text=True
        )
        assert ended.returncode == 1
        assert f"picowatch exits: cannot write {refused}: Permission denied" in ended.stdout
        assert house.log().count(f"error cannot write {refused}: ") == 1, "it is said once"
    assert house.pictures() == ["a/0001-7.png", "b/0001-7.png", "c/0001-7.png", "s/0001-7.png"]
    (house.outbox / "s").chmod(0o755)
    assert house.once(when_done=when_done)
    assert (house.outbox / refused).exists()
    assert house.log().count("works again; continuing") == 1


@pytest.mark.parametrize("full", ["latest.png", "a/a.yaml"])
def test_a_recipe_is_archived_although_the_disk_filled_up_after_its_picture(
    house: House, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    """Other recipes are archived meanwhile; picowatch is stopped before there is room again."""

    def rename_unless_full(old: Path, new: Path) -> None:
        if new == house.outbox / full:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(old, new)

    first = house.save("a.yaml", ONE)
    with monkeypatch.context() as patch:
        patch.setattr("picowatch.files.atomic.rename", rename_unless_full)
        with house.running(when_done="archive"):
            wait_for(lambda: "No space left on device; waiting" in house.log(), "the full disk")
            second = house.save("b.yaml", ONE)
            if full == "a/a.yaml":
                wait_for(lambda: not second.exists(), "the other one's archive")
    assert first.exists()
    assert house.once(when_done="archive")
    assert not first.exists() and not second.exists()
    assert house.pictures() == ["a/0001-7.png", "b/0001-7.png"]
    assert (house.outbox / "a/a.yaml").exists()


# -- contact sheets


def test_spoiled_pictures_leave_their_places_on_the_sheet(house: House) -> None:
    """Nothing waits: the sheet is drawn, and everything after it."""
    hold = HeldEngine(house, after=3)
    house.save("a.yaml", "prompt: a corgi\nseed: 1..4\nsize: 64x64\ngrid: true\n")
    with house.running(batch_size=1):
        hold.wait_until_held()
        wait_for(lambda: len(house.listed()) == 3, "three pictures")
        short, foreign, pipe = (house.outbox / one for one in house.pictures())
        short.write_bytes(short.read_bytes()[:-2000])
        Image.new("P", (3, 900)).save(foreign, "GIF")
        pipe.unlink()
        os.mkfifo(pipe)
        house.save("wrong.yaml", TYPO)
        hold.release()
        sheet = house.outbox / "a/0005-sheet.png"
        wait_for(sheet.is_file, "the sheet")
        wait_for(lambda: house.error("wrong.yaml"), "the error file of another recipe")
        still_answers(house)
    with Image.open(sheet) as drawn:
        assert len(json.loads(drawn.info[SHEET_KEYWORD])["files"]) == 4
    assert "; waiting" not in house.log()
    for spoiled in (short, pipe):
        assert f"a/{spoiled.name}" in house.log().split("contact sheet")[0].split("still")[0]


def test_a_sheet_that_cannot_be_drawn_is_reported_once_and_not_tried_at_each_start(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log reports it, with --debug the traceback, and a warning file; other recipes go on."""
    caplog.set_level("DEBUG", "picowatch")

    def fail(*_: object) -> None:
        raise ValueError("no such page")

    monkeypatch.setattr("picowatch.outbox.outbox.contact_sheet", fail)
    house.save("a.yaml", f"{ONE}grid: true\n")
    house.save("b.yaml", ONE)
    for _ in "twice":
        assert house.once()
    warning = (house.outbox / "a.yaml.warning.txt").read_text()
    assert "Unexpected error: ValueError: no such page." in warning
    assert house.pictures() == ["a/0001-7.png", "b/0001-7.png"]
    assert house.log().count("Unexpected error: ValueError: no such page") == 1
    assert '    raise ValueError("no such page")\nValueError: no such page\n' in house.log()


# -- permissions before a start


@pytest.mark.parametrize("taken", [".picowatch/lock", ".picowatch/gallery", "images.jsonl"])
def test_a_start_without_permission_in_the_outbox_is_refused(house: House, taken: str) -> None:
    """Somebody ran picowatch with `sudo`; a service manager would wait forever for this start."""
    assert house.once()
    path = house.outbox / taken
    path.touch()
    for closed, mode in ((path, 0o555), (path.parent, 0)):
        before = closed.stat().st_mode
        closed.chmod(mode)
        command = [*without_privileges(), sys.executable, "-m", "picowatch", "run"]
        ended = subprocess.run(command, cwd=house.folder, capture_output=True, text=True)
        closed.chmod(before)
        assert ended.returncode == 2
        assert "cannot be written" in ended.stderr
        assert str(closed.relative_to(house.folder)) in ended.stderr
