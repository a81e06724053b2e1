"""Commands to a running daemon, and its health."""

import errno
import json
import os
import stat
from pathlib import Path
from unittest.mock import Mock

import pytest

from picowatch.commands import status as status_command
from picowatch.commands.control import control
from picowatch.errors import CommandFailed
from picowatch.outbox.commands import Command
from picowatch.outbox.lock import OutboxLock
from picowatch.outbox.status import no_room
from tests.commands.picowatch import picowatch_here
from tests.digest_engine import fail_on_bad
from tests.house import House, wait_for


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
        found = json.loads(picowatch_here(house.folder, "status", "--json").stdout)
        assert (found["refused"], found["images"]["failed"]) == (1, 2)
        house.engine.before_batch = lambda batch: None
        answer = picowatch_here(house.folder, "retry", "c.txt")
        said = "There is no 'c.txt' in the inbox. Did you mean 'a.txt'? Failed: "
        said += "a.txt, pets/b.yaml, wrong.yaml.\n"
        assert (answer.returncode, answer.stderr) == (1, said)
        answer = picowatch_here(house.folder, "retry", "inbox/a.txt")
        assert (answer.returncode, answer.stdout) == (0, "1 image queued again.\n"), answer.stderr
        wait_for(lambda: 5 in house.seeds("a") and house.error("a.txt") is None, "the picture")
        assert house.error("pets/b.yaml")
        said = "1 image queued again; 1 refused file read again.\n"
        assert picowatch_here(house.folder, "retry").stdout == said
        wait_for(lambda: house.seeds("pets") == [6], "all pictures")
        house.save("wrong.yaml", "prompt: a corgi\n")
        wait_for(lambda: house.status()["refused"] == 0, "the good save")
        assert picowatch_here(house.folder, "retry").stdout == "Nothing has failed.\n"
    assert "a.txt: 1 image queued again, as requested" in house.log()


def test_what_is_no_command_is_answered_and_deleted(house: House) -> None:
    """Whoever may write to the outbox may write anything there. Old answers go at a start."""
    house.save("a.txt", "one\n")
    assert house.once()
    folder = house.outbox / ".picowatch/commands"
    contents = [b"", b"[", b"[" * 90_000, b"{}", b'{"command": 3}', b"x" * 200_000, b"\xff",
                b'{"command": "retry", "recipe": 3}', b'{"command": "explode"}',
                b'{"command": "make", "recipe": "../secret.txt", "digest": "00"}']  # fmt: skip
    for number, content in enumerate(contents):
        (folder / f"{number}.json").write_bytes(content)
    assert house.once()
    answers = sorted(folder.iterdir())
    assert [path.name for path in answers] == [f"{number}.answer" for number in range(10)]
    assert all('"done": false' in path.read_text() for path in answers)
    os.utime(answers[0], (1_000_000_000, 1_000_000_000))
    assert house.once()
    assert sorted(folder.iterdir()) == answers[1:], "somebody may still come and read these"


def test_an_outbox_that_cannot_be_read_is_no_running_picowatch(house: House) -> None:
    """As that of a user who keeps it to themselves. Root may read all but a link to itself."""
    (house.outbox / ".picowatch").mkdir(parents=True)
    (house.outbox / ".picowatch/lock").symlink_to("lock")
    (house.outbox / ".picowatch/status.json").symlink_to("status.json")
    for words in (["status"], ["status", "--json"], ["status", "--check"], ["pause"]):
        answer = picowatch_here(house.folder, *words)
        assert (answer.returncode, answer.stdout) == (1, "")
        refused = f"picowatch: The outbox {house.outbox} cannot be read: Too many levels"
        assert answer.stderr.startswith(refused)


