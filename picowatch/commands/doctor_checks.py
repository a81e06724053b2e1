"""The checks of `picowatch doctor` that need no engine: the computer and the folders."""

import os
import platform
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from picowatch import __version__
from picowatch.catalog import Catalog
from picowatch.engine.checks.torch_check import Finding
from picowatch.errors import ModelRefused
from picowatch.inbox.folder import InboxFolder
from picowatch.inbox.mounts import events_are_reliable, file_system_type
from picowatch.inbox.names import is_looked_into
from picowatch.outbox.presence import seems_to_run
from picowatch.settings import Settings

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


LITTLE_ROOM = 1e9
INOTIFY = Path("/proc/sys/fs/inotify")


def folder_findings(settings: Settings) -> Iterator[Finding]:
    """Only for an inbox that is there and an outbox that can be written."""
    yield _inbox(settings)
    yield _watch(settings)
    yield _outbox(settings)
    yield _models(settings)


def _inbox(settings: Settings) -> Finding:
    writable = os.access(settings.inbox, os.W_OK)
    text = _where(settings.inbox) + ("" if writable else ", read-only")
    if not writable and settings.when_done != "keep":
        return Finding(
            "inbox",
            text,
            f"when_done: {settings.when_done} must delete recipes: make the inbox writable, or "
            "set keep.",
        )
    return Finding("inbox", text)


def _watch(settings: Settings) -> Finding:
    """As the daemon does it."""
    inbox = settings.inbox.resolve()
    kind = file_system_type(inbox)
    reliable = events_are_reliable(kind)
    if settings.watch == "events" and not reliable:
        return Finding("watch", f"by events, which are unreliable on {kind}", "Set watch: auto.")
    if settings.watch == "polling" or not reliable:
        return Finding("watch", "by polling: the inbox is scanned every second")
    folder = InboxFolder(inbox, settings.watch, threading.Event())
    folder.arm()
    polling = folder.polling
    folder.close()
    text = f"by events, {_count_folders(inbox)} folders{_limits()}"
    if polling:
        return Finding(
            "watch",
            f"{text}: the system's limit of watches is reached, so picowatch polls",
            "sudo sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=1024",
        )
    return Finding("watch", text)


def _count_folders(inbox: Path) -> int:
    count = 0
    for _, folders, _ in os.walk(inbox):
        folders[:] = filter(is_looked_into, folders)
        count += 1
    return count


def _limits() -> str:
    if not sys.platform.startswith("linux"):
        return ""
    try:
        watches, instances = (
            (INOTIFY / name).read_text().strip()
            for name in ("max_user_watches", "max_user_instances")
        )
    except OSError:
        return ""
    return f" (inotify allows {watches} watches, {instances} instances)"


def _outbox(settings: Settings) -> Finding:
    place = settings.outbox
    while not place.exists():
        place = place.resolve().parent
    free = shutil.disk_usage(place).free
    text = f"{_where(settings.outbox)}, {free / 1e9:.1f} GB free"
    if seems_to_run(settings.outbox):
        text += ", a picowatch is using it"
    if free < LITTLE_ROOM:
        return Finding(
            "outbox", text, "Free some space: while the disk is full, picowatch renders nothing."
        )
    return Finding("outbox", text)


def _models(settings: Settings) -> Finding:
    catalog = Catalog(settings.models)
    inventory = catalog.scan()
    counts = {
        kind: len(inventory.of_kind(kind)) for kind in ("checkpoint", "vae", "lora", "embedding")
    }
    text = f"{_where(settings.models)}: " + ", ".join(f"{n} {kind}" for kind, n in counts.items())
    if inventory.refused:
        text += f"; {len(inventory.refused)} refused (see `picowatch models`)"
    if settings.checkpoint is not None:
        try:
            catalog.find("checkpoint", settings.checkpoint)
        except ModelRefused as error:
            return Finding("models", f"{text}. {error}", "Change the setting checkpoint.")
    return Finding("models", text)


def _where(folder: Path) -> str:
    """The folder and its file system."""
    kind = file_system_type(folder.resolve())
    there = "" if folder.exists() else ", not created yet"
    return f"{folder}{f' ({kind})' if kind else ''}{there}"
