"""`make test-pythons` runs every Python of the machine, and fails if one of them does."""

from pathlib import Path

import pytest

from tests import pythons

TWO = {"3.11.2": Path("/usr/bin/python3"), "3.13.0": Path("/opt/python3.13")}


def test_the_tests_that_it_runs_exist() -> None:
    """If a file were moved, a Python might have no tests."""
    named = [*pythons.TESTS, *pythons.NEED_TORCH, *pythons.NEED_DIFFUSERS]
    files = [pythons.PROJECT / "tests" / one.partition("::")[0] for one in named]
    assert [file for file in files if not file.exists()] == []


@pytest.mark.parametrize(
    ("named", "failing", "code", "words"),
    [
        ("", "", 0, ["3.11.2 passed", "3.13.0 passed"]),
        ("", "3.11.2", 1, ["3.11.2 FAILED", "3.13.0 passed"]),
        ("3.13.0", "3.11.2", 0, ["3.13.0 passed"]),
        ("3.14.1", "", 1, ["not installed: 3.14.1; there are 3.11.2, 3.13.0"]),
    ],
)
def test_the_exit_code_is_that_of_all(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    named: str,
    failing: str,
    code: int,
    words: list[str],
) -> None:
    """Each Python runs, and the last lines say which did."""
    monkeypatch.setattr(pythons, "pythons", lambda: TWO)
    monkeypatch.setattr(pythons, "passes", lambda version, python: version != failing)
    monkeypatch.setenv("PYTHONS", named)
    assert pythons.main() == code
    assert [line.partition("  (")[0] for line in capsys.readouterr().out.splitlines()] == words
