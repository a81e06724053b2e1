"""Fields that change nothing, because what they need is in none of an entry's images."""

from collections.abc import Iterator, Sequence

from picowatch.recipe.fields import PICTURE, ROWS
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import names_none
from picowatch.recipe.resolve.severity import Finding
from picowatch.recipe.written import Layer, Origin, Written

# Without a start image the denoising strength is that of hires.
_NEEDS = {name: row.needs for name, row in ROWS.items() if row.needs} | {
    "denoising_strength": ("image", "hires")
}
_NEEDED = frozenset(need for needs in _NEEDS.values() for need in needs)
# What a recipe without a prompt can say, whose start image is only enlarged.
_WITHOUT_DRAWING = ("image", "upscale", "exact", "sweep", "grid", "grid_seconds", "priority")


def says_drawing(layer: Layer) -> bool:
    """Return whether an entry says anything about drawing."""
    return any(map(_is_about_drawing, layer, layer.values()))


def idle_fields(layer: Layer, found: Sequence[Recipe]) -> Iterator[Finding]:
    """Find what is written for nothing; a folder's defaults are for those recipes that use them."""
    layer = {name: w for name, w in layer.items() if w.origin is not Origin.FOLDER}
    if not any(recipe.draws for recipe in found):
        for field, written in layer.items():
            if _is_about_drawing(field, written):
                yield _without(field, ("prompt",), written)
        return
    present = {name for name in _NEEDED if any(getattr(recipe, name) for recipe in found)}
    # What is missing for a mistake of its own is not to be added, nor what is off on purpose.
    present |= {name for name in _NEEDED & layer.keys() if _is_meant(layer[name])}
    switched_off = {name for name, w in layer.items() if w.origin is Origin.OWN}
    for field, needs in _NEEDS.items():
        said = layer.get(field)
        # None is a random seed, as other programs write where they use none.
        if not said or said.value is None or names_none(said) or not present.isdisjoint(needs):
            continue
        if said.origin is Origin.OTHERS and not switched_off.isdisjoint(needs):
            switched_off.add(field)  # the recipe itself does without it
        else:
            yield _without(field, needs, said)


def _without(field: str, needs: Sequence[str], written: Written) -> Finding:
    what = f"{field} has no effect without {' or '.join(needs)}."
    remedy = f"Add it, or remove {field}."
    return Finding(field, what, remedy, "", position=written.name_position)


def _is_about_drawing(field: str, written: Written) -> bool:
    says_nothing = written.value == PICTURE or names_none(written)
    return field in ROWS and field not in _WITHOUT_DRAWING and not says_nothing


def _is_meant(written: Written) -> bool:
    """Whether it is on; or a strength of 0, so that what goes with it may stay."""
    value = written.value
    return not names_none(written) and (bool(value) or (value == 0 and value is not False))
