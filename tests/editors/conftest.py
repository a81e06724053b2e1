"""Fixtures for tests of editors."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on the disk, where a new file may get the inode of a deleted one."""
    folder = Path(tempfile.mkdtemp(prefix="picowatch-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def other_file_system(tmp_path: Path) -> Iterator[Path | None]:
    """A folder on another file system than the temporary folder's, if there is one."""
    if not SHARED_MEMORY.is_dir() or SHARED_MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="picowatch-", dir=SHARED_MEMORY))
    yield folder
    shutil.rmtree(folder)
