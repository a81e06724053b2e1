"""Limits: how many images one save may request, and how much text one sweep may make."""

from collections.abc import Sequence
from math import prod

from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.messages.problems import Problems
from picowatch.recipe.resolve.prompts import MAX_SIGNS_OF_ALL, count_all_signs
from picowatch.recipe.resolve.ranges import NumberRange
from picowatch.recipe.resolve.sweep import WrittenAxis
from picowatch.recipe.written import Entry, Layer, Position, Written

MAX_SWEPT_CHARACTERS = 2_000_000


def position_of_count(entry: Entry) -> Position:
    """The position to point at when a file requests too many images."""
    return entry.layer["count"].position if "count" in entry.layer else entry.position


def too_many(images: int, max_images: int) -> str:
    """The message about a file that requests too many images."""
    return (
        f"this file requests {images:,} images; one save may request {max_images:,} (the setting "
        "max_images_per_save)."
    )


class ImageLimit:
    """Counts what one save requests; whatever requests too much is refused in `problems`."""

    def __init__(self, max_images: int, problems: Problems) -> None:
        self._max_images = max_images
        self._problems = problems
        self._counted = 0

    def refuses(self, axes: Sequence[WrittenAxis], layer: Layer, sweep: Written | None) -> bool:
        """Return whether a sweep or a range of seeds, which are short to write, makes too many."""
        images = _combinations(axes)
        position = sweep.name_position if sweep else None
        message = ""
        if sweep and self._counted + images > self._max_images:
            sizes = " x ".join(f"{len(axis.values):,}" for axis in axes)
            message = (
                f"this sweep makes {sizes} = {images:,} images; one save may request "
                f"{self._max_images:,} (the setting max_images_per_save)."
            )
        elif "seed" in layer and isinstance(layer["seed"].value, NumberRange):
            images *= len(layer["seed"].value)
            position = layer["seed"].position
        if position is None or self._counted + images <= self._max_images:
            return False
        self._problems.add(position, message or too_many(self._counted + images, self._max_images))
        return True

    def count(self, images: int) -> None:
        """These are requested."""
        self._counted += images

    def check(self, position: Position) -> None:
        """Refuse what was counted, unless something else is wrong already."""
        if self._counted > self._max_images and not self._problems:
            self._problems.add(position, too_many(self._counted, self._max_images))


def _combinations(axes: Sequence[WrittenAxis]) -> int:
    return prod(len(axis.values) for axis in axes)


def refuse_long_sweep(
    axes: Sequence[WrittenAxis], layer: Layer, sweep: Written, problems: Problems
) -> bool:
    """Return whether sweeping a piece of a prompt makes more text than can be looked through."""
    if not any(value.replaces for axis in axes for value in axis.values):
        return False
    texts = [layer[field].text for field in PROMPTS if field in layer]
    signs = "characters of wildcards and brackets"
    for what, most, each in (
        ("characters", MAX_SWEPT_CHARACTERS, sum(map(len, texts))),
        (signs, MAX_SIGNS_OF_ALL, sum(map(count_all_signs, texts))),
    ):
        if (found := each * _combinations(axes)) > most:
            problems.add(
                sweep.name_position,
                f"this sweep of a prompt has {found:,} {what}; the limit is {most:,}. "
                "Shorten the prompt, or sweep fewer values.",
            )
            return True
    return False
