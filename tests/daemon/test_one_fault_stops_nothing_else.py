"""A sheet, a picture, an archive or a command that fails: it is logged, the rest continues."""

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from picowatch.files.atomic import write_atomically
from picowatch.ledger.database import Database
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.outbox import Outbox
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import DIGESTS, picowatch
from tests.house import PATIENCE, House, wait_for

SWEEP = "prompt: a corgi\nsize: 64x64\nsweep:\n  steps: [3, 4]\n  cfg_scale: 4..8 step 2\n"
GRID = "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 3\ngrid: true\n"
ONE = "prompt: a star\nseed: 7\nsize: 64x64\n"


def held_after(house: House, batches: int) -> threading.Event:
    """The engine waits before the batch after so many, until the event is set."""
    go = threading.Event()

    def hook(batch: Sequence[ImageRequest]) -> None:
        if len(house.engine.batches) > batches:
            assert go.wait(PATIENCE)

    house.engine.before_batch = hook
    return go


def sheets(house: House) -> list[str]:
    return [picture for picture in house.pictures() if picture.endswith("-sheet.png")]


def files_on(house: House, sheet: str) -> list[str]:
    with Image.open(house.outbox / sheet) as picture:
        files: list[str] = json.loads(picture.info[SHEET_KEYWORD])["files"]
    return files


def still_answers(house: House) -> None:
    """The daemon takes another save in and renders its picture."""
    house.save("still.yaml", ONE)
    wait_for(lambda: house.pictures("still"), "another recipe's picture")


@pytest.mark.parametrize("done", [1, 4])
def test_a_sweep_saved_again_in_progress_has_one_sheet_of_its_last_draw(
    house: House, done: int
) -> None:
    """With each combination once; what is left of the first draw is rendered, not shown."""
    go = held_after(house, done)
    path = house.save("a.yaml", SWEEP)
    with house.running(batch_size=1):
        wait_for(lambda: house.status()["images"]["done"] == done)
        path.touch()
        wait_for(lambda: house.log().count("6 images queued") == 2, "the second save")
        go.set()
        wait_for(lambda: sheets(house), "the sheet")
        still_answers(house)
    (sheet,) = sheets(house)
    requests = [house.chunk(file).request for file in files_on(house, sheet)]
    assert len({request.seed for request in requests}) == 1
    assert [(request.steps, request.cfg_scale) for request in requests] == [
        (3, 4), (3, 6), (3, 8), (4, 4), (4, 6), (4, 8),
    ]  # fmt: skip
    assert len(house.pictures("a")) == 13
    assert house.once()
    assert len(sheets(house)) == 1


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a picture at all")


def _cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def _foreign(path: Path) -> None:
    Image.new("P", (3, 900)).save(path, "GIF")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [_garbage, _cut_short, _foreign, _pipe, _folder])
def test_a_spoiled_picture_leaves_its_place_on_the_sheet(
    house: House, spoil: Callable[[Path], None]
) -> None:
    """Nothing is waited for: the sheet is drawn, and so is everything after it."""
    go = held_after(house, 2)
    house.save("a.yaml", GRID)
    with house.running(batch_size=1):
        wait_for(lambda: house.status()["images"]["done"] == 2)
        spoil(house.outbox / "a/0001-1.png")
        house.save("wrong.yaml", "promt: a typo\n")
        go.set()
        wait_for(lambda: (house.outbox / "a/0004-sheet.png").is_file(), "the sheet")
        wait_for(lambda: house.error("wrong.yaml"), "the error file of another recipe")
        still_answers(house)
        assert "; waiting" not in house.log()
        if spoil is not _foreign:
            assert "a/0001-1.png" in house.log().split("contact sheet")[0].splitlines()[-1]


