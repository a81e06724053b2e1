"""Fixtures for all tests."""

from pathlib import Path

import pytest

from tests.house import House


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A user's empty folders."""
    return House(tmp_path)
