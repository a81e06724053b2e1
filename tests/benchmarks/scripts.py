"""The scripts in benchmarks/, run as people run them."""

import subprocess
import sys
from pathlib import Path

from tests.commands.picowatch import PROJECT, clean_environment

SECONDS = 900  # on a busy machine


def benchmark(name: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """Run a script with one thread for each process."""
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)],
        cwd=PROJECT,
        env=clean_environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
