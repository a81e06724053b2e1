"""Never more than a second or 200 MB before the answer, and no exception but those for people."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands.picowatch import PROJECT, clean_environment
from tests.fuzz.hostile import HOSTILE

pytestmark = pytest.mark.heavy  # two hundred files, three times each

SECONDS = 2.0  # of processor time, so that a busy machine does not count; most take a tenth
MEGABYTES = 200
TRIES = 3  # the best of them: a processor that is shared counts too much, never too little


class Answering:
    """The process that answers in measured children (tests/fuzz/answering.py)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.answering"],
            cwd=PROJECT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, folder: Path) -> dict[str, Any]:
        """Return the answer to the files of a folder, and its time and memory."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "died" not in told, told["died"]
        return told

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def answering() -> Iterator[Answering]:
    process = Answering()
    yield process
    process.close()


def is_within_limits(told: dict[str, Any]) -> bool:
    return bool(told["seconds"] <= SECONDS and told["megabytes"] <= MEGABYTES)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_answered_in_a_moment(
    answering: Answering, tmp_path: Path, name: str
) -> None:
    """That includes the daemon's start; the answer is pictures, or an error file with the place."""
    hostile = HOSTILE[name]
    files = hostile.files()
    for number in range(TRIES):
        for path, content in files.items():
            file = tmp_path / str(number) / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        told = answering.answer(tmp_path / str(number))
        if is_within_limits(told):
            break
    assert told["seconds"] <= SECONDS
    assert told["megabytes"] <= MEGABYTES
    assert "went wrong" not in told["log"] and "Traceback" not in told["log"]
    if hostile.says is not None:
        assert hostile.says in told["error"]
    if told["error"] is not None:
        assert ", line " in told["error"] and ", column " in told["error"]
