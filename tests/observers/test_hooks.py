"""Hooks: real programs that hear of pictures, failures and rest, and never disturb the work."""

import json
import re
import signal
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from picowatch.errors import RenderFailed
from picowatch.observers.hooks import MAX_QUEUED, Hooks
from picowatch.outbox.status import Status
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings
from tests.commands.picowatch import DIGESTS, picowatch, start
from tests.house import House, wait_for, within

# Appends what it gets to the file that its first argument names.
NOTE = (
    "import json, sys; "
    "line = json.dumps({'arguments': sys.argv[2:], **json.load(sys.stdin)}); "
    "open(sys.argv[1], 'a').write(line + '\\n')"
)


class Notes:
    """A program that writes down what it gets, and its notes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "notes"
        self.program = [sys.executable, "-c", NOTE, str(self._path)]

    def all(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]  # not half a line

    def of(self, event: str) -> list[dict[str, Any]]:
        return [note for note in self.all() if note["event"] == event]


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


def alive(pid: int) -> bool:
    """Whether there is such a process, and not only its remains."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def none_alive(pids: Sequence[int]) -> bool:
    return not any(map(alive, pids))


def test_hooks_get_each_picture_and_an_empty_queue_once(house: House, notes: Notes) -> None:
    """Each with its path and its line of images.jsonl; then that the queue is empty."""
    hooks = {"picture": notes.program, "idle": notes.program}
    with house.running(hooks=hooks):
        house.save("pets/corgi.yaml", "prompt: a corgi\nseed: 7\ncount: 2\n")
        wait_for(lambda: notes.of("idle"), "the rest")
        wait_for(lambda: len(notes.of("picture")) == 2, "both pictures")
        first, second = notes.of("picture")
        assert first["arguments"] == [str(house.outbox / "pets/corgi/0001-7.png")]
        assert first["path"] == first["arguments"][0]
        assert (first["recipe"], first["seed"], second["seed"]) == ("pets/corgi.yaml", 7, 8)
        assert Path(second["path"]).is_file()
        house.save("star.txt", "a star --seed 1\n")
        wait_for(lambda: len(notes.of("idle")) == 2, "the second rest")
    assert [note["pictures"] for note in notes.of("idle")] == [2, 1]
    assert notes.of("idle")[0]["arguments"] == []


def test_hooks_get_refused_saves_and_failed_images(house: House, notes: Notes) -> None:
    """With the recipe, its error file and its text; each time, but an image's failure once."""

    def fail(batch: Any) -> None:
        if batch[0].seed == 1:
            raise RuntimeError("out of ink")

    house.engine.before_batch = fail
    with house.running(hooks={"failed": notes.program}):
        house.save("bad.yaml", "stesp: 1\n")
        wait_for(lambda: len(notes.of("failed")) == 1, "the refusal")
        house.save("bad.yaml", "stesp: 1\n\n")
        wait_for(lambda: len(notes.of("failed")) == 2, "the same refusal of a new save")
        house.save("ink.yaml", "prompt: a\nseed: [1, 2, 3]\n")
        wait_for(lambda: house.status()["images"]["done"] == 2, "the other images")
        wait_for(lambda: len(notes.of("failed")) == 3, "the failure")
    refused, _, failed = notes.of("failed")
    assert refused["arguments"] == [
        str(house.inbox / "bad.yaml"),
        str(house.outbox / "bad.yaml.error.txt"),
    ]
    assert "Did you mean 'steps'?" in refused["error"]
    assert failed["recipe"] == "ink.yaml"
    assert "out of ink" in failed["error"]
    assert len(notes.of("failed")) == 3


def test_an_image_that_fails_at_once_was_work_too(house: House, notes: Notes) -> None:
    """Also between two looks at the queue: it is empty again."""

    def fail(batch: Sequence[ImageRequest]) -> None:
        raise RenderFailed("No.")

    house.engine.before_batch = fail
    with house.running(hooks={"idle": notes.program}):
        for number in (1, 2, 3, 4):
            house.save(f"{number}.txt", "a cat\n")
            wait_for(lambda: len(notes.of("idle")) == number)  # noqa: B023
    assert [note["pictures"] for note in notes.all()] == [0, 0, 0, 0]


