"""The list of a picture's passes: what computes, on how many pixels, how often."""

from typing import Any

import pytest

from picowatch.recipe.parts import Cutout, Find, Hires, ResizeTo, Upscale
from picowatch.recipe.passes import passes_of
from picowatch.recipe.request import DetailUse, ReferenceUse
from tests.engine.requests import request

DETAIL = DetailUse(find="face", model="finder", size="512x512", count=3, denoising_strength=0.5)
GIVEN: dict[str, Any] = {"image": "a.png", "image_hash": "1" * 64, "steps": 10}
ONLY_FINISHED = {**GIVEN, "checkpoint": "", "given_size": (400, 300)}
SMALL, LARGE = (128, 128), (256, 256)
# What a request says, and its passes: kind, size, size of the result, evaluations.
ROWS: dict[str, tuple[dict[str, Any], list[tuple[object, ...]]]] = {
    "guidance calls the model twice": (
        {"steps": 10},
        [("draw", SMALL, SMALL, 20), ("write", SMALL, SMALL, 1)],
    ),
    "without guidance once": ({"steps": 10, "cfg_scale": 1.0}, [("draw", None, None, 10)]),
    "in an interval as often as it acts": (
        {"steps": 10, "cfg_start": 0.5},
        [("draw", None, None, 14)],
    ),
    "a start image skips steps": ({**GIVEN, "denoising_strength": 0.5}, [("draw", None, None, 10)]),
    "hires draws again, larger": (
        {"steps": 10, "hires": Hires(scale=2.0, steps=4, denoising_strength=0.5)},
        [("draw", SMALL, None, 20), ("hires", LARGE, LARGE, 4)],
    ),
    "an upscaler of hires works between its runs": (
        {"hires": Hires(2.0, 4, 0.5, "esrgan"), "hires_upscaler_hash": "1"},
        [("draw", SMALL, None, None), ("enlarge", SMALL, LARGE, 1), ("hires", LARGE, None, None)],
    ),
    "details are found, then drawn in their own size": (
        {"steps": 10, "detail": (DETAIL,)},
        [("draw", None, None, 20), ("find", SMALL, None, 1), ("detail", (512, 512), None, 10)],
    ),
    "only details": (
        {**GIVEN, "denoising_strength": 0.0, "detail": (DETAIL,)},
        [("find", None, None, 1), ("detail", (512, 512), None, 10)],
    ),
    "a found mask": (
        {**GIVEN, "denoising_strength": 1.0, "mask": Find("hat")},
        [("find", None, None, 1), ("draw", None, None, 20)],
    ),
    "an edit of a photo computes on a megapixel": (
        {"width": 4000, "height": 3000, "steps": 4, "references": (ReferenceUse("a.png", "1"),)},
        [("draw", (1182, 886), (4000, 3000), 8)],
    ),
    "a photo that is only enlarged, cut out and resized": (
        {
            **ONLY_FINISHED,
            "upscale": Upscale("x", 2.0),
            "cutout": Cutout("c", size="900x900"),
            "resize_to": ResizeTo(longest_side=300),
        },
        [
            ("upscale", (400, 300), (800, 600), 1),
            ("cutout", (800, 600), (900, 900), 1),
            ("resize", (900, 900), (300, 300), 1),
            ("write", (300, 300), (300, 300), 1),
        ],
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_passes_are_listed(row: str) -> None:
    """None in a row stands for a value that does not matter there."""
    values, expected = ROWS[row]
    found = [
        (part.kind, part.size, part.gives, part.evaluations)
        for part in passes_of(request(**values))
    ]
    assert len(found) >= len(expected)
    for each, wanted in zip(found, expected, strict=False):
        assert all(want in (None, have) for have, want in zip(each, wanted, strict=True)), each
