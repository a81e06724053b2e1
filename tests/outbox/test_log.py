"""Log lines for programs: each says which event it is, and what it is about."""

import json
from typing import Any

from picowatch.outbox.log import EVENTS, FIELDS
from tests.digest_engine import fail_on_bad
from tests.house import House

EXPECTED: list[dict[str, Any]] = [
    {"event": "started"},
    {"event": "refused", "recipe": "wrong.yaml", "code": "mistake"},
    {"event": "refused", "recipe": "photos/no.png", "code": "unusable"},
    {"event": "ignored", "recipe": "notes.md", "code": "never_run"},
    {"event": "warning", "recipe": "a.txt"},
    {"event": "saved", "recipe": "a.txt"},
    {"event": "loading", "recipe": "a.txt"},
    {"event": "picture", "recipe": "a.txt", "picture": "a/0002-6.png", "seconds": 0.0},
    {"event": "failed", "recipe": "a.txt"},
    {"event": "finished", "seconds": 0.0},
    {"event": "ended"},
]


def about(line: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in FIELDS if name in line}


def test_a_line_of_json_says_what_it_is_about(house: House) -> None:
    house.engine.before_batch = fail_on_bad
    house.save("a.txt", "bad --seed 5\none --seed 6\n")
    house.save("wrong.yaml", "promt: a corgi\n")
    house.save("photos/_pictures.yaml", "prompt: a corgi\n")
    house.save("photos/no.png", "no picture")
    house.save("notes.md", "mine")
    assert not house.once(batch_size=1, log_format="json")
    lines = [json.loads(line) for line in house.log().splitlines()]
    told = [*map(about, lines)]
    assert [expected for expected in EXPECTED if expected not in told] == []
    assert all(line["event"] in EVENTS and line["message"] for line in lines)
