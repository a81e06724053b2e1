"""Which files some process still holds open for writing."""

import os
import sys
from collections.abc import Collection
from pathlib import Path

FileId = tuple[int, int]  # device, inode


def held_open_for_writing(files: Collection[FileId]) -> set[FileId]:
    """Those of `files` that another process has open for writing, as far as can be seen.

    Linux tells by /proc/PID/fd, for processes of the same user (of all, for root). Elsewhere,
    and for writers outside a container, nothing is seen and only the quiet time protects.
    """
    if not files or not sys.platform.startswith("linux"):
        return set()
    wanted = set(files)
    held: set[FileId] = set()
    for process in _names("/proc"):
        if process.isdigit() and int(process) != os.getpid():
            held |= _held_by(f"/proc/{process}", wanted)
    return held


def _held_by(process: str, wanted: set[FileId]) -> set[FileId]:
    """Plain strings: on a desktop this looks at thousands of descriptors a round."""
    held = set()
    for descriptor in _names(f"{process}/fd"):
        try:
            status = os.stat(f"{process}/fd/{descriptor}")  # noqa: PTH116
            file = (status.st_dev, status.st_ino)
            if file in wanted and _writes(Path(f"{process}/fdinfo/{descriptor}")):
                held.add(file)
        except OSError:
            continue  # closed meanwhile, or not ours to see
    return held


def _writes(fdinfo: Path) -> bool:
    """fdinfo's `flags:` are the octal open(2) flags."""
    for line in fdinfo.read_text().splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY
    return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208
    except OSError:
        return []
