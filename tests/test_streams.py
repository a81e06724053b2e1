"""Standard output and error that are closed, full, or read by nobody."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.picowatch import DIGESTS, clean_environment, command
from tests.house import PATIENCE, wait_for
from tests.observers.screen import in_pty, set_size


def in_a_shell(folder: Path, words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`words` as bash runs them, `$P` being picowatch; its output is buffered, as users have it."""
    usual = clean_environment(P=f"{sys.executable} -m {DIGESTS}")
    usual.pop("PYTHONUNBUFFERED", None)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words}"],
        cwd=folder,
        env={**usual, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("where", [">&-", ">&- 2>&-", ">&- 2>&- <&-"])
def test_a_recipe_is_rendered_without_standard_output(tmp_path: Path, where: str) -> None:
    """As some launchers start programs. The ledger must not get the number of standard output."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.txt").write_text("a cat\n")
    answer = in_a_shell(tmp_path, f"$P run --once {where}")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")
    assert len([*tmp_path.glob("outbox/a/*.png")]) == 1
    assert in_a_shell(tmp_path, f"$P show outbox/a/*.png {where}").returncode == 0


def test_a_closed_standard_input_is_empty(tmp_path: Path) -> None:
    """For `make -`, which reads it."""
    (tmp_path / "inbox").mkdir()
    answer = in_a_shell(tmp_path, "$P make - <&-")
    assert answer.returncode == 1
    assert answer.stderr == "picowatch: Standard input is empty. Write at least a prompt.\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [("models", 0), ("schema", 0), ("status", 1), ("--help", 0), ("run --once", 0)],
)
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path, words: str, code: int) -> None:
    """`| true`, `| head -1`: the command's own exit code, and no text of Python's."""
    (tmp_path / "inbox").mkdir()
    answer = in_a_shell(tmp_path, f"$P {words} | true")
    assert (answer.returncode, answer.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
@pytest.mark.parametrize("environment", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("words", ["models --json", "schema", "status --json"])
def test_output_to_a_full_disk_is_an_error(
    tmp_path: Path, words: str, environment: dict[str, str]
) -> None:
    """Whoever sends it to a file must know that the file is not whole."""
    (tmp_path / "models").mkdir()  # its absence would be said, too
    answer = in_a_shell(tmp_path, f"$P {words} >/dev/full", **environment)
    assert answer.returncode == 1
    assert answer.stderr == "picowatch: cannot write: No space left on device. Free some space.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is full")
def test_a_console_on_a_full_disk_is_no_failure_of_a_run(tmp_path: Path) -> None:
    """The pictures are made, and the log is in the outbox."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "inbox/a.txt").write_text("a cat\n")
    answer = in_a_shell(tmp_path, "$P run --once >/dev/full")
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_picowatch_survives_its_terminal(tmp_path: Path, term: str) -> None:
    """Whoever has it ignore the hangup, wants it to continue: `disown`, `trap '' HUP`."""
    (tmp_path / "inbox").mkdir()
    ours, theirs = os.openpty()
    set_size(theirs, 24, 80)
    process = subprocess.Popen(
        ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh", *command("run", program=DIGESTS)],
        cwd=tmp_path,
        env=clean_environment(TERM=term),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        shown = b""
        while b"watching" not in shown:
            shown += os.read(ours, 1000)
        os.close(ours)
        for name in ("a", "b"):
            (tmp_path / f"inbox/{name}.txt").write_text("a cat\n")
            wait_for(lambda: [*tmp_path.glob(f"outbox/{name}/*.png")] or process.poll() is not None)  # noqa: B023
        assert process.poll() is None, (tmp_path / "outbox/picowatch.log").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_picowatch_works_on_while_its_terminal_is_stopped(tmp_path: Path) -> None:
    """Ctrl-S, or a connection that stalls: saves are answered, and SIGTERM ends it."""
    (tmp_path / "inbox").mkdir()
    with in_pty(tmp_path, "run", program=DIGESTS) as screen:
        screen.wait_for("nothing is running")
        screen.type(CTRL_S)
        save_and_wait(tmp_path, "a")
        screen.type(CTRL_Q)
        screen.wait_for("1 image rendered")
        screen.type(CTRL_S)
        save_and_wait(tmp_path, "b")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(PATIENCE) == 0


def test_picowatch_works_on_while_a_terminal_with_plain_lines_is_stopped(tmp_path: Path) -> None:
    """A service manager's format, `--quiet` and simple terminals have no live view."""
    (tmp_path / "inbox").mkdir()
    with in_pty(tmp_path, "run", "--log-format", "json", program=DIGESTS) as screen:
        wait_for(lambda: "is watching" in screen.written)
        screen.type(CTRL_S)
        save_and_wait(tmp_path, "a")
        screen.type(CTRL_Q)
        wait_for(lambda: "a/0001-" in screen.written)
        screen.type(CTRL_S)
        save_and_wait(tmp_path, "b")
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(PATIENCE) == 0


def save_and_wait(folder: Path, name: str) -> None:
    """Until the picture is there."""
    (folder / f"inbox/{name}.txt").write_text("a cat\n")
    wait_for(lambda: [*folder.glob(f"outbox/{name}/*.png")])


CTRL_S, CTRL_Q = b"\x13", b"\x11"  # stop a terminal, and continue
