"""The real command in a process of its own."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PROJECT = Path(__file__).parents[2]
DIGESTS = "tests.commands.digests"  # a program that needs no torch


# What its commands import takes half a second each time, so that is imported once, by a server
# that forks: each command is still a process of its own.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "__main__",
        "tests.commands.picowatch",
        "tests.house",
        "picowatch.cli",
        *(f"picowatch.commands.{name}" for name in ("check", "control", "make", "models")),
        *(f"picowatch.commands.{name}" for name in ("run", "show", "status")),
    ]
)
_SECONDS = 240.0


def picowatch(
    folder: Path, *arguments: str | Path, program: str = "picowatch", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a user's folder and wait for its end."""
    words, variables = command(*arguments, program=program), clean_environment(**environment)
    if not all(name.startswith("PICOWATCH_") for name in environment):  # Python may read it first
        return subprocess.run(
            words, cwd=folder, env=variables, capture_output=True, text=True, timeout=_SECONDS
        )
    with TemporaryDirectory(prefix="picowatch-command-") as own:
        outputs = [Path(own, name) for name in ("stdout", "stderr")]
        process = SERVER.Process(target=_run, args=(program, words, folder, variables, outputs))
        process.start()
        process.join(_SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, _SECONDS)
        code = process.exitcode
        process.close()
        return subprocess.CompletedProcess(words, code, *(path.read_text() for path in outputs))


def _run(
    program: str,
    words: list[str],
    folder: Path,
    variables: Mapping[str, str],
    outputs: Sequence[Path],
) -> None:
    """In a process of the server: what `python -m program` does in a new one."""
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = [program, *words[3:]]
    name = "picowatch.__main__" if program == "picowatch" else program
    sys.exit(import_module(name).main())


def start(
    folder: Path,
    *arguments: str | Path,
    program: str = "picowatch",
    stderr: int = subprocess.STDOUT,
    **environment: str,
) -> "subprocess.Popen[str]":
    """Start a command that runs on."""
    return subprocess.Popen(
        command(*arguments, program=program),
        cwd=folder,
        env=clean_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


@contextmanager
def started(folder: Path, *arguments: str, **how: Any) -> Iterator["subprocess.Popen[str]"]:
    """Start a command that is killed at the end of the block, if it still runs."""
    process = start(folder, *arguments, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def command(*arguments: str | Path, program: str = "picowatch") -> list[str]:
    return [sys.executable, "-m", program, *map(str, arguments)]


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PICOWATCH_")}
    return {**kept, "PYTHONPATH": str(PROJECT), **values}