def test_a_healthy_daemon_looks_at_its_inbox(
    house: House, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may live and report though its share is gone. To prove it, nothing is written there."""
    with house.running():
        health = picowatch_here(house.folder, "status", "--check")
        said = "picowatch is running and looks at its inbox\n"
        assert (health.returncode, health.stdout) == (0, said), health.stderr
        assert list(house.inbox.iterdir()) == []
        monkeypatch.setattr(status_command, "UNSEEN_SECONDS", 0.0)
        house.inbox.rename(house.folder / "away")
        wait_for(lambda: "has vanished" in house.log(), "the round that sees it")
        assert status_command.check(house.outbox) == 1
        assert "its inbox is not there" in capsys.readouterr().err
    health = picowatch_here(house.folder, "status", "--check")
    assert (health.returncode, health.stderr) == (1, "picowatch is not running\n")


@pytest.mark.parametrize(
    ("free", "flag", "said"),
    [
        (1000, 0, ""),
        (0, 0, "the disk is full (0.0 MB are free)"),
        (1000, os.ST_RDONLY, "the file system is read-only"),
    ],
)
def test_an_outbox_without_room_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, flag: int, said: str
) -> None:
    found = Mock(f_bavail=free, f_frsize=4096, f_flag=flag)
    monkeypatch.setattr("picowatch.outbox.status.os.statvfs", Mock(return_value=found))
    assert no_room(tmp_path) == said


def test_a_daemon_that_reports_nothing_is_not_healthy(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody learns then what it notices: on a full disk it does, but cannot say so."""
    lock = OutboxLock(house.outbox)
    assert status_command.check(house.outbox) == 1
    assert "has reported nothing" in capsys.readouterr().err
    house.outbox.joinpath(".picowatch/status.json").write_text(
        '{"updated": 1.0, "started": 1.0, "images": {}}'
    )
    assert status_command.check(house.outbox) == 1
    assert capsys.readouterr().err.startswith("picowatch is running, but has reported nothing ")
    lock.release()


MISTAKE = (
    "picowatch: picowatch.yaml, line 2, column 17: settle_seconds 'soon': Input should be a "
    "valid number, unable to parse string as a number."
)


def test_commands_that_need_only_the_folders_work_while_the_settings_have_a_mistake(
    house: House,
) -> None:
    """The daemon runs on with the settings it has; Docker's health check must not call it ill."""
    house.outbox = house.folder / "pictures"
    house.save("a.txt", "a --seed 1\n")
    file = house.folder / "picowatch.yaml"
    with house.running():
        wait_for(lambda: house.pictures() == ["a/0001-1.png"])
        file.write_text("outbox: pictures\nsettle_seconds: soon\n")
        for words in (["status", "--check"], ["pause"], ["delete", "a/0001-1.png"]):
            answer = picowatch_here(house.folder, *words)
            assert (answer.returncode, answer.stdout == "") == (0, False), words
            command = f"`picowatch {words[0]}` needs only the folders and continues."
            assert answer.stderr == f"{MISTAKE} {command}\n"
        assert house.pictures() == []
        none_queued = picowatch_here(house.folder, "cancel", "inbox/a.txt")
        assert none_queued.returncode == 1
        assert none_queued.stderr.endswith("continues.\nNo image of a.txt is queued.\n")
    for strict in (["run", "--once"], ["check", "inbox/a.txt"]):
        refused = picowatch_here(house.folder, *strict)
        assert refused.returncode == 2, strict
        assert refused.stderr == f"{MISTAKE} docs/settings.md lists every setting.\n"
    file.write_text("outbox: pictures\ndevce: cpu\nsettle_seconds: soon\n")
    assert picowatch_here(house.folder, "status").stderr.startswith(
        "picowatch: picowatch.yaml, line 2, column 1: unknown setting 'devce'. Did you mean "
        "'device'? (Mistakes: 2.) `picowatch status` needs only the folders and continues.\n"
    )


BROKEN = {
    "no YAML": "format: [png\n",
    "no setting": "devce: cpu\n",
    "no value": "inbox: [inbox]\nquality: best\n",
    "no text": b"format: \xff\n",
    "a folder": None,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_with_the_outbox_named_no_broken_file_stops_a_command(
    house: House, text: str | bytes | None
) -> None:
    """By a flag, or on a line of its own that can be read."""
    house.outbox = house.folder / "pictures"
    file = house.folder / "picowatch.yaml"
    file.mkdir() if text is None else house.save("../picowatch.yaml", text)
    with house.running():
        answer = picowatch_here(house.folder, "retry", "--outbox", "pictures")
        assert (answer.returncode, answer.stdout) == (0, "Nothing has failed.\n"), answer
        assert answer.stderr.count("\n") == 1
        assert answer.stderr.startswith("picowatch: ")
        assert answer.stderr.endswith("needs only the folders and continues.\n")
        if isinstance(text, str) and "inbox" not in text:
            file.write_text(f"outbox: pictures\n{text}")
            assert picowatch_here(house.folder, "status").returncode == 0


def test_without_the_folders_no_command_goes_on(house: House) -> None:
    """Another outbox than the one that is meant would answer."""
    for text, words in (
        ("outbox: [pictures", "not valid YAML"),
        ("settle_seconds: soon\noutbox: [pictures]\n", "outbox"),
        ("settle_seconds:1\n", "with a space after the colon"),
    ):
        (house.folder / "picowatch.yaml").write_text(text)
        answer = picowatch_here(house.folder, "status")
        assert (answer.returncode, answer.stdout) == (2, "")
        assert words in answer.stderr and "continues" not in answer.stderr


def test_a_command_that_cannot_be_written_says_what_helps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon of another user can read what is written, whatever the sender's umask says."""
    (house.outbox / ".picowatch/commands").mkdir(parents=True)
    umask = os.umask(0o077)
    try:
        control(house.outbox, [Command("pause")])
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
            control(house.outbox, [Command("pause")])
        assert caught.value.remedy == remedy
