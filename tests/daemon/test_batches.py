"""Which images share a batch."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.recipe.fields import ROWS
from picowatch.recipe.parts import Hires, Upscale
from picowatch.recipe.request import ControlUse, LoraUse, ReferenceUse
from tests.engine.requests import request

PIXELS = [name for name, row in ROWS.items() if row.changes_pixels]
OF_OTHER_TYPES: dict[str, Any] = {
    "hires": Hires(),
    "control": (ControlUse("a.png", "canny"),),
    "loras": (LoraUse("a", "1", 0.5),),
    "noise": "nvidia",
    "prediction": "v",
    "references": (ReferenceUse("b.png", "2"),),
    "resize": "stretch",
    "schedule_type": "beta",
    "upscale": Upscale("4x", 2.0),
    "variation_seed": 5,
    "width": 64,
    "height": 64,
}


def _another(name: str, value: Any) -> Any:
    """Return another value of the same type, or the one from the table above."""
    if name in OF_OTHER_TYPES:
        return OF_OTHER_TYPES[name]
    if isinstance(value, bool):
        return not value
    return value + " too" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("name", PIXELS)
def test_a_field_that_changes_pixels_is_in_the_digest_and_in_the_batch_key_or_may_differ(
    name: str,
) -> None:
    """Otherwise two pictures would count as one, or images of a batch would get wrong pixels."""
    given: dict[str, Any] = {"image": "a.png"}
    if name == "references":  # never with a start image
        given = {name: (ReferenceUse("a.png", "1"),)}
    first = request(**given, mask="b.png", variation_strength=0.5)
    other = replace(first, **{name: _another(name, getattr(first, name))})
    assert first.digest != other.digest
    assert (first.batch_key == other.batch_key) is not ROWS[name].same_in_batch


def test_the_fields_that_may_differ_within_a_batch_are_each_images_own() -> None:
    """The engine reads these fields for each image, and all others once for the batch."""
    assert {name for name in PIXELS if not ROWS[name].same_in_batch} == {
        *("prompt", "negative_prompt", "seed"),
        *("ensd", "variation_seed", "variation_strength"),
        *("image", "references", "resize", "mask", "mask_blur", "mask_invert", "cutout"),
    }


def test_images_that_follow_different_pictures_may_share_a_batch() -> None:
    """So may those with different start images."""
    one, other = (request(control=(ControlUse(name, "canny"),), image=name) for name in "ab")
    assert one.batch_key == other.batch_key


@pytest.mark.parametrize(
    "other",
    [
        {"checkpoint_hash": "1"},
        {"vae_hash": "1"},
        {"image": "a.png", "image_hash": "1", "denoising_strength": 0.5, "resize": "crop"},
        {"shrink_to_fit": True},
        {"exact": True},
    ],
    ids=lambda other: next(iter(other)),
)
def test_so_must_be_what_is_no_field(other: dict[str, Any]) -> None:
    """Hashes, a start image, and how it is rendered count, too; exact images share with none."""
    assert request().batch_key != request(**other).batch_key
    if "exact" in other:
        assert request(exact=True).batch_key != request(exact=True, seed=2).batch_key
