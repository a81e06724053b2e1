"""Fixtures for all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.house import House

# Time limits of single examples fail on busy machines and find nothing.
settings.register_profile("picowatch", deadline=None)
settings.load_profile("picowatch")


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A user's empty folders."""
    return House(tmp_path)
