"""Looks at strangers' files so that nothing hangs, and nothing is raised for what is odd."""

import os
import stat
from io import BufferedReader
from pathlib import Path

from picowatch.errors import ModelRefused


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one; False if it cannot be examined.

    Unlike pathlib's, for a folder without permission or a link with an overlong target, too.
    """
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one; False if it cannot be examined."""
    return os.path.isfile(path)  # noqa: PTH113


def open_regular(path: Path) -> BufferedReader:
    """The file for reading; ModelRefused if it is a folder, a FIFO or a device."""
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  (pathlib has no opener)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ModelRefused("is not a regular file.")
    return file


def _without_waiting(path: str, flags: int) -> int:
    """Opens a FIFO without its writer: it must not stop the daemon."""
    return os.open(path, flags | os.O_NONBLOCK)


def check_is_regular(path: Path, name: str) -> None:
    """Refuse a FIFO or a link to a device, which have no end."""
    if not is_file(path):
        raise ModelRefused(f"cannot be used: {name} is not a regular file. Remove it.")
