"""status.json, as `picowatch status` reads it."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from picowatch.outbox.status import STATUS, EngineStatus, FolderStatus, Status, read_status

WHOLE = Status(
    updated=2.5,
    started=1.0,
    images={"queued": 3},
    recipe="a.yaml",
    seconds_left=40.0,
    paused=True,
    waiting=(("b.yaml", 2), ("c", 4)),
    folders=(
        FolderStatus(folder="c", done=1, of=4, seconds_left=9.0),
        FolderStatus(folder="d", done=0, of=1),
    ),
    pictures=("a/0001-1.png",),
    ignored=(("a.tmp", "it is no recipe"),),
    engines=(EngineStatus(number=0, device="cpu", memory_bytes=7), EngineStatus(number=1)),
    pid=7,
    host="lab",
)
WRONG: list[dict[str, Any]] = [
    {"updated": "soon"},
    {"updated": None},
    {"images": []},
    {"images": {"queued": "3"}},
    {"recipe": 1},
    {"image": True},
    {"waiting": [["b.yaml"]]},
    {"waiting": {"b.yaml": 2}},
    {"pictures": "a.png"},
    {"folders": [{"done": 1}]},
    {"engines": [7]},
]


def read(outbox: Path, text: str) -> Status | None:
    (outbox / STATUS).parent.mkdir(exist_ok=True)
    (outbox / STATUS).write_text(text)
    return read_status(outbox)


def test_a_status_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Whole seconds, too; a later version's fields are ignored, an earlier one's are defaults."""
    values = json.loads(json.dumps(asdict(WHOLE)))
    assert read(tmp_path, json.dumps(values)) == WHOLE
    whole_seconds = {**values, "updated": 2, "new": [1], "engines": [{"number": 0, "new": 1}]}
    found = replace(WHOLE, updated=2.0, engines=(EngineStatus(number=0),))
    assert read(tmp_path, json.dumps(whole_seconds)) == found
    few: dict[str, Any] = {"updated": 1.0, "started": 1.0, "images": {}, "pid": 7, "host": "lab"}
    assert read(tmp_path, json.dumps(few)) == Status(**few)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "7", "[" * 90_000, "\x00"),
        *(json.dumps(asdict(WHOLE) | changes) for changes in WRONG),
    ],
)
def test_what_is_no_status_is_none(tmp_path: Path, text: str) -> None:
    """Damaged, or with a value of another type, which nothing that is shown later may have."""
    assert read(tmp_path, text) is None
