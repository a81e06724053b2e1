"""The real command, in a process of its own or in this one."""

import io
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

from picowatch.cli import main
from tests.pace import AT_TESTS_PACE

PROJECT = Path(__file__).parents[2]
# Programs that need no torch: with an engine process, and without.
DIGESTS, DIGESTS_HERE = "tests.commands.digests", "tests.commands.digests_here"


# A server that forks processes which have imported what they need: for tests of many daemons.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["__main__", "tests.crash.dying_daemon"])


def picowatch(
    folder: Path, *arguments: str | Path, program: str = "picowatch", **environment: str
) -> subprocess.CompletedProcess[str]:
    return ran(folder, *command(*arguments, program=program), **environment)


def ran(
    folder: Path, *words: str | Path, typed: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        env=clean_environment(**environment),
        input=typed,
        capture_output=True,
        text=True,
        timeout=240,
    )


def picowatch_here(
    folder: Path, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command within this process: no interpreter has to start and import for it."""
    out, err = io.StringIO(), io.StringIO()
    environ = patch.dict(os.environ, clean_environment(**environment), clear=True)
    with chdir(folder), environ, redirect_stdout(out), redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse's
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@contextmanager
def started(
    folder: Path,
    *arguments: str | Path,
    before: Sequence[str] = (),
    program: str = "picowatch",
    stdin: Any = None,
    stdout: Any = subprocess.PIPE,
    stderr: Any = subprocess.STDOUT,
    **environment: str,
) -> Iterator["subprocess.Popen[str]"]:
    """Start a command, with `before` in front of it, and kill it at the end if it still runs."""
    with subprocess.Popen(
        [*before, *command(*arguments, program=program)],
        cwd=folder,
        env=clean_environment(**environment),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def command(*arguments: str | Path, program: str = "picowatch") -> list[str]:
    return [sys.executable, "-m", program, *map(str, arguments)]


def clean_environment(**values: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PICOWATCH_")}
    return {**kept, "PYTHONPATH": str(PROJECT), AT_TESTS_PACE: "1", **values}


def give_commands(programs: Path, **calls: str) -> Path:
    """Make a folder of programs, each of which is a line of a shell."""
    programs.mkdir(parents=True, exist_ok=True)
    for name, call in calls.items():
        (programs / name).write_text(f"#!/bin/sh\n{call}\n")
        (programs / name).chmod(0o755)
    return programs
