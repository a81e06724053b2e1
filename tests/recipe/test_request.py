"""Requests in ledgers and pictures of earlier versions, which later ones must recognise."""

import json
from pathlib import Path
from typing import Any

import pytest

from picowatch.recipe import ImageRequest

STORED = json.loads(Path(__file__).with_name("stored_requests.json").read_text())


@pytest.mark.parametrize("stored", STORED, ids=["plain", "full", "only enlarged", "flow"])
def test_what_earlier_versions_stored_is_the_same_request(stored: dict[str, Any]) -> None:
    """A field that is off is in none of them, so a new one changes none.

    Else everything would be rendered again.
    """
    request = ImageRequest.from_dict(stored["request"])
    assert (request.digest, request.batch_key) == (stored["digest"], stored["batch_key"])
    assert json.dumps(request.as_dict()) == json.dumps(stored["request"])


@pytest.mark.parametrize(
    "changes", [{"styles": 1}, {"steps": 300}, {"width": None}, {"loras": [{"name": "a"}]}]
)
def test_what_is_no_request_is_refused(changes: dict[str, Any]) -> None:
    """A field that this version does not know would change the picture."""
    with pytest.raises(ValueError, match=next(iter(changes))):
        ImageRequest.from_dict(STORED[0]["request"] | changes)
