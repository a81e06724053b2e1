"""The folders: are they there, may they be used, on what, how are saves noticed, is there room."""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from picowatch.catalog import Catalog
from picowatch.engine.finding import Finding
from picowatch.errors import ModelRefused
from picowatch.inbox.folder import InboxFolder
from picowatch.inbox.mounts import events_are_reliable, file_system_type
from picowatch.inbox.names import is_looked_into
from picowatch.outbox.presence import seems_to_run
from picowatch.settings import Settings

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
            f"when_done: {settings.when_done} has to delete recipes: allow it, or set keep.",
        )
    return Finding("inbox", text)


def _watch(settings: Settings) -> Finding:
    """As the daemon does it."""
    inbox = settings.inbox.resolve()
    kind = file_system_type(inbox)
    reliable = events_are_reliable(kind)
    if settings.watch == "events" and not reliable:
        return Finding(
            "watch", f"by events, which {kind} does not tell reliably", "Set watch: auto."
        )
    if settings.watch == "polling" or not reliable:
        return Finding("watch", "by polling: the inbox is compared every second")
    folder = InboxFolder(inbox, settings.watch, threading.Event())
    folder.arm()
    polling = folder.polling
    folder.close()
    text = f"by events, {_count_folders(inbox)} folders{_limits()}"
    if polling:
        return Finding(
            "watch",
            f"{text}: the system allows no more watches, so picowatch polls",
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
        text += ", a picowatch works with it"
    if free < LITTLE_ROOM:
        return Finding("outbox", text, "Make room: picowatch waits while the disk is full.")
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
    there = "" if folder.exists() else ", not made yet"
    return f"{folder}{f' ({kind})' if kind else ''}{there}"
