"""`--help`, mistyped words, and what light commands import."""

import json
import re
import shlex
import sys
from contextlib import chdir
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest

from picowatch.cli import main, parsers
from picowatch.commands import COMMANDS
from picowatch.commands.status import NO_STATUS
from tests.commands.picowatch import PROJECT, picowatch, picowatch_here, ran


def test_names_of_files_are_read_as_utf8(tmp_path: Path) -> None:
    """Elsewhere `größe.yaml` is not valid, and no list could have its name."""
    found = picowatch(tmp_path, "status", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    words = "This environment reads the names of files as ascii; picowatch, as UTF-8."
    told = f"picowatch: {words} Set PYTHONUTF8=1, or LC_ALL=C.UTF-8.\n"
    assert (found.returncode, found.stderr) == (2, told)


@pytest.mark.parametrize("words", [("run",), ("status",), ("make", "a.txt"), ("init", "b")])
def test_a_working_directory_that_is_gone_is_named(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """A restored backup leaves shells in the folder that it replaced."""
    (folder := tmp_path / "gone").mkdir()
    with chdir(folder):
        folder.rmdir()
        assert main(words) == 1
    said = "The working directory was deleted or replaced. Change to your folder again."
    assert capsys.readouterr().err == f"picowatch: {said}\n"


@pytest.mark.parametrize("columns", [60, 100])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples_and_fits_the_terminal(command: str, columns: int) -> None:
    """Each example is a line to copy, that its command understands; `help` is a word, too."""
    help_for = partial(picowatch_here, PROJECT, COLUMNS=f"{columns}")
    words = [command] if command else []
    shown = help_for(*words, "--help").stdout
    assert shown == help_for("help", *words).stdout
    assert max(map(len, shown.splitlines())) <= columns
    if not command:
        assert re.findall(r"^    ([a-z]+)  ", shown, re.MULTILINE) == [*COMMANDS]
        assert help_for().stdout == shown
        return
    assert COMMANDS[command].examples
    for line in COMMANDS[command].examples:
        assert line in shown
        words = shlex.split(re.split(r"[|>]|\)\"", line.partition("picowatch ")[2])[0])
        assert parsers()[0].parse_args(words).command == command


A_SETTING = """run: It takes no '--devcie'. device is a setting: write 'device: …' into \
picowatch.yaml, or set PICOWATCH_DEVICE."""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mkae"], "picowatch: There is no command 'mkae'. Did you mean 'make'?"),
        (["xyzzy"], "picowatch: There is no command 'xyzzy'.\n"),
        (["start"], "picowatch: There is no command 'start'. `picowatch run` watches the inbox.\n"),
        (["stop"], "'stop'. Ctrl-C ends `picowatch run`; `picowatch pause` lets it wait.\n"),
        (["help", "mkae"], "There is no command 'mkae'. Did you mean 'make'?"),
        (["run", "--devcie", "cpu"], A_SETTING),
        (["run", "--once", "--zzz"], "run: It takes no '--zzz'.\n"),
        (["doctor", "--fix"], "doctor: It takes no '--fix'.\n"),
        (["delete", "--yes", "a.png"], "delete: It takes no '--yes'.\n"),
        (["make", "--jsno", "a.txt"], "make: It takes no '--jsno'. Did you mean '--json'?"),
        (["status", "--inbx=x"], "status: It takes no '--inbx=x'. Did you mean '--inbox'?"),
        (["--outbox", "x", "status"], "picowatch: flags come after a command, as in `picowatch "),
        (["make"], "picowatch make: It needs FILE: recipe files, or folders of the inbox; - is "),
        (["cancel", "--all"], "It needs RECIPE: recipes, folders or 'globs*'; . means all."),
        (["cancel", ""], "it is empty"),  # a script's unset variable; `cancel .` means all
    ],
)
def test_a_mistyped_word_is_answered_with_the_one_meant(words: list[str], said: str) -> None:
    """With the exit code of wrong flags, and how to get help."""
    answer = picowatch_here(PROJECT, *words)
    assert answer.returncode == 2
    assert answer.stderr.startswith("picowatch")
    assert said in answer.stderr
    assert "--help` explains it" in answer.stderr


# Exits with what a command imports needlessly. Help takes 0.03 s of a processor without it, status
# and its like less than 0.15 s; torch alone takes seconds, and numpy 13 MB.
LIGHT = """
import sys
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from picowatch.cli import main

def check(what, without):
    found = [name for name in without.split() if name in sys.modules]
    if found:
        sys.exit(f"{what} imports {found}")

check("--help", "pydantic yaml PIL numpy torch")
words = "status|status --json|pause|resume|cancel a.yaml|retry|delete a/1.png"
for words in words.split("|"):
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        assert main(words.split()) == 1, words
    check(words, "pydantic picowatch.recipe sqlite3 rich PIL numpy torch")
import picowatch.commands.run
check("run", "numpy torch diffusers transformers")
import picowatch.commands.check, picowatch.commands.make
check("check or make", "torch diffusers transformers")
"""


def test_a_command_imports_only_what_it_needs(tmp_path: Path) -> None:
    """Those that need only the folders hardly anything, whatever else is set."""
    (tmp_path / "picowatch.yaml").write_text(f"outbox: {tmp_path}/pictures\nformat: webp\n")
    (tmp_path / "pictures/.picowatch/commands").mkdir(parents=True)
    (tmp_path / "pictures/.picowatch/status.json").write_text(json.dumps(asdict(NO_STATUS)))
    found = ran(tmp_path, sys.executable, "-c", LIGHT, PICOWATCH_DEVICE="cuda")
    assert (found.returncode, found.stderr) == (0, "")
