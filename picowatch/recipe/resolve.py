"""What entries say, with everything looked up: written values become recipes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from picowatch.recipe.building import Checked, build_recipe
from picowatch.recipe.known import Known
from picowatch.recipe.layers import merged, settled
from picowatch.recipe.places import Layer, Spot, Written
from picowatch.recipe.problems import Problems
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.start_image import refuse_idle
from picowatch.recipe.sweep import WrittenAxis, combinations, read_axes


@dataclass(frozen=True, slots=True)
class Entry:
    """One recipe of a file as written: its own settings, and where it begins."""

    layer: Layer
    spot: Spot


def resolve(
    entries: Sequence[Entry],
    layers: Sequence[Layer],
    known: Known,
    max_images: int,
    problems: Problems,
) -> list[Recipe]:
    """The entries' recipes, in order; what is wrong with any of them goes to `problems`.

    `layers` hold what all of them start from, farthest first. Sweeps beyond `max_images` are
    refused before any of their combinations is worked out.
    """
    common = [settled(layer, problems) for layer in layers]
    recipes: list[Recipe] = []
    images = 0
    for place, entry in enumerate(entries):
        own = settled(entry.layer, problems)
        layer = merged([*common, own])
        sweep = layer.pop("sweep", None)
        axes = read_axes(sweep, layer, problems) if sweep else []
        if sweep and _are_too_many(axes, images, max_images, sweep, problems):
            continue
        recipe = _recipe(axes, layer, own, entry.spot, place, known, problems)
        if recipe:
            recipes.append(recipe)
            images += recipe.image_count
    return recipes


def _are_too_many(
    axes: Sequence[WrittenAxis], before: int, max_images: int, sweep: Written, problems: Problems
) -> bool:
    images = prod(len(axis.values) for axis in axes)
    if before + images <= max_images:
        return False
    sizes = " x ".join(f"{len(axis.values):,}" for axis in axes)
    problems.add(
        sweep.key or sweep.spot,
        f"this sweep makes {sizes} = {images:,} images; one save may ask for {max_images:,} "
        "(the setting max_images_per_save).",
    )
    return True


def _recipe(
    axes: Sequence[WrittenAxis],
    layer: Layer,
    own: Layer,
    spot: Spot,
    place: int,
    known: Known,
    problems: Problems,
) -> Recipe | None:
    """An entry's recipe: if it sweeps, that of its first combination, which holds them all."""
    checked: Checked = set()
    found = []
    for combination in combinations(axes, layer):
        variant = build_recipe(dict(combination), spot, place, known, checked, problems)
        found += [variant] if variant else []
    swept = {name: w for axis in axes for name, w in axis.values[0].overlay.items()}
    there = {
        "image": any(variant.image for variant in found),
        "mask": any(variant.mask for variant in found),
        "hires": any(variant.hires for variant in found),
    }
    if found:
        refuse_idle(own | swept, there, problems)
    if not found or not axes:
        return found[0] if found else None
    return found[0].swept(tuple(axis.axis for axis in axes), found)
