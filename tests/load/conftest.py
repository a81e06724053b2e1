"""Fixtures for the tests under load."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house import House

IN_MEMORY = Path("/dev/shm")
ROOM = 1 << 30


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A user's empty folders, in memory where there is room.

    Ten thousand pictures are some hundred thousand fsyncs: how long a disk takes for them is not
    what is tested here.
    """
    if not (os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM):
        yield House(tmp_path)
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY, prefix="picowatch-") as folder:
        yield House(Path(folder))
