"""Commands to a running daemon from any machine that mounts the outbox, and its health."""

import errno
import json
import os
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from picowatch.commands import status as status_command
from picowatch.commands.control import NOT_RUNNING
from picowatch.commands.control import control as send_commands
from picowatch.commands.make import make
from picowatch.errors import CommandFailed, RenderFailed
from picowatch.outbox.commands import Command
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.status import STATUS
from picowatch.recipe.request import ImageRequest
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import fail_on_bad
from tests.fault_points import preceded_by, wrap
from tests.house import House, wait_for

CHECK = ("status", "--check")


def control(house: House, *words: str, code: int = 0) -> str:
    answer = picowatch_here(house.folder, *words)
    assert answer.returncode == code, answer
    assert (answer.stderr if code == 0 else answer.stdout) == ""
    return answer.stdout if code == 0 else answer.stderr


def images_now(house: House) -> dict[str, int]:
    return {state: count for state, count in house.status()["images"].items() if count}


def test_retry_brings_back_what_failed(house: House) -> None:
    """With the seed it had, and no error file. Refused recipes are counted apart."""
    house.save("a.txt", "bad --seed 5\none\n")
    house.save("pets/b.yaml", "prompt: bad\nseed: 6\n")
    house.save("wrong.yaml", "promt: a corgi\n")
    house.engine.before_batch = fail_on_bad
    with house.running():
        wait_for(lambda: house.error("a.txt") and house.error("pets/b.yaml"), "the failures")
        wait_for(lambda: house.prompts() == ["one"], "the other image")
        wait_for(lambda: house.status()["refused"] == 1, "the status")
        wait_for(lambda: house.status()["images"]["failed"] == 2, "the status of all")
        found = json.loads(control(house, "status", "--json"))
        assert (found["refused"], found["images"]["failed"]) == (1, 2)
        house.engine.before_batch = lambda batch: None
        said = "There is no 'c.txt' in the inbox. Did you mean 'a.txt'? Failed: "
        said += "a.txt, pets/b.yaml and wrong.yaml.\n"
        assert control(house, "retry", "c.txt", code=1) == said
        (house.folder / "names.txt").write_text("a.txt\nc.txt\n")
        said = "1 image queued again. There is no 'c.txt' in the inbox. Did you mean 'a.txt'?\n"
        assert control(house, "retry", "--from", "names.txt", code=1) == said
        wait_for(lambda: 5 in house.seeds("a") and house.error("a.txt") is None, "the picture")
        assert house.error("pets/b.yaml")
        said = "1 image queued again; 1 file read again.\n"
        assert control(house, "retry") == said
        wait_for(lambda: house.seeds("pets") == [6], "all pictures")
        house.save("wrong.yaml", "prompt: a corgi\n")
        wait_for(lambda: house.status()["refused"] == 0, "the good save")
        assert control(house, "retry") == "Nothing has failed.\n"
    assert "a.txt: 1 image queued again, as requested" in house.log()
    assert "pets/b.yaml and wrong.yaml: 1 image queued again; 1 file read again, as" in house.log()


def test_what_is_no_command_is_answered_and_deleted(house: House) -> None:
    """Anything may lie there: pipes are not opened, folders not read. Old answers go at a start."""
    house.save("a.txt", "one\n")
    assert house.once()
    folder = house.outbox / ".picowatch/commands"
    contents = [b"", b"[", b"[" * 90_000, b"{}", b'{"command": 3}', b"x" * 200_000, b"\xff",
                b'{"command": "retry", "recipe": 3}', b'{"command": "explode"}',
                b'{"command": "make", "recipe": "../secret.txt", "digest": "00"}']  # fmt: skip
    os.mkfifo(folder / "-1.json")
    (folder / "-2.json").mkdir()
    (folder / "-3.json").symlink_to("/dev/zero")
    for number, content in enumerate(contents):
        (folder / f"{number}.json").write_bytes(content)
    assert house.once()
    answers = sorted(folder.glob("*.answer"))
    assert [path.name for path in answers] == [f"{number}.answer" for number in range(10)]
    assert all('"done": false' in path.read_text() for path in answers)
    os.utime(answers[0], (1_000_000_000, 1_000_000_000))
    assert house.once()
    assert sorted(folder.glob("*.answer")) == answers[1:], "somebody may still come and read these"


