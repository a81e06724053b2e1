"""Hooks: real programs that are told of pictures, failures and idleness, and disturb nothing."""

import json
import logging
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from picowatch.observers.observers import MAX_QUEUED, Hooks, Programs
from picowatch.outbox.status import Status
from picowatch.settings.settings import load_settings
from tests.commands.picowatch import DIGESTS, PROJECT, clean_environment, picowatch
from tests.digest_engine import fail_on_bad
from tests.faults.test_engine_faults import is_running
from tests.house import House, wait_for
from tests.machine import within

# Appends what it gets to the file that its first argument names.
NOTE = (
    "import json, os, sys; "
    "own = {'arguments': sys.argv[2:], 'offline': os.environ.get('HF_HUB_OFFLINE')}; "
    "line = json.dumps({**own, **json.load(sys.stdin)}); "
    "open(sys.argv[1], 'a').write(line + '\\n')"
)


class Notes:
    """A program that notes what it gets, and its notes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notes"
        self.program = [sys.executable, "-c", NOTE, str(self._path)]

    def of(self, event: str) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines(keepends=True)
        notes = [json.loads(line) for line in lines if line.endswith("\n")]  # not half a line
        return [note for note in notes if note["event"] == event]


STRANGE = "$(touch hacked); 'y' -rf * \N{SNOWMAN}.yaml"


def test_hooks_get_each_picture_failure_and_rest(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture comes with its path and its line of images.jsonl, a failure with its text.

    Each refused save is reported, and an image's failure once. `idle` follows all work, even if
    an image fails between two status updates. No shell interprets names, and the environment is
    the daemon's: os.environ is an engine's while that starts.
    """
    notes = Notes(tmp_path)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    house.engine.before_batch = fail_on_bad
    hooks = dict.fromkeys(("picture", "failed", "idle"), notes.program)
    with house.running(hooks=hooks):
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        house.save("pets/corgi.yaml", "prompt: a corgi\nseed: 7\ncount: 2\n")
        wait_for(lambda: len(notes.of("idle")) == 1, "the rest")
        for count in (1, 2):
            house.save("bad.yaml", "stesp: 1\n" * count)
            wait_for(lambda: len(notes.of("failed")) == count, "the refusal")  # noqa: B023
        house.save(STRANGE, "prompt: bad\n")
        wait_for(lambda: len(notes.of("failed")) == 3, "the failure")
        wait_for(lambda: len(notes.of("idle")) == 2, "the second rest")
        house.save("star.txt", "a star --seed 2\n")
        wait_for(lambda: len(notes.of("idle")) == 3, "the third")
    first, second, _ = notes.of("picture")
    assert first["arguments"] == [str(house.outbox / "pets/corgi/0001-7.png")]
    assert first["path"] == first["arguments"][0]
    assert (first["recipe"], first["seed"], second["seed"]) == ("pets/corgi.yaml", 7, 8)
    refused, _, failed = notes.of("failed")
    error = str(house.outbox / "bad.yaml.error.txt")
    assert refused["arguments"] == [str(house.inbox / "bad.yaml"), error]
    assert "Did you mean 'steps'?" in refused["error"]
    assert (failed["recipe"], failed["offline"]) == (STRANGE, None)
    assert failed["arguments"][0] == str(house.inbox / STRANGE)
    assert "Bad." in failed["error"]
    rests = notes.of("idle")
    assert [(note["pictures"], note["arguments"]) for note in rests] == [(2, []), (0, []), (1, [])]


