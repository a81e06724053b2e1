"""Fixtures for tests of editors."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder on the disk, where a new file may get the inode of a deleted one."""
    folder = Path(tempfile.mkdtemp(prefix="picowatch-"))
    yield folder
    shutil.rmtree(folder)
