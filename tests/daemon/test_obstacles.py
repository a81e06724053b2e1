"""Obstacles and missing permissions: they are reported, and everything else goes on."""

import errno
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from PIL import Image

from picowatch.engine.protocol import RgbPicture
from picowatch.errors import CommandFailed
from picowatch.files.essential import Writing
from picowatch.outbox.commands import Command, send
from picowatch.outbox.encoding import SHEET_KEYWORD
from tests.commands.picowatch import DIGESTS_HERE, command, picowatch_here, ran
from tests.commands.test_make import made
from tests.daemon.processes import ends, process, without_privileges
from tests.fault_points import preceded_by, refusing, wrap
from tests.house import House, faults, wait_for

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
        assert 1 <= house.log().count(f"cannot write {name}: Is a directory") <= 2, "once a run"
    assert house.log().count("Did you mean 'prompt'") == 2
    assert "Free some space" not in house.log()


def test_a_link_to_nothing_in_the_place_of_a_folder_is_named(house: House) -> None:
    """Pictures cannot be written there; a link to a folder is followed."""
    house.outbox.mkdir()
    (house.outbox / "pets").symlink_to("/nowhere/at all")
    house.save("pets/a.yaml", ONE)
    assert not house.once()
    said = "pets/a/0001-7.png cannot be written: pets is in the way, which is no folder."
    assert said in house.log()


@pytest.mark.parametrize(
    ("name", "obstacle"),
    [
        ("images.jsonl", os.mkfifo),
        (".picowatch/lock", os.mkfifo),
        (".picowatch/ledger.sqlite", Path.mkdir),
        (".picowatch/ledger.sqlite-journal", Path.mkdir),
        (".picowatch/start-images", Path.touch),
    ],
)
def test_something_else_in_the_place_of_a_file_ends_the_start_in_words(
    house: House, name: str, obstacle: Callable[[Path], None]
) -> None:
    """Opening a pipe would block, and a ledger that is a folder be waited for, both forever."""
    (house.outbox / ".picowatch").mkdir(parents=True)
    obstacle(house.outbox / name)
    for once in ([], ["--once"]):
        ended = picowatch_here(house.folder, "run", *once)
        assert ended.returncode == 2
        assert f"outbox/{name} is not a " in ended.stderr


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
        answer = picowatch_here(house.folder, "delete", "pets/a/0001-7.png", "still/0001-7.png")
        assert (answer.returncode, answer.stderr) == (
            1,
            "1 picture deleted. No permission to delete: pets/a/0001-7.png. Give the user that "
            "runs picowatch permission to write to its folder.\n",
        )
        for folder in folders:
            folder.chmod(0o755)
        wait_for(lambda: house.error("pets/c.yaml"), "the error file")
        assert picowatch_here(house.folder, "retry").returncode == 0
        wait_for(lambda: len(house.pictures("pets/a")) == 2, "the picture")
        wait_for(lambda: house.error("pets/a.yaml") is None, "the end of its error")
        wait_for(lambda: house.error("pets/b.yaml") is None, "the end of the other's error")
        wait_for(lambda: said not in str(house.status()["errors"]), "the end of the trouble")
        assert picowatch_here(house.folder, "delete", "pets/a/0001-7.png").returncode == 0
        ends(daemon)


@pytest.mark.parametrize(
    ("name", "text", "when_done", "refused"),
    [
        ("s.yaml", ONE + "grid: true\n", "keep", "s/0002-sheet.png"),
        ("s.yaml", ONE + "grid: false\n", "archive", "s/s.yaml"),
        ("s/t.yaml", TYPO, "keep", "s/t.yaml.error.txt"),
    ],
)
def test_a_single_run_ends_although_one_folder_may_not_be_written(
    house: House, name: str, text: str, when_done: str, refused: str
) -> None:
    """It does all else, says what it waited for, and has exit code 1; the next one continues."""
    house.save("s.yaml", ONE)
    assert house.once()
    (house.outbox / "s").chmod(0o555)
    (house.folder / "picowatch.yaml").write_text(f"when_done: {when_done}\n")
    house.save(name, text)
    for letter in "abc":
        house.save(f"{letter}.yaml", ONE)
    once = [*without_privileges(), *command("run", "--once", program=DIGESTS_HERE)]
    for runs in (1, 2):
        ended = ran(house.folder, *once)
        assert ended.returncode == 1
        assert f"picowatch exits: cannot write {refused}: Permission denied" in ended.stdout
        assert house.log().count(f"error cannot write {refused}: ") == runs, "each says it once"
    assert house.pictures() == ["a/0001-7.png", "b/0001-7.png", "c/0001-7.png", "s/0001-7.png"]
    (house.outbox / "s").chmod(0o755)
    assert house.once(when_done=when_done) == (text != TYPO)
    assert (house.outbox / refused).exists()


