"""`--help`, mistyped words, and what light commands import."""

import re
import shlex
import subprocess
import sys

import pytest

from picowatch.cli import main, parsers
from picowatch.commands import COMMANDS
from tests.commands.picowatch import clean_environment


def printed_by(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The help that these words print."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 100])
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples_and_fits_the_terminal(
    command: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each example is a line to copy, that its command understands; `help` is a word, too."""
    monkeypatch.setenv("COLUMNS", str(columns))
    words = [command] if command else []
    shown = printed_by(capsys, *words, "--help")
    assert shown == printed_by(capsys, "help", *words)
    assert max(map(len, shown.splitlines())) <= columns
    if not command:
        assert re.findall(r"^    ([a-z]+)  ", shown, re.MULTILINE) == [*COMMANDS]
        assert main([]) == 0
        assert capsys.readouterr().out == shown
        return
    assert COMMANDS[command].examples
    for line in COMMANDS[command].examples:
        assert line in shown
        words = shlex.split(re.split(r"[|>]|\)\"", line.partition("picowatch ")[2])[0])
        assert parsers()[0].parse_args(words).command == command


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mkae"], "picowatch: There is no command 'mkae'. Did you mean 'make'?"),
        (["xyzzy"], "picowatch: There is no command 'xyzzy'.\n"),
        (["help", "mkae"], "There is no command 'mkae'. Did you mean 'make'?"),
        (["make", "--jsno", "a.txt"], "make: It takes no '--jsno'. Did you mean '--json'?"),
        (["status", "--inbx=x"], "status: It takes no '--inbx=x'. Did you mean '--inbox'?"),
        (["--outbox", "x", "status"], "picowatch: flags come after a command, as in `picowatch "),
        (["make"], "picowatch make: the following arguments are required: FILE."),
        (["cancel", ""], "it is empty"),  # a script's unset variable; `cancel .` means all
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


@pytest.mark.parametrize(
    ("module", "without"),
    [
        ("picowatch.cli", ["pydantic", "yaml", "PIL", "numpy", "torch"]),
        ("picowatch.commands.status", ["picowatch.recipe", "PIL", "numpy", "torch"]),
        ("picowatch.commands.control", ["picowatch.recipe", "PIL", "numpy", "torch"]),
        ("picowatch.commands.check", ["torch", "diffusers", "transformers"]),
        ("picowatch.commands.make", ["torch", "diffusers", "transformers"]),
    ],
)
def test_a_command_imports_only_what_it_needs(module: str, without: list[str]) -> None:
    """Help takes 0.03 s of a processor and `status` 0.16 s so; torch alone takes seconds."""
    code = f"import sys, {module}; print(*(name for name in {without} if name in sys.modules))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True
    )
    assert (found.stdout, found.stderr) == ("\n", "")