def test_a_sheet_that_cannot_be_drawn_is_reported_once_and_not_tried_at_each_start(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and beside the recipe; the daemon and other recipes go on."""
    caplog.set_level("DEBUG", "picowatch")

    def fail(*_: object) -> None:
        raise ValueError("no such page")

    monkeypatch.setattr("picowatch.outbox.outbox.contact_sheet", fail)
    house.save("a.yaml", GRID)
    with house.running():
        warning = house.outbox / "a.yaml.warning.txt"
        wait_for(warning.exists, "the note beside the recipe")
        still_answers(house)
    assert "No contact sheet: Unexpected error: ValueError: no such page." in warning.read_text()
    assert house.once()
    assert house.log().count("Unexpected error: ValueError: no such page") == 1
    assert '    raise ValueError("no such page")\nValueError: no such page\n' in house.log()


def test_a_file_in_the_place_of_a_recipe_s_folder_is_passed_by(house: House) -> None:
    """The folder gets another name."""
    house.outbox.mkdir()
    (house.outbox / "a").write_text("mine")
    house.save("a.yaml", ONE)
    assert house.once()
    assert house.pictures() == ["a_/0001-7.png"]
    assert (house.outbox / "a").read_text() == "mine"


def test_a_folder_in_the_place_of_an_archived_recipe_is_passed_by(house: House) -> None:
    """The recipe gets the next free name."""
    (house.outbox / "a/a.yaml").mkdir(parents=True)
    path = house.save("a.yaml", ONE)
    with house.running(when_done="archive"):
        wait_for(lambda: not path.exists(), "the archive")
    assert (house.outbox / "a/a-2.yaml").read_text() == ONE


def test_an_archive_that_has_to_wait_holds_up_no_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no room for one recipe; it is archived once there is."""
    room, real = threading.Event(), Outbox.archive

    def archive(
        outbox: Outbox, file: str, digest: str, blocks: Iterator[bytes], recipe: str
    ) -> str:
        if recipe == "a.yaml" and not room.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(outbox, file, digest, blocks, recipe)

    monkeypatch.setattr(Outbox, "archive", archive)
    monkeypatch.setattr("picowatch.files.retry.RETRY_SECONDS", 0.1)
    with house.running(when_done="archive"):
        first = house.save("a.yaml", ONE)
        wait_for(lambda: "; waiting" in house.log(), "the full disk")
        second = house.save("b.yaml", ONE)
        wait_for(lambda: not second.exists(), "the other one's archive")
        assert first.exists()
        room.set()
        wait_for(lambda: not first.exists(), "the archive")


def test_a_folder_in_the_place_of_an_error_file_holds_up_nobody(house: House) -> None:
    """The error stands in the log; other recipes of the same moment are answered."""
    (house.outbox / "wrong.yaml.error.txt").mkdir(parents=True)
    house.save("wrong.yaml", "promt: a typo\n")
    house.save("other.yaml", "promt: a typo\n")
    with house.running():
        wait_for(lambda: house.error("other.yaml"))
        still_answers(house)
    assert "wrong.yaml.error.txt cannot be written: Is a directory" in house.log()
    assert "Did you mean 'prompt'" in house.log()


def test_a_folder_in_the_place_of_a_picture_fails_that_picture_alone(house: House) -> None:
    """It is said why; saved again, it gets another name."""
    go = held_after(house, 0)
    path = house.save("a.yaml", ONE)
    with house.running():
        wait_for(lambda: house.engine.batches)
        (house.outbox / "a/0001-7.png").mkdir(parents=True)
        go.set()
        wait_for(lambda: house.error("a.yaml"), "the error file")
        assert "a/0001-7.png cannot be written: Is a directory" in (house.error("a.yaml") or "")
        still_answers(house)
        path.touch()
        wait_for(lambda: (house.outbox / "a/0002-7.png").is_file(), "the picture")


def test_a_folder_that_cannot_be_written_fails_its_own_pictures_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outbox itself can be written: it is one folder's mistake, and no share that is lost."""
    publish = Outbox.publish

    def refuse(outbox: Outbox, file: str, *given: Any) -> None:
        if file.startswith("a/"):
            raise PermissionError(errno.EACCES, "Permission denied", file)
        publish(outbox, file, *given)

    monkeypatch.setattr(Outbox, "publish", refuse)
    house.save("a.yaml", ONE + "count: 4\n")
    with house.running():
        wait_for(lambda: house.error("a.yaml"), "the error file")
        assert "Give the user that runs picowatch" in (house.error("a.yaml") or "")
        still_answers(house)
        monkeypatch.undo()
        picowatch(house.folder, "retry")
        wait_for(lambda: len(house.pictures("a")) == 4, "the pictures")


def test_an_error_file_that_cannot_be_written_in_its_folder_holds_up_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log and the status say what is wrong; the error file stays away."""

    def refuse(path: Path, content: bytes) -> None:
        if path.parent.name == "pets":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        write_atomically(path, content)

    monkeypatch.setattr("picowatch.outbox.problems.write_atomically", refuse)
    with house.running():
        house.save("pets/a.yaml", "prompt: one\nsteps: many\n")
        wait_for(lambda: "pets/a.yaml.error.txt cannot be written" in house.log(), "the log")
        still_answers(house)
        wait_for(lambda: "pets/a.yaml" in str(house.status()["errors"]), "the status")
        assert not house.status()["trouble"]


def test_an_error_file_that_cannot_be_deleted_in_its_folder_holds_up_nobody(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe that is right now is rendered, too."""
    house.save("pets/a.yaml", "prompt: one\nsteps: many\n")
    refused = refuse_to_unlink(monkeypatch, "pets")
    with house.running():
        wait_for(lambda: house.error("pets/a.yaml"), "the error file")
        house.save("pets/a.yaml", "prompt: one\nsteps: 3\n")
        wait_for(lambda: house.pictures("pets"), "its picture")
        still_answers(house)
    assert refused


def test_a_picture_that_cannot_be_deleted_holds_up_no_other_command(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder must not be written; the other picture is deleted."""
    for name in ("a", "b"):
        house.save(f"{name}.yaml", ONE)
    assert house.once()
    refuse_to_unlink(monkeypatch, "a")
    with house.running():
        answer = picowatch(house.folder, "delete", "a/0001-7.png", "b/0001-7.png")
        assert answer.returncode == 1
        assert answer.stderr == (
            "1 picture deleted. No permission to delete: a/0001-7.png. Give the user that runs "
            "picowatch permission to write to its folder.\n"
        )
        assert house.pictures() == ["a/0001-7.png"]
        assert picowatch(house.folder, "pause").returncode == 0
        monkeypatch.undo()
        assert picowatch(house.folder, "delete", "a/0001-7.png").returncode == 0
    assert house.pictures() == []


def refuse_to_unlink(monkeypatch: pytest.MonkeyPatch, folder: str) -> list[Path]:
    """As in a folder of another user; returns what was to be deleted there."""
    unlink, refused = os.unlink, []

    def refuse(path: str | Path, *, dir_fd: int | None = None) -> None:
        if Path(path).parent.name == folder and Path(path).exists():
            refused.append(Path(path))
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    return refused


def test_a_folder_in_the_place_of_latest_png_loses_no_picture(house: House) -> None:
    """Nobody waits for what is only a convenience."""
    (house.outbox / "latest.png").mkdir(parents=True)
    house.save("a.yaml", ONE)
    assert house.once()
    assert house.pictures("a") == ["a/0001-7.png"]
    assert "latest.png cannot be written: Is a directory" in house.log()


def test_whatever_lies_among_the_commands_is_passed_by(house: House) -> None:
    """A pipe is not opened, a folder is not read; the next command is answered."""
    folder = house.outbox / ".picowatch/commands"
    with house.running():
        os.mkfifo(folder / "0.json")
        (folder / "1.json").mkdir()
        (folder / "2.json").symlink_to("/dev/zero")
        assert picowatch(house.folder, "pause").returncode == 0
        still_paused = picowatch(house.folder, "resume")
        assert still_paused.returncode == 0
        still_answers(house)
    assert house.log().count("0.json is not a command file; it is ignored") == 1


def test_a_command_that_fails_is_answered_and_not_repeated(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's answer says so."""

    def fail(*_: object) -> None:
        raise RuntimeError("no idea")

    monkeypatch.setattr("picowatch.ledger.ledger.Ledger.retry", fail)
    with house.running():
        answer = picowatch(house.folder, "retry")
        assert answer.returncode == 1
        assert "could not be done: RuntimeError: no idea" in answer.stderr
        still_answers(house)
    assert house.log().count("no idea") == 1


def test_the_ledger_says_why_it_cannot_be_written_inside_a_step(tmp_path: Path) -> None:
    """SQLite undoes everything by itself on a full disk: there is nothing left to undo."""
    database = Database(tmp_path / "ledger.sqlite")
    with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):  # noqa: SIM117
        with database.transaction() as sql, database.transaction():
            sql.execute("ROLLBACK")  # as SQLite does
            raise sqlite3.OperationalError("database or disk is full")
    database.close()


def test_a_strangers_picture_with_a_number_beyond_measure_stops_nothing(house: House) -> None:
    """Programs name files by long digits; SQLite keeps 63 bits."""
    (house.outbox / "a").mkdir(parents=True)
    (house.outbox / "a/99999999999999999999-1.png").write_bytes(b"foreign")
    house.save("a.txt", "a star --seed 1\n")
    assert house.once()
    assert house.pictures() == ["a/0001-1.png", "a/99999999999999999999-1.png"]


def test_a_folder_in_the_place_of_the_gallery_stops_nothing(house: House) -> None:
    """Pictures are what matters; waiting would not help, and there is room enough."""
    (house.outbox / "index.html").mkdir(parents=True)
    house.save("a.yaml", ONE)
    for _ in "twice":
        ended = picowatch(house.folder, "run", "--once", program=DIGESTS)
        assert ended.returncode == 0, ended.stderr
        assert "Free some space" not in ended.stderr
    assert house.pictures() == ["a/0001-7.png"]
    assert [line["file"] for line in house.listed()] == ["a/0001-7.png"]
    assert "index.html cannot be written: Is a directory" in house.log()


@pytest.mark.parametrize("name", ["images.jsonl", "picowatch.log", ".picowatch/lock"])
@pytest.mark.parametrize("once", [True, False])
def test_a_pipe_in_the_place_of_a_file_ends_the_start_in_words(
    house: House, name: str, once: bool
) -> None:
    """To open it would wait for a reader, or a writer, for ever."""
    (house.outbox / ".picowatch").mkdir(parents=True)
    os.mkfifo(house.outbox / name)
    house.save("a.yaml", ONE)
    ended = picowatch(house.folder, "run", *(["--once"] if once else []), program=DIGESTS)
    assert ended.returncode == 2
    assert f"outbox/{name} is not a regular file" in ended.stderr
