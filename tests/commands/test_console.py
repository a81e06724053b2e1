"""What `run` shows on a terminal and elsewhere."""

import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from picowatch.console import PlainConsole, progress_text
from picowatch.outbox.status import Status
from tests.commands.picowatch import clean_environment, command

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def status(**values: object) -> Status:
    common = {"queued": 112, "running": 1, "done": 2, "failed": 0, "cancelled": 0}
    return Status(updated=0.0, started=0.0, images=common, **values)  # type: ignore[arg-type]


def test_one_live_line_on_a_terminal(tmp_path: Path) -> None:
    """Step, speed and time left while it works; log lines stay above it."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nseed: 1\nsteps: 60\ncount: 9\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command("run", "--once"),
        cwd=tmp_path,
        env=clean_environment(TERM="xterm", COLUMNS="120", LINES="40"),
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = bytearray()
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other side is closed
            break
        if not block:
            break
        shown += block
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = ESCAPES.sub("", shown.decode())
    assert re.search(r"━+ a\.yaml: \d of 9, step \d+/60, [\d.]+ it/s", text)
    assert re.search(r"[\d.]+ it/s, \d+ s left", text)
    assert "a.yaml: saved, 9 images queued" in text


def test_progress_in_one_line() -> None:
    """What is known, in this order."""
    full = status(
        recipe="corgi.yaml", image=3, of=20, step=12, steps=24, steps_per_second=3.14,
        seconds_left=40.2,
    )  # fmt: skip
    assert progress_text(full) == ("corgi.yaml: 3 of 20, step 12/24, 3.1 it/s, 40 s left; 112 wait")
    assert full.line() == "corgi.yaml: 3 of 20, 40 s left; 112 images wait"
    assert status().line() == "nothing runs; 112 images wait"


def test_plain_progress_comes_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """Every ten seconds at most, and none for quick pictures."""
    console = PlainConsole()
    with caplog.at_level("INFO"):
        for second in range(25):
            console.show(
                Status(
                    updated=float(second), started=0.0, images={"queued": 0}, recipe="a.yaml",
                    image=1, of=2, step=second, steps=24,
                )
            )  # fmt: skip
    assert [record.message for record in caplog.records] == [
        "a.yaml: 1 of 2, step 10/24",
        "a.yaml: 1 of 2, step 20/24",
    ]