def test_run_once_waits_for_its_hooks(tmp_path: Path) -> None:
    """A cron job ends when all hooks have ended; texts are split as in a shell."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nsteps: 2\nsize: 64x64\nseed: 1\n")
    script = tmp_path / "a script"
    script.write_text('#!/bin/sh\nsleep 0.5\necho "$@" >> told\n')
    script.chmod(0o755)
    settings = {"hooks": {"picture": f"'{script}' of", "idle": "sh -c 'echo idle >> rested'"}}
    (tmp_path / "picowatch.yaml").write_text(json.dumps(settings))
    result = picowatch(tmp_path, "run", "--once", program=DIGESTS)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "told").read_text() == f"of {tmp_path}/outbox/a/0001-1.png\n"
    assert (tmp_path / "rested").read_text() == "idle\n"
    picowatch(tmp_path, "run", "--once", program=DIGESTS)
    assert (tmp_path / "rested").read_text() == "idle\n", "nothing was made, so nothing rested"


def test_no_rest_is_told_of_another_outbox(tmp_path: Path) -> None:
    """Its queue is empty before its inbox was looked at: `idle` may turn the machine off."""
    notes, hooks = Notes(tmp_path), Hooks()
    programs: Programs = {"picture": notes.program, "idle": notes.program}
    empty = Status(updated=1.0, started=1.0, images={"queued": 0, "running": 0})
    for outbox in (tmp_path / "a", tmp_path / "b"):
        hooks.use(tmp_path, outbox, programs, 60)
        hooks.status(empty)
        hooks.picture({"file": "a.png"})
    hooks.close(lambda: False)
    assert (len(notes.of("picture")), notes.of("idle")) == (2, [])


@contextmanager
def hooks_of(folder: Path, command: list[str], seconds: float = 60) -> Iterator[Hooks]:
    """Make hooks for pictures, which end with the block."""
    hooks = Hooks()
    hooks.use(folder, folder, {"picture": command}, seconds)
    try:
        yield hooks
    finally:
        hooks.close(lambda: True)


# Of what a program writes to its standard error, no more is kept than is read.
UNTIL_DISCARDED = "until [ $(wc -c < /dev/stderr) -lt 9999 ]; do sleep 0.05; done"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/to/be/found"], "could not be run: No such file or directory"),
        ([__file__], "could not be run: Permission denied"),
        (["sh", "-c", "echo; echo no bell >&2; exit 3"], "failed with exit code 3: no bell"),
        (["sh", "-c", "yes | head -c 9000000 >&2 & sleep 60"],
         "was stopped after 3 s (hook_seconds): y"),
        (["sh", "-c", "kill -9 $$"], "failed with exit code -9"),
        (["sh", "-c", f"echo all >&2; yes | head -c 99999 >&2; {UNTIL_DISCARDED}; exit 4"],
         "failed with exit code 4: all"),
    ],
)  # fmt: skip
def test_a_hook_that_fails_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, command: list[str], said: str
) -> None:
    limit = re.search(r"after ([\d.]+) s", said)
    seconds = float(limit[1]) if limit else 30.0  # on a busy machine a shell takes its time
    with caplog.at_level(logging.INFO), hooks_of(tmp_path, command, seconds) as hooks:
        hooks.picture({"file": "a.png"})
        wait_for(lambda: "hook picture" in caplog.text, "the line")
    (line,) = (record.getMessage() for record in caplog.records)
    assert line == f"hook picture ({command[0]}) {said}"


def test_a_slow_hook_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """It is killed at its time limit and at the end of picowatch; one runs at a time."""
    pids = tmp_path / "pids"
    script = f"echo $$ >> {pids}; sleep 600 & echo $! >> {pids}; wait"
    for seconds in (3.0, 60.0):
        pids.unlink(missing_ok=True)
        with hooks_of(tmp_path, ["sh", "-c", script], seconds) as hooks:
            hooks.picture({"file": "a.png"})
            wait_for(lambda: pids.exists() and pids.read_text().count("\n") == 2, "the program")
            started = [int(line) for line in pids.read_text().split()]
            if seconds == 60:
                hooks.picture({"file": "b.png"})
                assert len(pids.read_text().split()) == 2, "a second one runs beside it"
                began = time.monotonic()
                hooks.close(lambda: True)
                assert time.monotonic() - began < within(1)
            wait_for(lambda: not any(map(is_running, started)), "their end")  # noqa: B023
    assert len(pids.read_text().split()) == 2, "what waited was run at the end"


def test_a_hook_that_cannot_be_killed_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as another user, or in the system; the log says so, and later calls are made."""
    stuck, run = Mock(pid=0), subprocess.Popen
    stuck.wait.side_effect = subprocess.TimeoutExpired("", 0.5)
    started: Iterator[Any] = iter([lambda *_, **__: stuck, run])
    monkeypatch.setattr(subprocess, "Popen", lambda *given, **how: next(started)(*given, **how))
    monkeypatch.setattr(
        "picowatch.observers.observers.os.killpg", Mock(side_effect=PermissionError)
    )
    done = tmp_path / "done"
    with hooks_of(tmp_path, ["touch", str(done)], 0.5) as hooks:
        hooks.picture({"file": "a.png"})
        hooks.picture({"file": "b.png"})
        wait_for(done.exists, "the second call")
    assert caplog.messages[0] == (
        "hook picture (touch) could not be ended after 0.5 s (hook_seconds), perhaps because it "
        "runs as another user; picowatch no longer waits for it"
    )


