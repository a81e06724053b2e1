"""Standard output and error that are closed, full, or read by nobody."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands.picowatch import DIGESTS, DIGESTS_HERE, ran, started
from tests.house import PATIENCE, wait_for
from tests.observers.screen import set_size

CTRL_S, CTRL_Q = b"\x13", b"\x11"  # stop a terminal, and continue
FULL = "picowatch: cannot write: No space left on device. Free some space.\n"
pytestmark = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="Linux has a device that is full"
)


def in_a_shell(folder: Path, words: str) -> subprocess.CompletedProcess[str]:
    """Run `words` in bash with buffered output; `$P` is picowatch, `$E` has an engine process."""
    programs = {"P": DIGESTS_HERE, "E": DIGESTS}
    calls = {name: f"{sys.executable} -m {program}" for name, program in programs.items()}
    bash = ("env", "-u", "PYTHONUNBUFFERED", "bash", "-c")
    return ran(folder, *bash, f"set -o pipefail; {words}", **calls)


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
        ("$E run --once >&- 2>&- <&-", 0, ""),
        ("$P make - <&-", 1, "picowatch: Standard input is empty. Write at least a prompt.\n"),
        # A reader that has seen enough is no error.
        ("$P run --once | true; $P models | true", 0, ""),
        ("$P status | true", 1, ""),
        # Any width and encoding.
        ("COLUMNS=1 PYTHONIOENCODING=latin-1 $P status --help >/dev/null", 0, ""),
        # A prompt in the place of a file.
        (f"$P make --json {'corgi' * 100} | grep -q 'File name too long'", 1, ""),
        # Whoever sends it to a file must know that the file is not whole; a log is elsewhere, too.
        ("PYTHONUNBUFFERED=1 $P models --json >/dev/full", 1, FULL),
        ("$P run --once >/dev/full; $P status --json >/dev/full", 1, FULL),
    ],
)
def test_what_becomes_of_output_is_told_by_code_and_words(
    folder: Path, words: str, code: int, said: str
) -> None:
    answer = in_a_shell(folder, words)
    assert (answer.returncode, answer.stdout, answer.stderr) == (code, "", said)
    assert is_rendered(folder, "a") == ("run" in words)


@pytest.mark.parametrize(
    ("term", "flags", "shown"),
    [("xterm", [], "1 image rendered"), ("dumb", ["--log-format", "json"], "a/0001-")],
)
def test_picowatch_works_on_while_its_terminal_is_stopped_and_after_it_is_closed(
    folder: Path, term: str, flags: list[str], shown: str
) -> None:
    """By Ctrl-S or a stalled connection; and if it was started to ignore the hangup (`disown`)."""
    (folder / "inbox/a.txt").unlink()
    ours, theirs = os.openpty()
    set_size(theirs, 24, 80)
    written = b""

    def read_until(text: str) -> None:
        nonlocal written
        while text.encode() not in written:
            written += os.read(ours, 1000)

    def renders(name: str) -> bool:
        save(folder, name)
        wait_for(lambda: is_rendered(folder, name) or process.poll() is not None)
        return process.poll() is None

    before = ("sh", "-c", "trap '' HUP; exec \"$@\"", "sh")
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), theirs)
    how: dict[str, Any] = {"before": before, "program": DIGESTS_HERE, "TERM": term, **streams}
    with started(folder, "run", *flags, **how) as process:
        os.close(theirs)
        read_until("watching")
        os.write(ours, CTRL_S)
        assert renders("a")
        os.write(ours, CTRL_Q)
        read_until(shown)
        os.close(ours)
        assert renders("b"), (folder / "outbox/picowatch.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_picowatch_works_on_while_nobody_reads_its_pipe(folder: Path) -> None:
    """A pipe holds 64 kB; `| less` that shows its first page reads no more, and a log is long."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    with started(folder, "run", program=DIGESTS_HERE, stdout=write) as process:
        os.close(write)
        name = "a-long-name-that-fills-the-pipe-quickly" * 3
        for number in range(20):
            save(folder, f"{name}-{number}")
        wait_for(lambda: len([*folder.glob("outbox/a-*/*.png")]) == 20)
        assert len(os.read(read, 4096)) > 3600  # it had been full
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    os.close(read)
