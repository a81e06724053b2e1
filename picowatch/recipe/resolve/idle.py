"""Fields that change nothing, because what they need is in none of an entry's images."""

from collections.abc import Iterator, Mapping, Sequence

from picowatch.recipe.fields import PART_FIELDS, PICTURE, ROWS
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import names_none
from picowatch.recipe.resolve.severity import Finding, Origin
from picowatch.recipe.written import Layer, Written, number

# Without a start image the denoising strength is that of hires. A sweep may vary the parts of a
# mapping alone.
_NEEDS = {
    **{name: row.needs for name, row in ROWS.items() if row.needs},
    "denoising_strength": ("image", "hires"),
    **{name: (name.partition(".")[0],) for name in PART_FIELDS},
}
_NEEDED = frozenset(need for needs in _NEEDS.values() for need in needs)
# What a recipe without a prompt can say, whose start image is only enlarged.
_WITHOUT_DRAWING = ("image", "upscale", "exact", "sweep", "grid", "grid_seconds", "priority")


def says_drawing(layer: Layer) -> bool:
    """Return whether an entry says anything about drawing."""
    return any(map(_is_about_drawing, layer, layer.values()))


def idle_fields(
    layer: Layer, origins: Mapping[str, Origin], found: Sequence[Recipe]
) -> Iterator[Finding]:
    """Find what is written for nothing; a folder's defaults are for those recipes that use them."""
    layer = {name: w for name, w in layer.items() if origins.get(name) is not Origin.FOLDER}
    if not any(recipe.draws for recipe in found):
        for field, written in layer.items():
            if _is_about_drawing(field, written):
                yield _without(field, ("prompt",), written)
        return
    present = {name for name in _NEEDED if any(getattr(recipe, name) for recipe in found)}
    # What is missing for a mistake of its own is not to be added.
    present |= {name for name in _NEEDED & layer.keys() if _is_meant(layer[name])}
    switched_off = {name for name in layer if origins.get(name) is Origin.OWN} - present
    for field, needs in _NEEDS.items():
        said = layer.get(field)
        if said is None or not present.isdisjoint(needs) or _says_nothing(field, said, layer):
            continue
        if origins.get(field) is Origin.OTHERS and not switched_off.isdisjoint(needs):
            switched_off.add(field)  # the recipe itself does without it
        elif not any(_is_zero(layer.get(need)) for need in needs):
            yield _without(field, needs, said)


def _without(field: str, needs: Sequence[str], written: Written) -> Finding:
    name = f'"{field.replace(".", ": ")}"' if "." in field else field  # as a sweep has it
    what = f"{name} has no effect without {' or '.join(needs)}."
    remedy = f"Add it, or remove {name}."
    return Finding(field, what, remedy, "", position=written.name_position)


def _is_about_drawing(field: str, written: Written) -> bool:
    says_nothing = written.value == PICTURE or names_none(written)
    return field in ROWS and field not in _WITHOUT_DRAWING and not says_nothing


def _is_meant(written: Written) -> bool:
    return bool(written.value) and not names_none(written)


def _says_nothing(field: str, written: Written, layer: Layer) -> bool:
    mapping, _, part = field.partition(".")
    if part and mapping in layer:
        return True  # it was said with its mapping, which was left out
    # None is a random one, as other programs write where they use none.
    return names_none(written) or (field == "variation_seed" and written.value is None)


def _is_zero(written: Written | None) -> bool:
    """Return whether a strength is switched off on purpose, so that what goes with it may stay."""
    return written is not None and number(str(written.value)) == 0
