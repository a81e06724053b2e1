"""The rules of each family of checkpoints: what recipes can say, and what they mean without it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from picowatch.families import DEMO, FAMILIES
from picowatch.recipe.fields import default_of

MAX_SIDE = 4096  # pixels, after hires


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one family, or one variant: see `Family` and `Variant`.

    Sides are multiples of `multiple`, and `max_side` at most. `flow`: a pipeline of diffusers
    renders it, as a rule along a flow from noise to picture, with the samplers in `samplers` alone.
    `weighs`: its prompts take weights and BREAK, and words that change between the steps; others
    get the text without weights.
    """

    multiple: int = 8
    max_side: int = MAX_SIDE
    defaults: Mapping[str, Any] = field(default_factory=dict)
    lacks: Mapping[str, str] = field(default_factory=dict)
    flow: bool = False
    samplers: tuple[str, ...] = ()
    guided: bool = True
    weighs: bool = True
    fills: bool = False
    most_start_pixels: int = 0

    def default(self, name: str) -> Any:
        """Return what a recipe gets that does not say this field."""
        return self.defaults.get(name, default_of(name))


@cache
def rules_of(family: str, variant: str = "") -> Rules:
    """Return the rules of a family's variant; of the family, where the variant is not known."""
    row = FAMILIES[family]
    one = row.variant(variant)
    return Rules(
        multiple=row.size_multiple,
        max_side=one.largest or MAX_SIDE,
        defaults=({"sampler": row.samplers[0]} if row.samplers else {}) | dict(one.defaults),
        lacks={**row.lacks, **one.lacks},
        flow=row.kind == "flow",
        samplers=row.samplers,
        guided=one.guided,
        weighs=row.kind == "unet",
        fills=one.fills,
        most_start_pixels=one.most_start_pixels,
    )


def family_called(text: str) -> str:
    """Return the family that takes LoRAs and has this key or name; "" if none has.

    Case, spaces and marks make no difference.
    """
    takers = [row for row in FAMILIES.values() if row.loras]
    return next((row.key for row in takers if _bare(text) in map(_bare, (row.key, row.name))), "")


def _bare(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


UNET = rules_of("sd1")
DEMO_RULES = rules_of(DEMO)