def test_an_outbox_that_cannot_be_read_is_no_running_picowatch(house: House) -> None:
    """As that of a user who keeps it to themselves. Root may read all but a link to itself."""
    (house.outbox / ".picowatch").mkdir(parents=True)
    (house.outbox / ".picowatch/lock").symlink_to("lock")
    (house.outbox / ".picowatch/status.json").symlink_to("status.json")
    for words in (["status"], ["status", "--json"], ["status", "--check"], ["pause"]):
        refused = f"picowatch: The outbox {house.outbox} cannot be read: Too many levels"
        assert control(house, *words, code=1).startswith(refused)


def test_a_healthy_daemon_looks_at_its_inbox(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may live and report though its share is gone. To prove it, nothing is written there."""
    with house.running():
        assert control(house, *CHECK) == "picowatch is running and looks at its inbox\n"
        assert list(house.inbox.iterdir()) == []
        monkeypatch.setattr(status_command, "UNSEEN_SECONDS", 0.0)
        house.inbox.rename(house.folder / "away")
        wait_for(lambda: "inbox" in house.status()["troubles"], "the round that sees it")
        assert f"its inbox {house.inbox} is not there" in control(house, *CHECK, code=1)
        (house.folder / "away").rename(house.inbox)
        wait_for(lambda: f"the inbox {house.inbox} is back" in house.log(), "its return")
        wait_for(lambda: not house.status()["troubles"], "the round that sees it")
        look = os.scandir

        def refuse(path: Any) -> Any:
            if Path(path) == house.inbox:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return look(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", refuse)
            wait_for(lambda: "inbox" in house.status()["troubles"], "the refusal")
            said = f"inbox {house.inbox} cannot be read (Permission denied)"
            assert said in house.log()
            assert f"its {said}" in control(house, *CHECK, code=1)
    assert "is another folder" not in house.log()
    assert control(house, *CHECK, code=1) == "picowatch is not running\n"


def test_a_start_that_waits_for_a_disk_says_nothing_of_an_inbox_it_has_not_looked_at(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is what has to be seen to. No scan's time is null, as JSON has no infinity."""
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr("picowatch.outbox.outbox.Outbox.repair", Mock(side_effect=full))
        with house.running():
            wait_for(lambda: house.status()["troubles"], "the trouble")
            assert house.status()["troubles"] == {"outbox": "No space left on device"}
            said = "picowatch is running, but in trouble: outbox: No space left on device\n"
            assert control(house, *CHECK, code=1) == said
            told = control(house, "status", "--json")
            for text in (told, (house.outbox / STATUS).read_text()):
                assert json.loads(text, parse_constant=pytest.fail)["scanned"] is None
    with house.running():
        wait_for(lambda: house.status()["scanned"], "the scan")
        monkeypatch.setattr(status_command, "UNSEEN_SECONDS", -1.0)
        said = "picowatch is running, but does not look at its inbox\n"
        assert control(house, *CHECK, code=1) == said


def test_a_silent_daemon_is_not_healthy(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody learns then what it notices: on a full disk it does, but cannot say so."""
    lock = OutboxLock(house.outbox)
    for free, inodes, flag, said in (
        (1000, (900, 9), 0, "it starts or hangs"),
        (1000, (0, 0), 0, "it starts or hangs"),
        (0, (900, 9), 0, "the disk is full (0.0 MB are free)"),
        (1000, (900, 0), 0, "the disk is full (it has no free inodes)"),
        (1000, (900, 9), os.ST_RDONLY, "the file system is read-only"),
    ):
        found = Mock(f_bavail=free, f_frsize=4096, f_flag=flag)
        found.f_files, found.f_favail = inodes
        monkeypatch.setattr("picowatch.outbox.status.os.statvfs", Mock(return_value=found))
        shown = control(house, *CHECK, code=1)
        assert "has reported nothing yet" in shown and said in shown
    said = "picowatch is running, but has reported nothing "
    for updated in (1.0, time.time() + 3600):  # or the clock was set back
        house.outbox.joinpath(".picowatch/status.json").write_text(
            f'{{"updated": {updated}, "started": 1.0, "images": {{}}}}'
        )
        assert control(house, *CHECK, code=1).startswith(said)
    lock.release()


MISTAKE = (
    "picowatch: picowatch.yaml, line 2, column 17: settle_seconds 'soon': Input should be a "
    "valid number, unable to parse string as a number."
)


def test_commands_that_need_only_folders_work_while_settings_have_a_mistake(house: House) -> None:
    """The daemon runs on with the settings it has; Docker's health check must not call it ill."""
    house.outbox = house.folder / "pictures"
    house.save("a.txt", "a --seed 1\n")
    file = house.folder / "picowatch.yaml"
    with house.running():
        wait_for(lambda: house.pictures() == ["a/0001-1.png"])
        file.write_text("outbox: pictures\nsettle_seconds: soon\n")
        for words in (["status", "--check"], ["pause"], ["delete", "a/0001-1.png"]):
            answer = picowatch_here(house.folder, *words)
            assert (answer.returncode, answer.stderr) == (0, ""), words
        assert house.pictures() == []
    for strict in (["run", "--once"], ["check", "inbox/a.txt"]):
        refused = control(house, *strict, code=2)
        assert refused == f"{MISTAKE} docs/settings.md lists every setting.\n"


def test_without_the_folders_no_command_goes_on(house: House) -> None:
    """Another outbox than the one that is meant would answer."""
    for text, words in (
        ("outbox: [pictures", "not valid YAML"),
        ("settle_seconds: soon\noutbox: [pictures]\n", "outbox"),
        ("settle_seconds:1\n", "with a space after the colon"),
    ):
        (house.folder / "picowatch.yaml").write_text(text)
        assert words in control(house, "status", code=2)
        named = picowatch_here(house.folder, "status", "--outbox", "pictures")
        assert (named.returncode, named.stderr) == (1, "")


def test_what_cannot_be_sent_says_what_helps(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon of another user can read what is written, whatever the sender's umask says."""
    (house.outbox / ".picowatch/commands").mkdir(parents=True)
    umask = os.umask(0o077)
    try:
        send_commands(house.outbox, [Command("pause")])
    finally:
        os.umask(umask)
    (command,) = (house.outbox / ".picowatch/commands").glob("*.json")
    assert stat.S_IMODE(command.stat().st_mode) == 0o644
    for number, remedy in (
        (errno.ENOSPC, "Free some space, and try again."),
        (errno.EACCES, "Only users who may write there can control picowatch."),
    ):
        refused = Mock(side_effect=OSError(number, os.strerror(number)))
        monkeypatch.setattr("picowatch.commands.control.send", refused)
        with pytest.raises(CommandFailed, match=os.strerror(number)) as caught:
            send_commands(house.outbox, [Command("pause")])
        assert caught.value.remedy == remedy


# -- pause, resume, cancel


def test_a_pause_finishes_what_is_in_progress_and_lasts_until_resume(house: House) -> None:
    """Status and now.txt say so; saves are still answered."""
    with house.held("a.txt", "one\ntwo\nthree\n", batch_size=1) as held:
        said = "Paused when the images in progress are finished; 2 images wait.\n"
        assert control(house, "pause") == said
        held.release()
        wait_for(lambda: house.status()["images"]["done"] == 1, "the image in progress")
        house.save("b.yaml", "prompt: four\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3, "the save")
        now = house.outbox / "now.txt"
        wait_for(lambda: now.read_text() == "paused, 3 images wait\n", now.read_text())
        wait_for(lambda: not house.engine._started, "the engine's end: its memory is wanted")
        assert "paused" in control(house, "status")
        assert control(house, "pause") == "It is already paused; 3 images wait.\n"
        assert house.started() == ["one"]
        assert control(house, "resume") == "Resumed; 3 images wait.\n"
        wait_for(lambda: house.started() == ["one", "two", "three", "four"], "the rest")
        assert control(house, "resume").startswith("It was not paused; ")
    assert house.engine.starts == 2


def test_a_pause_outlives_the_daemon(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is sent while none runs holds before its first image, and single runs say why."""
    house.save("a.txt", "one\n")
    assert house.once()
    assert control(house, "pause", code=1) == f"{NOT_RUNNING}\n"
    house.save("a.txt", "two\n")
    assert not house.once()
    assert "paused: 1 image waits until `picowatch resume`" in house.log()
    assert list((house.outbox / ".picowatch/commands").glob("*.json")) == []
    recipe = house.folder / "b.txt"
    recipe.write_text("three\n")
    assert make(house.settings(), [recipe], house.make_engine) == 1
    assert "picowatch is paused. Continue with `picowatch resume`" in capsys.readouterr().err
    with house.running():
        wait_for(lambda: house.status()["paused"], "the status")
        assert house.prompts() == ["one"]
        control(house, "resume")
        wait_for(lambda: house.prompts() == ["one", "two", "three"], "the pictures")
    assert not house.status()["paused"]


def test_cancel_stops_what_runs_and_the_next_save_requests_it_again(house: House) -> None:
    """Of this recipe: others are not touched, and it is not archived. Fixed seeds stay."""
    recipe = "one --seed 1\ntwo --seed 2\nthree --seed 3\n"
    with house.held("a.txt", recipe, batch_size=1, when_done="archive") as held:
        house.save("b.txt", "other\n")
        wait_for(lambda: house.status()["images"]["queued"] == 3, "all saves")
        said = control(house, "cancel", "inbox/a.txt")
        assert said == "3 images cancelled. Images in progress are stopped.\n"
        stopped = "a.txt: stopped: no image of its batch is requested any more"
        wait_for(lambda: stopped in house.log(), "its end")
        held.release()
        wait_for(lambda: house.prompts("b") == ["other"], "what is left")
    for _ in range(2):
        assert house.once(), "nothing requests them until the next save"
        assert house.prompts("a") == []
    (house.inbox / "a.txt").touch()
    assert house.once()
    assert house.seeds("a") == [1, 2, 3]


def test_cancel_takes_folders_and_globs_and_waits_for_no_scan(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only files that match are looked at. The exit code is 1 if one could not be cancelled."""
    scans: list[object] = []
    note = preceded_by(lambda *given: scans.append(given))
    wrap("picowatch.inbox.inbox:scan", note, monkeypatch.setattr)
    monkeypatch.setattr("picowatch.inbox.inbox.SCAN_SECONDS", 3600.0)
    for name in ("0first", "night/a", "night/deep/b", "day1", "day2", "a", "night"):
        house.save(f"{name}.txt", "one\n")
    with house.held(batch_size=1) as held:
        wait_for(lambda: house.status()["images"]["queued"] == 6, "all saves")
        assert control(house, "cancel", "inbox/night/") == "2 images cancelled.\n"
        before = len(scans)
        assert control(house, "cancel", "*day?.txt") == "2 images cancelled.\n"
        answer = picowatch_here(house.folder, "cancel", "a.txt", "day*")
        assert (answer.returncode, answer.stdout) == (1, "1 image cancelled.\n"), "one by one"
        others = "Recipes with queued images: 0first.txt and night.txt."
        assert answer.stderr == f"No image of day* is queued. {others}\n"
        said = "There is no 'day3' in the inbox. Did you mean 'day2.txt'? "
        assert control(house, "cancel", "day3", code=1).startswith(said)
        assert len(scans) == before
        held.release()
        wait_for(lambda: house.prompts("night"), "the recipe beside the folder of its name")
    assert {picture.split("/")[0] for picture in house.pictures()} == {"0first", "night"}


@pytest.mark.parametrize(
    ("words", "left"),
    [(["cancel", "a.txt"], {"cancelled": 4}), (["pause"], {"done": 1, "queued": 3})],
)
def test_a_command_holds_for_the_rest_of_a_batch_that_failed(
    house: House, words: list[str], left: dict[str, int]
) -> None:
    """Its images are tried again one by one, and a command comes between two of them."""

    def fail_together(batch: Sequence[ImageRequest]) -> None:
        if len(batch) > 1:
            raise RenderFailed("Too much at once.")

    house.engine.before_batch = fail_together
    with house.held("a.txt", "one\ntwo\nthree\nfour\n", after=1, batch_size=4) as held:
        control(house, *words)
        held.release()
        wait_for(lambda: images_now(house) == left, "the end of the first one")
    assert len([batch for batch in house.engine.batches if len(batch) == 1]) == 1


def test_cancel_holds_for_saves_before_it(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody has answered them yet, or they take several rounds to accept."""
    monkeypatch.setattr("picowatch.daemon.accept.SLICE_SECONDS", 0.0)
    assert house.once()
    house.save("old/a.txt", "one\n")
    house.save("b.yaml", "prompt: two\n")
    for name in ("*.txt", "old", "old/a"):
        assert control(house, "cancel", name, code=1) == f"{NOT_RUNNING}\n"
    house.save("new/c.txt", "three\n")
    assert house.once()
    assert sorted(house.prompts()) == ["three", "two"]
    for number in range(30):
        house.save(f"night/{number}.txt", "four\nfive\n")
    assert house.answer("cancel", "night").text == "60 images cancelled."
    assert len(house.prompts()) == 2
