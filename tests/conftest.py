"""Fixtures for all tests."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.house import House

# Time limits of single examples fail on busy machines and find nothing. The examples are the same
# each time, so that a failure is the change's: EXPLORE=1 draws others.
settings.register_profile("picowatch", deadline=None, derandomize="EXPLORE" not in os.environ)
settings.load_profile("picowatch")


@pytest.fixture
def house(tmp_path: Path) -> House:
    """A user's empty folders."""
    return House(tmp_path)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Names that are not UTF-8 stand in the log; a report must be text to reach its reader."""
    report = yield
    report.sections = [
        (name, content.encode("utf-8", "backslashreplace").decode())
        for name, content in report.sections
    ]
    return report
