"""The real command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parents[2]
DIGESTS = "tests.commands.digests"  # a program that needs no torch


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
    folder: Path, *arguments: str | Path, program: str = "picowatch"
) -> "subprocess.Popen[str]":
    """Start a command that runs on."""
    return subprocess.Popen(
        command(*arguments, program=program),
        cwd=folder,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def command(*arguments: str | Path, program: str = "picowatch") -> list[str]:
    return [sys.executable, "-m", program, *map(str, arguments)]


def clean_environment(**values: str) -> dict[str, str]:
    """The environment without settings of the person who runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PICOWATCH_")}
    return {**kept, "PYTHONPATH": str(PROJECT), **values}
