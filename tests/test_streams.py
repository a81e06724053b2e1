"""Standard output and error that are closed, full, or read by nobody."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.picowatch import DIGESTS, clean_environment, command
from tests.house import PATIENCE, wait_for
from tests.observers.screen import in_pty, set_size

CTRL_S, CTRL_Q = "\x13", "\x11"  # stop a terminal, and continue
FULL = "picowatch: cannot write: No space left on device. Free some space.\n"
pytestmark = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="Linux has a device that is full"
)


def in_a_shell(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    """Run `words` in bash, where `$P` is picowatch; its output is buffered, as it is for users."""
    usual = clean_environment(P=f"{sys.executable} -m {DIGESTS}")
    usual.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"],
        cwd=folder,
        env=usual,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder with one recipe, and a models folder, whose absence would be reported."""
    for name in ("inbox", "models"):
        (tmp_path / name).mkdir()
    save(tmp_path, "a")
    return tmp_path


def save(folder: Path, name: str) -> None:
    (folder / f"inbox/{name}.txt").write_text("a cat\n")


def is_rendered(folder: Path, name: str) -> bool:
    return bool([*folder.glob(f"outbox/{name}/*.png")])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        # As some launchers start programs: the ledger must not get standard output's number.
        ("$P run --once >&-", 0, ""),
        ("$P run --once >&- 2>&- <&-", 0, ""),
        ("$P make - <&-", 1, "picowatch: Standard input is empty. Write at least a prompt.\n"),
        # A reader that has seen enough is no error.
        ("$P models | true", 0, ""),
        ("$P status | true", 1, ""),
        ("$P run --once | true", 0, ""),
        ("PYTHONUNBUFFERED=1 $P init home | true", 0, ""),
        # Whoever sends it to a file must know that the file is not whole; a log is elsewhere, too.
        ("$P models --json >/dev/full", 1, FULL),
        ("PYTHONUNBUFFERED=1 $P status --json >/dev/full", 1, FULL),
        ("$P run --once >/dev/full", 0, ""),
    ],
)
def test_what_becomes_of_output_is_told_by_code_and_words(
    folder: Path, words: str, code: int, said: str
) -> None:
    """The picture of a run is rendered."""
    answer = in_a_shell(folder, words)
    assert (answer.returncode, answer.stdout, answer.stderr) == (code, "", said)
    assert is_rendered(folder, "a") == ("run" in words)


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_picowatch_survives_its_terminal(folder: Path, term: str) -> None:
    """If it was started to ignore the hangup (`disown`, `trap '' HUP`), it continues."""
    ours, theirs = os.openpty()
    set_size(theirs, 24, 80)
    words = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *command("run", program=DIGESTS)]
    environment = clean_environment(TERM=term)
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        shown = b""
        while b"watching" not in shown:
            shown += os.read(ours, 1000)
        os.close(ours)
        for name in ("a", "b"):
            save(folder, name)
            wait_for(lambda: is_rendered(folder, name) or process.poll() is not None)  # noqa: B023
        assert process.poll() is None, (folder / "outbox/picowatch.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("flags", "shown"), [([], "1 image rendered"), (["--log-format", "json"], "a/0001-")]
)
def test_picowatch_works_on_while_its_terminal_is_stopped(
    folder: Path, flags: list[str], shown: str
) -> None:
    """By Ctrl-S or a stalled connection, with a live view or without."""
    (folder / "inbox/a.txt").unlink()
    with in_pty(folder, "run", *flags, program=DIGESTS) as screen:
        wait_for(lambda: "is watching" in screen.written)
        screen.type(CTRL_S)
        save(folder, "a")
        wait_for(lambda: is_rendered(folder, "a"))
        screen.type(CTRL_Q)
        wait_for(lambda: shown in screen.written)
        screen.type(CTRL_S)
        save(folder, "b")
        wait_for(lambda: is_rendered(folder, "b"))
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(PATIENCE) == 0


def test_picowatch_works_on_while_nobody_reads_its_pipe(folder: Path) -> None:
    """A pipe holds 64 kB; `| less` that shows its first page reads no more, and a log is long."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        command("run", program=DIGESTS), cwd=folder, env=clean_environment(), stdout=write
    )
    os.close(write)
    try:
        for number in range(60):
            save(folder, f"a-long-name-that-fills-the-pipe-quickly-{number}")
        wait_for(lambda: len([*folder.glob("outbox/a-*/*.png")]) == 60)
        assert len(os.read(read, 4096)) > 3900  # it had been full
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(read)
