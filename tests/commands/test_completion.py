"""What bash completes after the line of docs/install.md; argcomplete does the same for others."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.commands.picowatch import PROJECT, clean_environment, give_commands, ran
from tests.house import wait_for
from tests.observers.screen import in_terminal

# As bash calls the function after TAB (man bash, "Programmable Completion").
_IN_BASH = """
complete_line() {
    COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDS=($1) COMPREPLY=()
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _python_argcomplete picowatch "${COMP_WORDS[COMP_CWORD]}" ""
    echo "${COMPREPLY[@]}"
}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A user's folder with the programs of the environment on the path."""
    modules = {
        "picowatch": "picowatch",
        "register-python-argcomplete": "argcomplete.scripts.register_python_argcomplete",
    }
    calls = {name: f'exec "{sys.executable}" -m {module} "$@"' for name, module in modules.items()}
    give_commands(tmp_path / "bin", **calls)
    (tmp_path / "corgi.yaml").touch()
    return tmp_path


def variables(desk: Path) -> dict[str, str]:
    path = f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(desk), "TERM": "xterm"}


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def documented(name: str) -> str:
    page = (PROJECT / "docs/install.md").read_text().split("## The Tab key\n")[1]
    lines = [line.partition("# ") for line in page.splitlines() if f"# {name}" in line]
    assert lines
    return "\n".join(line for line, *_ in lines).replace("~/picowatch-env/bin/", "")


def said_by(desk: Path, *words: str) -> list[str]:
    return ran(desk, *words, **variables(desk)).stdout.splitlines()


def test_bash_completes_commands_flags_and_files(desk: Path) -> None:
    """Also the words that a flag takes."""
    lines = {
        "picowatch sta": "status ",
        "picowatch make --j": "--json ",
        "picowatch init --with ph": "photos ",
        "picowatch make cor": "corgi.yaml ",
    }
    asked = "".join(f"complete_line '{line}'\n" for line in lines)
    script = f"{documented('bash')}\n{_IN_BASH}{asked}"
    assert said_by(desk, shell("bash"), "--norc", "-c", script) == [*lines.values()]


def test_fish_completes_commands_with_what_they_do(desk: Path) -> None:
    """By its own question for what it would show."""
    script = f"{documented('fish')}\ncomplete -C 'picowatch pau'"
    (line,) = said_by(desk, shell("fish"), "--no-config", "-c", script)
    assert line.startswith("pause\tRender nothing until")


def test_zsh_completes_at_the_keyboard(desk: Path) -> None:
    """TAB after the beginning of a command."""
    zsh = shell("zsh")
    (desk / "rc").write_text(documented("zsh").replace("compinit\n", "compinit -u\n"))
    environment = clean_environment(**variables(desk))
    with in_terminal(zsh, "-f", "-i", cwd=desk, environment=environment) as terminal:
        terminal.type('. ./rc; echo loa""ded\n')
        terminal.wait_until_written("loaded")
        terminal.type("picowatch doc\t")
        wait_for(lambda: "picowatch doctor" in terminal.written.replace("\x08", ""))
        terminal.type("\x15exit\n")
