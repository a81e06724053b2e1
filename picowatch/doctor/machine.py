"""The computer: Python, memory, graphics driver."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from picowatch import __version__
from picowatch.engine.finding import Finding

OLDEST_PYTHON = (3, 11)
LITTLE_MEMORY = 1.5e9
NVIDIA = Path("/proc/driver/nvidia/version")
MEMORY = Path("/proc/meminfo")
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def machine_findings() -> Iterator[Finding]:
    """In the order of a bug report."""
    yield Finding("picowatch", f"{__version__}, in {Path(__file__).parents[1]}")
    yield _python()
    yield Finding("system", f"{platform.platform()}, {os.cpu_count()} cores")
    if memory := _memory():
        yield memory
    if driver := _driver():
        yield Finding("driver", f"NVIDIA {driver}")


def _python() -> Finding:
    text = f"{platform.python_version()}, {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Finding("Python", text, "Install Python 3.11 or newer.")
    return Finding("Python", text)


def _memory() -> Finding | None:
    """None where the system does not tell."""
    try:
        lines = MEMORY.read_text().splitlines()
        amounts = {name: int(rest.split()[0]) * 1024 for name, _, rest in
                   (line.partition(":") for line in lines)}  # fmt: skip
        total, free = amounts["MemTotal"], amounts["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        return None
    text = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB are free"
    with suppress(OSError, ValueError):  # "max" where there is no limit
        limit = int(CONTAINER_LIMIT.read_text())
        text += f", this container may use {limit / 1e9:.1f} GB"
        free = min(free, limit)
    if free < LITTLE_MEMORY:
        return Finding("memory", text, "Close other programs, or give the container more.")
    return Finding("memory", text)


def _driver() -> str:
    """The NVIDIA driver's version, "" if there is none."""
    with suppress(OSError, StopIteration):
        words = NVIDIA.read_text().splitlines()[0].split()
        return next(word for word in words if word[0].isdigit() and "." in word)
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
        return said.stdout.split("\n")[0].strip()
    return ""
