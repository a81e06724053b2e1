"""`--help`, mistyped words, and colours."""

import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from picowatch.cli import main, parsers
from picowatch.commands import COMMANDS
from picowatch.observers.console import LEVEL_STYLES, STYLES
from tests.commands.picowatch import clean_environment, command, picowatch


def test_help_shows_every_command_once_in_a_group(tmp_path: Path) -> None:
    """Bare `picowatch` shows the same; lines fit, also in a narrow terminal."""
    helped = picowatch(tmp_path, "--help", COLUMNS="60")
    assert helped.returncode == 0
    assert picowatch(tmp_path, COLUMNS="60").stdout == helped.stdout
    shown = re.findall(r"^  ([a-z]+)  ", helped.stdout, re.MULTILINE)
    assert sorted(shown) == sorted(COMMANDS)
    assert max(map(len, helped.stdout.splitlines())) <= 60
    assert "\x1b" not in helped.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_s_help_has_examples_that_it_understands(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line is one to copy."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert EXAMPLES[command]
    for line, _ in EXAMPLES[command]:
        assert line in shown
        words = shlex.split(re.split(r"[|>]|\)\"", line.partition("picowatch ")[2])[0])
        assert parsers()[0].parse_args(words).command == command


@pytest.mark.parametrize(
    ("words", "same"), [(["help"], ["--help"]), (["help", "make"], ["make", "--help"])]
)
def test_help_is_a_word_too(
    words: list[str], same: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As git and cargo have it."""
    shown = []
    for given in (words, same):
        with pytest.raises(SystemExit) as ended:
            main(given)
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != ""


def test_headings_are_bold_on_a_terminal_unless_colours_are_unwanted(tmp_path: Path) -> None:
    """NO_COLOR and TERM=dumb; in bold the theme's own colour stays."""
    assert "\x1b[1mExamples\x1b[0m" in on_a_terminal(tmp_path, TERM="xterm")
    assert "\x1b" not in on_a_terminal(tmp_path, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(tmp_path, TERM="dumb")


def on_a_terminal(folder: Path, **environment: str) -> str:
    """What `--help` writes to a terminal."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "wb"):
        subprocess.run(
            command("--help"), cwd=folder, env=clean_environment(**environment), stdout=theirs
        )
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        shown = b""
        while part := terminal_part(terminal):
            shown += part
    return shown.decode()


def terminal_part(terminal: IO[bytes]) -> bytes:
    try:
        return terminal.read(65536)
    except OSError:  # Linux' answer once nobody else has it
        return b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mkae"], "picowatch: There is no command 'mkae'. Did you mean 'make'?"),
        (["xyzzy"], "picowatch: There is no command 'xyzzy'.\n"),
        (
            ["rm", "a.png"],
            "There is no command 'rm'. `picowatch delete` deletes pictures, `picowatch cancel` "
            "cancels queued images.",
        ),
        (
            ["stop"],
            "There is no command 'stop'. Press Ctrl-C where `picowatch run` runs, or stop its "
            "service: systemctl stop picowatch.",
        ),
        (["list"], "There is no command 'list'. Did you mean 'status'?"),
        (["start"], "There is no command 'start'. Did you mean 'run'?"),
        (
            ["make", "--jsno", "a.txt"],
            "make: It takes no '--jsno'. Did you mean '--json'?",
        ),
        (
            ["status", "--inbx=x"],
            "status: It takes no '--inbx=x'. Did you mean '--inbox'?",
        ),
        (["--outbox", "x", "status"], "--outbox comes after a command, as in `picowatch status"),
        (["--force"], "--force comes after a command, as in `picowatch convert --force`."),
        (["-v"], "There is no '-v'. Did you mean '--help' or '--version'?"),
        (["help", "mkae"], "There is no command 'mkae'. Did you mean 'make'?"),
        (["make"], "picowatch make: the following arguments are required: FILE."),
    ],
)
def test_a_mistyped_word_is_answered_with_the_one_that_was_meant(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the exit code of wrong flags, and how to get help."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("picowatch")
    assert said in shown
    assert "--help` explains it" in shown


def test_help_takes_little_time(tmp_path: Path) -> None:
    """0.15 s of a processor: no settings, no command and no pydantic is imported."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    picowatch(tmp_path, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 0.3, "0.07 s were measured; a loaded machine takes longer"
    listed = 'import sys, picowatch.cli as c; c.parsers(); print("pydantic" in sys.modules)'
    assert (
        subprocess.run(
            [sys.executable, "-c", listed], env=clean_environment(), capture_output=True, text=True
        ).stdout
        == "False\n"
    )


def test_colours_are_those_that_every_theme_can_show() -> None:
    """Bright colours are greys in Solarized's palette, one of them its background; yellow cannot
    be read on white. https://github.com/altercation/solarized#the-values
    """
    for style in (*STYLES.values(), *LEVEL_STYLES.values()):
        assert style in ("", "green", "red", "magenta", "dim")
