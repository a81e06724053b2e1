"""What bash, zsh and fish complete with the script that `picowatch completion` prints."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands.picowatch import clean_environment, picowatch
from tests.house import PATIENCE

# As bash calls the function after TAB (man bash, "Programmable Completion").
_BASH = """
eval "$(picowatch completion bash)"
complete_line() {
    COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDS=($1) COMPREPLY=()
    [[ $1 == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _python_argcomplete picowatch "${COMP_WORDS[COMP_CWORD]}" ""
    printf '%s\\n' "${COMPREPLY[@]}"
}
"""


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder of a user, and the command on the path."""
    for file in ("inbox/pets/corgi.yaml", "inbox/_defaults.yaml", "inbox/.schema/recipe.json"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("prompt: a\n")
    checkpoints = tmp_path / "models/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "dreamshaper_8.safetensors").touch()
    command = tmp_path / "bin/picowatch"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m picowatch "$@"\n')
    command.chmod(0o755)
    return tmp_path


def environment(desk: Path) -> dict[str, str]:
    path = f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return clean_environment(PATH=path, HOME=str(desk), TERM="xterm", PS1="ready> ")


def said_by(desk: Path, *command: str) -> list[str]:
    run = subprocess.run(
        command, cwd=desk, env=environment(desk), capture_output=True, text=True, timeout=120
    )
    return [line.split("\t")[0].strip() for line in run.stdout.splitlines()]


def test_bash_completes_commands_flags_and_names(desk: Path) -> None:
    """Recipes as `retry` takes them, folders for `cancel`, checkpoints, files that are recipes."""
    lines = {
        "picowatch sta": ["status"],
        "picowatch make --j": ["--json"],
        "picowatch retry ": ["pets/corgi.yaml"],
        "picowatch cancel ": ["pets", "pets/corgi.yaml"],
        "picowatch bench --checkpoint ": ["demo", "dreamshaper_8"],
        "picowatch make inbox/pets/c": ["inbox/pets/corgi.yaml"],
    }
    script = _BASH + "".join(f"complete_line '{line}'; echo .\n" for line in lines)
    found = said_by(desk, shell("bash"), "--norc", "-c", script)
    answers = " ".join(found).split(" .")
    assert [sorted(answer.split()) for answer in answers[:-1]] == [*lines.values()]


def test_fish_completes_commands_with_what_they_do(desk: Path) -> None:
    """By its own question for what it would show."""
    script = "picowatch completion fish | source; complete -C 'picowatch sta'"
    assert said_by(desk, shell("fish"), "--no-config", "-c", script) == ["status"]


def test_zsh_completes_at_the_keyboard(desk: Path) -> None:
    """TAB after the beginning of a command."""
    zsh = shell("zsh")
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(desk)
        os.execvpe(zsh, ["zsh", "-f", "-i"], environment(desk))
    try:
        os.write(terminal, b"autoload -U compinit && compinit -u -d .zcompdump\n")
        os.write(terminal, b'eval "$(picowatch completion zsh)"; echo loa""ded\n')
        read_until(terminal, b"loaded")
        os.write(terminal, b"picowatch doc\t")
        read_until(terminal, b"picowatch doctor")
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)


def read_until(terminal: int, wanted: bytes) -> None:
    """Fail if the terminal does not show it in time."""
    shown, end = b"", time.monotonic() + PATIENCE
    while wanted not in shown.replace(b"\x08", b""):
        assert time.monotonic() < end, shown
        if select.select([terminal], [], [], 0.2)[0]:
            shown += os.read(terminal, 65536)


def test_completion_takes_a_shell_by_name(tmp_path: Path) -> None:
    """And no other one."""
    assert picowatch(tmp_path, "completion", "tcsh").returncode == 2