def test_what_cannot_be_taken_out_of_the_inbox_stays_there(house: House) -> None:
    """It is archived once, and the log says what helps."""
    (house.folder / "picowatch.yaml").write_text("when_done: archive\n")
    once = [*without_privileges(), *command("run", "--once", program=DIGESTS_HERE)]
    path = house.save("open/own.yaml", ONE)
    said = "open/own.yaml: done, but it stays in the inbox: Permission denied. Let "
    for number, mode in enumerate((0o555, 0o555, 0o755), start=1):
        path.touch()
        path.parent.chmod(mode)
        assert ran(house.folder, *once).returncode == 0
        assert path.exists() == (mode == 0o555)
        assert house.log().count(said) == min(number, 2)
        copies = [*(house.outbox / "open/own").glob("*.yaml")]
        assert [(copy.name, copy.read_text()) for copy in copies] == [("own.yaml", ONE)]


IGNORED = "ben{} is ignored: the folder cannot be read (Permission denied)"


def test_commands_say_of_a_folder_that_the_daemon_may_not_read_that_it_is_ignored(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives them may read it. (Root may read everything, so the refusal is simulated.)"""
    monkeypatch.setattr("picowatch.daemon.commands.MISSING_SECONDS", 0.0)
    refuse = refusing(errno.EACCES, lambda path: "/ben" in str(path))
    wrap("os:scandir", preceded_by(refuse), monkeypatch.setattr)
    (house.inbox / "ben").mkdir()
    with pytest.raises(CommandFailed, match=re.escape(IGNORED.format(""))):
        made(house, house.inbox / "ben")
    house.save("notes.md", "not for picowatch\n")
    said = {
        Command("retry all", "ben/"): IGNORED.format(""),
        Command("retry", "ben/deep"): IGNORED.format("/deep"),
        Command("cancel", "ben/a.txt"): IGNORED.format("/a.txt"),
        Command("make", "ben/a.txt", "0" * 64): IGNORED.format("/a.txt"),
        Command("make folder", "ben"): IGNORED.format(""),
        Command("retry all", "notes.md"): "notes.md is ignored: recipes are .yaml",
        Command("retry all", "note.txt"): "There is no 'note.txt' in the inbox.",
    }
    sent = {send(house.outbox, request): words for request, words in said.items()}
    house.once()
    for path, words in sent.items():
        answer = house.answer_to(path)
        assert not answer.done
        assert answer.text.startswith(words)


# -- files that no picture needs

OPTIONAL = (
    "latest.png", "index.html", "now.txt", "preview.png", "failures.jsonl", "picowatch.log",
    "summary.txt", "a.yaml.warning.txt", ".picowatch/gallery/now.js",
    ".picowatch/gallery/pages.js", ".picowatch/gallery/page-00001.js",
)  # fmt: skip
IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to a full device": lambda path: path.symlink_to("/dev/full"),
    "a link to nothing": lambda path: path.symlink_to("/nowhere/at all"),
    "a link to a folder": lambda path: path.symlink_to("/etc"),
    "a link to itself": lambda path: path.symlink_to(path),
}


@contextmanager
def in_the_way(house: House, obstacle: str, names: Iterable[str]) -> Iterator[None]:
    """Put something in the place of these files, and take what is there then away."""
    paths = [house.outbox / name for name in names]
    for path in paths:
        is_there = False
        while not is_there:  # the daemon may write the file anew meanwhile
            remove(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                IN_THE_WAY[obstacle](path)
                is_there = True
    yield
    for path in paths:
        remove(path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        while path.exists():  # the daemon writes into it meanwhile
            shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("names", "obstacle"),
    [*((OPTIONAL, obstacle) for obstacle in IN_THE_WAY), ((".picowatch/gallery",), "a pipe")],
)
def test_what_no_picture_needs_stops_nothing_at_a_start_and_later(
    house: House, caplog: pytest.LogCaptureFixture, names: Sequence[str], obstacle: str
) -> None:
    """There is one line about each file; the rest is written as ever, and so is it afterwards."""
    house.console.handler = caplog.handler
    house.save("a.yaml", ONE)
    house.save("wrong.yaml", TYPO)
    with in_the_way(house, obstacle, names):
        assert not house.once(sidecar="txt"), "one recipe is wrong"
        assert house.pictures() == ["a/0001-7.png"]
    assert "picowatch exits" not in caplog.text
    with house.running(sidecar="txt"):
        house.save("b.yaml", ONE)
        wait_for(lambda: house.pictures("b"), "a picture before")
        with in_the_way(house, obstacle, names):
            for number in range(3):
                house.save(f"later-{number}.yaml", ONE)
                house.save(f"wrong-{number}.yaml", TYPO)
            wait_for(lambda: len(house.listed()) == 5, "the pictures")
            wait_for(lambda: house.error("wrong-2.yaml"), "the error files")
            assert picowatch_here(house.folder, "pause").returncode == 0
            assert picowatch_here(house.folder, "resume").returncode == 0
            assert not house.console.shown[-1].trouble
        house.save("last.yaml", ONE)
        wait_for(lambda: (house.outbox / "latest.png").is_file(), "the latest picture")
        wait_for(lambda: len(failures(house)) >= 3, "the list of failures")
    for line in {line for line in caplog.text.splitlines() if "cannot write" in line}:
        assert caplog.text.count(line) <= 2, "once in each run"
    assert house.once(), "nothing is left to do"
    assert list(faults(house.outbox)) == [], "the gallery shows all"


def test_what_was_refused_for_a_moment_is_written_once_it_can_be(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though nothing happens any more; then nothing is reported that is no longer true."""
    names, is_closed = ("now.txt", "preview.png", "totals.js"), threading.Event()
    monkeypatch.setattr("picowatch.daemon.summary.REST_SECONDS", 0.0)
    refuse = refusing(errno.EACCES, lambda _, to: is_closed.is_set() and to.name in names)
    wrap("picowatch.files.atomic:rename", preceded_by(refuse), monkeypatch.setattr)
    preview = RgbPicture(1, 1, b"red")
    house.engine.after_step = lambda done: house.engine.on_preview(preview)
    with house.running():
        is_closed.set()
        house.save("a.yaml", f"{ONE}count: 2\n")
        wait_for(lambda: len(house.listed()) == 2, "the pictures")
        for name in names:
            said = f"{name}: Permission denied"
            wait_for(lambda: said in str(house.status()["errors"]), said)  # noqa: B023
        is_closed.clear()
        wait_for(lambda: not house.status()["errors"], "the end of the trouble")
        assert "last: " in (house.outbox / "now.txt").read_text()
        assert "2 of 2 done" in (house.outbox / ".picowatch/gallery/totals.js").read_text()
        assert (house.outbox / "preview.png").exists()


@pytest.mark.parametrize("obstacle", IN_THE_WAY)
def test_what_replaces_the_list_of_pictures_is_waited_for(house: House, obstacle: str) -> None:
    """As on a full disk, no picture is lost, and the log says so once."""
    with house.running():
        with in_the_way(house, obstacle, ["images.jsonl"]):
            house.save("a.yaml", ONE)
            house.save("b.yaml", ONE)
            wait_for(lambda: house.pictures() == ["a/0001-7.png", "b/0001-7.png"], "the pictures")
            wait_for(lambda: "images.jsonl" in str(house.status()["troubles"]), "the trouble")
        wait_for(lambda: len(house.listed()) == 2, "the list")
        still_answers(house)
    assert house.log().count("cannot write images.jsonl: ") == 1
    assert "Unexpected" not in house.log()


def failures(house: House) -> list[str]:
    path = house.outbox / "failures.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_what_a_crash_left_in_a_folder_without_permission_delays_no_start(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary file, and the error file of a recipe that is gone."""
    house.save("pets/a.yaml", TYPO)
    assert not house.once()
    (house.inbox / "pets/a.yaml").unlink()
    house.ledger.unlink()
    left = house.outbox / "pets/.picowatch-0123.tmp"
    left.touch()
    kept = "pets/a.yaml.error.txt", left.name
    refuse = refusing(errno.EACCES, lambda path, **_: str(path).endswith(kept))
    wrap("os:unlink", preceded_by(refuse), monkeypatch.setattr)
    house.save("b.yaml", ONE)
    assert house.once()
    assert house.pictures() == ["b/0001-7.png"]


# -- contact sheets


def test_spoiled_pictures_leave_their_places_on_the_sheet(house: House) -> None:
    """Nothing waits: the sheet is drawn, and everything after it."""
    recipe = "prompt: a corgi\nseed: 1..4\nsize: 64x64\ngrid: true\n"
    with house.held("a.yaml", recipe, after=3, batch_size=1) as hold:
        wait_for(lambda: len(house.listed()) == 3, "three pictures")
        short, foreign, pipe = (house.outbox / name for name in house.pictures())
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
    for _ in range(2):
        assert house.once()
    warning = (house.outbox / "a.yaml.warning.txt").read_text()
    assert "Unexpected error: ValueError: no such page." in warning
    assert house.pictures() == ["a/0001-7.png", "b/0001-7.png"]
    assert house.log().count("Unexpected error: ValueError: no such page") == 1
    assert '    raise ValueError("no such page")\nValueError: no such page\n' in house.log()


# -- permissions before a start


@pytest.mark.parametrize("taken", [".picowatch/lock", ".picowatch/commands", "images.jsonl"])
def test_a_start_without_permission_in_the_outbox_is_refused(house: House, taken: str) -> None:
    """Somebody ran picowatch with `sudo`; a service manager would wait forever for this start."""
    assert house.once()
    path = house.outbox / taken
    path.touch()
    for closed, mode in ((path, 0o555), (path.parent, 0)):
        before = closed.stat().st_mode
        closed.chmod(mode)
        ended = ran(house.folder, *without_privileges(), *command("run"))
        closed.chmod(before)
        assert ended.returncode == 2
        assert "cannot be written" in ended.stderr
        assert str(closed.relative_to(house.folder)) in ended.stderr


@pytest.mark.parametrize("closed", ["", ".picowatch", ".picowatch/ledger.sqlite"])
def test_who_may_not_read_the_outbox_is_told_whom_to_ask(house: House, closed: str) -> None:
    """Only commands that read the ledger need its permissions."""
    house.save("a.yaml", ONE)
    assert house.once()
    path = house.outbox / closed
    path.chmod(0)
    asked = ("status", "a.yaml"), ("show", "--why", "inbox/a.yaml"), ("models",)
    *refused, allowed = (ran(house.folder, *without_privileges(), *command(*it)) for it in asked)
    path.chmod(0o755)
    for ended in refused:
        assert ended.returncode == 1
        assert "Ask the user that runs picowatch for permission" in ended.stderr
    assert allowed.returncode == 0, allowed.stderr


def test_a_file_that_no_picture_needs_is_told_of_once_though_reasons_change(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A pipe in a folder's place refuses now the file in it, now the folder."""
    writing = Writing(threading.Event(), tmp_path)
    for reason in (errno.ENOTDIR, errno.EEXIST, errno.ENOTDIR):
        with writing.optional("now.txt"):
            raise OSError(reason, f"reason {reason}", f"{tmp_path}/now.txt")
    assert caplog.messages == [f"cannot write now.txt: reason {errno.ENOTDIR}"]
    assert writing.missing == [f"cannot write now.txt: reason {errno.ENOTDIR}"]