def test_run_once_waits_for_its_hooks(tmp_path: Path, notes: Notes) -> None:
    """A cron job ends when all hooks have ended; texts are split as a shell would."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nsteps: 2\nsize: 64x64\nseed: 1\n")
    script = tmp_path / "a script"
    script.write_text('#!/bin/sh\nsleep 1\necho "$@" >> told\n')
    script.chmod(0o755)
    settings = {"hooks": {"picture": f"'{script}' of", "idle": "sh -c 'echo idle >> rested'"}}
    (tmp_path / "picowatch.yaml").write_text(json.dumps(settings))
    result = picowatch(tmp_path, "run", "--once", program=DIGESTS)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "told").read_text() == f"of {tmp_path}/outbox/a/0001-1.png\n"
    assert (tmp_path / "rested").read_text() == "idle\n"
    picowatch(tmp_path, "run", "--once", program=DIGESTS)
    assert (tmp_path / "rested").read_text() == "idle\n", "nothing was made, so nothing rested"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["/nowhere/to/be/found"], "could not be run: No such file or directory"),
        (["nowhere-to-be-found"], "could not be run: No such file or directory"),
        ([__file__], "could not be run: Permission denied"),
        (["false"], "failed with exit code 1"),
        (["sh", "-c", "echo; echo no bell >&2; exit 3"], "failed with exit code 3: no bell"),
        (["sh", "-c", "sleep 60"], "was stopped after 0.2 s (hook_seconds)"),
        (
            ["sh", "-c", "yes | head -c 9000000 >&2 & sleep 60"],
            "was stopped after 3 s (hook_seconds): y",
        ),
        (["sh", "-c", "kill -9 $$"], "failed with exit code -9"),
    ],
)
def test_a_hook_that_fails_is_one_line_in_the_log(
    house: House, command: list[str], said: str
) -> None:
    """And the pictures are rendered as without it."""
    limit = re.search(r"after ([\d.]+) s", said)
    seconds = float(limit[1]) if limit else 30.0  # on a busy machine a shell takes its time
    with house.running(hooks={"picture": command}, hook_seconds=seconds):
        house.save("a.yaml", "prompt: a\nseed: 1\n")
        wait_for(lambda: "hook picture" in house.log(), "the line")
        assert house.pictures() == ["a/0001-1.png"]
    lines = [line for line in house.log().splitlines() if "hook" in line]
    assert len(lines) == 1
    assert f"hook picture ({command[0]}) {said}" in lines[0]


def hooks_of(command: list[str], tmp_path: Path, seconds: float = 60) -> Hooks:
    return hooks_at(tmp_path, {"picture": command}, seconds)


def hooks_at(folder: Path, programs: dict[str, list[str]], seconds: float = 60) -> Hooks:
    return Hooks(Settings(inbox=folder, outbox=folder, hooks=programs, hook_seconds=seconds))


def now() -> bool:
    return True


def test_a_slow_hook_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    """At its limit, and at the end of picowatch; one runs at a time."""
    pids = tmp_path / "pids"
    script = f"echo $$ >> {pids}; sleep 600 & echo $! >> {pids}; wait"
    for seconds in (3.0, 60.0):
        pids.unlink(missing_ok=True)
        hooks = hooks_of(["sh", "-c", script], tmp_path, seconds)
        hooks.picture({"file": "a.png"})
        wait_for(lambda: pids.exists() and pids.read_text().count("\n") == 2, "the program")
        started = [int(line) for line in pids.read_text().split()]
        if seconds == 60:
            hooks.picture({"file": "b.png"})
            assert len(pids.read_text().split()) == 2, "a second one runs beside it"
            began = time.monotonic()
            hooks.close(now)
            assert time.monotonic() - began < within(1)
        wait_for(partial(none_alive, started), "their end")
        hooks.close(now)
    assert len(pids.read_text().split()) == 2, "what waited was run at the end"


def test_sigterm_ends_hooks_too(tmp_path: Path) -> None:
    """Within two seconds, and nothing is left behind."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nsteps: 1\nsize: 64x64\nseed: 1\n")
    hook = ["sh", "-c", "echo $$ > pid.new; mv pid.new pid; exec sleep 600"]
    (tmp_path / "picowatch.yaml").write_text(json.dumps({"hooks": {"picture": hook}}))
    process = start(tmp_path, "run", program=DIGESTS)
    try:
        wait_for((tmp_path / "pid").exists, "the hook")
        pid = int((tmp_path / "pid").read_text())
        assert alive(pid)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert time.monotonic() - began < within(2)
        assert not alive(pid)
    finally:
        process.kill()
        process.communicate()


