"""The real command in a process of its own."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
DIGESTS = "tests.commands.digests"  # a program that needs no torch


# A server that forks processes which have imported what they need: for tests of many daemons.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["__main__", "tests.house"])


def picowatch(
    folder: Path, *arguments: str | Path, program: str = "picowatch", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a user's folder and wait for its end."""
    return subprocess.run(
        command(*arguments, program=program),
        cwd=folder,
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        timeout=240,
    )


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
