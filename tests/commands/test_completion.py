"""What bash completes after the line of docs/install.md; argcomplete does the same for others."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.picowatch import PROJECT, clean_environment
from tests.documents.test_shown_commands import give_commands

# As bash calls the function after TAB (man bash, "Programmable Completion").
_IN_BASH = """
complete_line() {
    COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDS=($1) COMPREPLY=()
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _python_argcomplete picowatch "${COMP_WORDS[COMP_CWORD]}" ""
    echo "${COMPREPLY[@]}"
}
"""


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_flags_and_files(tmp_path: Path) -> None:
    """Also the words that a flag takes."""
    modules = {
        "picowatch": "picowatch",
        "register-python-argcomplete": "argcomplete.scripts.register_python_argcomplete",
    }
    calls = {name: f'exec "{sys.executable}" -m {module} "$@"' for name, module in modules.items()}
    path = f"{give_commands(tmp_path / 'bin', **calls)}{os.pathsep}{os.environ['PATH']}"
    (tmp_path / "corgi.yaml").touch()
    page = (PROJECT / "docs/install.md").read_text().split("## The Tab key\n")[1]
    (documented,) = (line for line in page.splitlines() if "# bash" in line)
    documented = documented.partition("# ")[0].replace("~/picowatch-env/bin/", "")
    lines = {
        "picowatch sta": "status ",
        "picowatch make --j": "--json ",
        "picowatch init --with ph": "photos ",
        "picowatch make cor": "corgi.yaml ",
    }
    asked = "".join(f"complete_line '{line}'\n" for line in lines)
    said = subprocess.run(
        ["bash", "--norc", "-c", f"{documented}\n{_IN_BASH}{asked}"],
        cwd=tmp_path,
        env=clean_environment(PATH=path, HOME=str(tmp_path), TERM="xterm"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.stdout.splitlines() == [*lines.values()]