def test_too_many_calls_are_dropped_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rendering is never held up, however slow the program is."""
    go = tmp_path / "go"
    hooks = hooks_of(["sh", "-c", f"until [ -e {go} ]; do sleep 0.05; done"], tmp_path)
    began = time.monotonic()
    for _ in range(MAX_QUEUED + 3):
        hooks.picture({"file": "a.png"})
    assert time.monotonic() - began < within(1)
    assert (
        2
        <= caplog.text.count("is too slow: 100 calls are queued, and another one was dropped")
        <= 3
    )
    hooks.close(now)
    assert "ended with picowatch; calls that were lost: 10" in caplog.text  # or 101, if none began


class Published(dict[str, int]):
    """Counts of images; while somebody reads how many are running, a picture is published."""

    def __init__(self, hooks: Hooks, **counts: int) -> None:
        super().__init__(counts)
        self.publishing = threading.Thread(target=hooks.picture, args=({"file": "a.png"},))

    def __getitem__(self, state: str) -> int:
        if state == "running":
            self.publishing.start()
            self.publishing.join(0.1)
        return super().__getitem__(state)


def test_a_picture_that_comes_while_the_status_is_looked_at_is_counted(
    tmp_path: Path, notes: Notes
) -> None:
    """Publishers report pictures in several threads."""
    hooks = hooks_at(tmp_path, {"idle": notes.program})
    images = Published(hooks, queued=1, running=0)
    hooks.status(Status(updated=0.0, started=0.0, images=images))
    images.publishing.join()
    rest = {"queued": 0, "running": 0}
    hooks.status(Status(updated=0.0, started=0.0, images=rest))
    wait_for(notes.all, "that the queue is empty")
    assert notes.of("idle")[0]["pictures"] == 1
    hooks.close(now)


def test_a_program_gets_the_environment_of_the_daemon_and_not_of_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """os.environ is the engine's for the moment in which an engine's process starts."""
    seen = tmp_path / "seen"
    script = f'echo "${{HF_HUB_OFFLINE-none}}" > {seen}.new; mv {seen}.new {seen}'
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    hooks = hooks_of(["sh", "-c", script], tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hooks.picture({"file": "a.png"})
    wait_for(seen.exists, "the program")
    assert seen.read_text() == "none\n"
    hooks.close(now)


def test_names_reach_the_program_as_they_are(tmp_path: Path, notes: Notes) -> None:
    """No shell looks at them."""
    hooks = hooks_of(notes.program, tmp_path)
    file = "$(touch hacked); `x` 'y' \"z\" -rf * \N{SNOWMAN}.png"
    hooks.picture({"file": file, "prompt": "</script>\u2028"})
    wait_for(lambda: notes.all(), "the note")
    (note,) = notes.all()
    assert note["arguments"] == [str(tmp_path / file)]
    assert note["prompt"] == "</script>\u2028"
    assert not (tmp_path / "hacked").exists()
    hooks.close(now)


def test_pictures_of_two_threads_at_once_are_all_counted(tmp_path: Path, notes: Notes) -> None:
    """Both read the count before either has written it, unless they take turns."""
    both = threading.Barrier(2)

    class SlowCount(int):
        def __add__(self, more: int) -> "SlowCount":
            with suppress(threading.BrokenBarrierError):
                both.wait(0.2)
            return SlowCount(int(self) + more)

    hooks = hooks_at(tmp_path, {"idle": notes.program})
    hooks._pictures = SlowCount()
    tell = partial(hooks.picture, {"file": "a.png"})
    threads = [threading.Thread(target=tell) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    hooks.status(Status(updated=0.0, started=0.0, images={"queued": 0, "running": 0}))
    wait_for(notes.all, "the rest")
    assert [note["pictures"] for note in notes.all()] == [2]
    hooks.close(now)