def test_too_many_calls_are_dropped_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However slow the program is, it never delays rendering."""
    go = tmp_path / "go"
    with hooks_of(tmp_path, ["sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done"]) as hooks:
        began = time.monotonic()
        for _ in range(MAX_QUEUED + 3):
            hooks.picture({"file": "a.png"})
        assert time.monotonic() - began < within(1)
        dropped = "is too slow: 100 calls are queued, and another one was dropped"
        assert 2 <= caplog.text.count(dropped) <= 3
    assert "ended with picowatch; calls that were lost: 10" in caplog.text  # or 101, if none began


# -- the hooks in contrib/ do what they say


HOOKS = PROJECT / "contrib/hooks"


def test_shellcheck_finds_nothing() -> None:
    """There is no warning for any hook, and all are executable."""
    scripts = sorted(HOOKS.glob("*.sh"))
    assert len(scripts) >= 2
    for script in scripts:
        assert script.stat().st_mode & 0o111, script
    checked = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), *scripts], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout) == (0, "")


CURL = "--fail|--silent|--show-error|--max-time|20|--header|Content-Type: application/json|"
TOLD = '{"event": "picture", "prompt": "a corgi \\ud83d\\udc36"}'


@pytest.mark.parametrize(
    ("hook", "program", "arguments", "given"),
    [
        ("notify-desktop", "notify-send", ["picture", "{0}/a b.png"],
         "--icon={0}/a b.png|--transient|picowatch|a b.png|"),
        ("notify-desktop", "notify-send", ["failed", "/in/x.yaml", "{0}/x.txt"],
         "--urgency=critical|picowatch: x.yaml|no steps|"),
        ("notify-desktop", "notify-send", ["idle"], "picowatch|All pictures are done.|"),
        ("webhook", "curl", ["https://a.example/b", "/a.png"],
         f"{CURL}--data-binary|@-|https://a.example/b|"),
    ],
)  # fmt: skip
def test_a_program_is_called(
    tmp_path: Path, hook: str, program: str, arguments: list[str], given: str
) -> None:
    """The program, which here writes down what it is given, gets the JSON as its input."""
    fake = tmp_path / program
    fake.write_text('#!/bin/sh\n{ printf \'%s|\' "$@"; cat; } > "${0%/*}/given"\n')
    fake.chmod(0o755)
    (tmp_path / "x.txt").write_text("no steps\n")
    filled = [argument.format(tmp_path) for argument in arguments]
    environment = clean_environment(PATH=f"{tmp_path}:{clean_environment()['PATH']}")
    command = [str(HOOKS / f"{hook}.sh"), *filled]
    subprocess.run(command, env=environment, check=True, input=TOLD, text=True)
    assert (tmp_path / "given").read_text() == given.format(tmp_path) + TOLD


def test_the_shown_copy_keeps_folders(house: House) -> None:
    """Two pictures of one name stay two, each in its folder; picowatch's own files stay behind."""
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed")
    page = (PROJECT / "docs/hooks.md").read_text()
    (shown,) = re.findall(r"```\n(hooks:\n  picture: .*rsync.*\n)```", page)
    (house.folder / "picowatch.yaml").write_text(shown.replace("/srv/photos", "copy"))
    for name, word in (("a/cat.txt", "red"), ("b/cat.txt", "blue")):
        house.save(name, f"a {word} cat --seed 1\n")
    assert picowatch(house.folder, "run", "--once", program=DIGESTS).returncode == 0
    for picture in ("a/cat/0001-1.png", "b/cat/0001-1.png"):
        copied = (house.folder / "copy" / picture).read_bytes()
        assert copied == (house.outbox / picture).read_bytes()
    assert not list((house.folder / "copy").rglob(".picowatch*"))


def test_the_shown_settings_are_good_ones(tmp_path: Path) -> None:
    """The settings in docs/hooks.md are valid, and their scripts exist."""
    page = (PROJECT / "docs/hooks.md").read_text()
    shown = [text for text in re.findall(r"```\n(.*?)```", page, re.DOTALL) if "hooks:" in text]
    assert len(shown) == 3
    for text in shown:
        (tmp_path / "picowatch.yaml").write_text(text)
        for command in load_settings({}, {}, tmp_path / "picowatch.yaml").hooks.values():
            found = shutil.which(command[0]) or (PROJECT / command[0]).exists()
            assert found or command[0] == "apprise", command
