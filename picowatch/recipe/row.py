"""A row of the table of fields, beside a field's name, type, limits and default."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from picowatch.recipe.numbers import plain_number


@dataclass(frozen=True, slots=True)
class A1111:
    """A field in A1111's text: its key there, and its value's text; a text of "" is left out.

    `also` are other spellings of the key. They are compared in lower case: A1111 writes
    "CFG scale", ComfyUI's nodes and Forge "CFG Scale".
    """

    key: str
    write: Callable[[Any], str] = str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """A field in the table, beside its name, type, limits and default.

    `changes_pixels`: the field is part of an image's identity. `batch`: whether images that differ
    in it may share a batch. `needs` are the fields without all of which this one changes nothing,
    `samplers` those that look at it, if not all do. A
    default that is empty, 0 or false is left out of digests and metadata; `left_out`: this one is,
    too.
    `no_sweep` says why no sweep can vary it. `wanted` are the values in the words of an error,
    `takes_text` and `default_text` in those of the docs, where the type does not say it.
    """

    description: str
    aliases: tuple[str, ...] = ()
    changes_pixels: bool = True
    batch: Literal["same", "may differ"] = "same"
    needs: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    left_out: bool = False
    no_sweep: str = ""
    a1111: A1111 | None = None
    wanted: str = ""
    takes_text: str = ""
    default_text: str = ""


def unless(off: object, write: Callable[[Any], str] = str) -> Callable[[Any], str]:
    """Return a function that writes a value, and "" for the one at which its field is off."""
    return lambda value: "" if value == off else write(value)


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]
DENOISING_STRENGTH = A1111("Denoising strength", plain_number, ("strength",))
