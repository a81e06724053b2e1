"""The field `control`: a mapping, or a list of mappings, each a ControlNet and what it follows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from picowatch.recipe.fields import PARTS
from picowatch.recipe.inventory import ControlNet
from picowatch.recipe.messages.problems import Problems, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import wrong_value
from picowatch.recipe.parts import KINDS, OPTIONS
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import names_none, typed
from picowatch.recipe.resolve.mappings import parts_in, read_parts
from picowatch.recipe.resolve.severity import Finding
from picowatch.recipe.written import Layer, Written

CONTROL = "control"
MAX_CONTROLS = 10


def split_controls(layer: Layer, problems: Problems) -> int:
    """Add the parts of each entry to the layer, as `control.0.weight`; returns how many there are.

    With what a sweep says of one of them. `control.0` is its picture, for later errors.
    """
    written = layer.get(CONTROL)
    if written is None or written.value is False or names_none(written):
        return 0
    entries = _entries(layer)
    swept = parts_in(layer, CONTROL)
    if len(entries) > MAX_CONTROLS:
        what = f"more than {MAX_CONTROLS} ControlNets here."
        problems.add(entries[MAX_CONTROLS].position, what)
        return 0
    for name, part in swept.items() if len(entries) > 1 else ():
        what = f"'control: {name}' could vary any of the {len(entries)} ControlNets here."
        remedy = "Sweep 'control' itself, with whole lists as values."
        problems.add(part.name_position, f"{what} {remedy}")
    for index, entry in enumerate(entries):
        if not isinstance(entry.value, dict):
            problems.add(entry.error_position, wrong_value(CONTROL, entry))
            return 0
        parts = read_parts(CONTROL, entry, problems) | swept
        layer[f"{CONTROL}.{index}"] = parts.get("image", entry)
        for name, part in parts.items():
            layer[f"{CONTROL}.{index}.{name}"] = typed(f"{CONTROL}.{name}", part)
    return len(entries)


def parts_of(layer: Layer, index: int) -> dict[str, Any]:
    """The values of an entry's parts, with our names of what has others, too."""
    names = [name for name in PARTS[CONTROL] if f"{CONTROL}.{index}.{name}" in layer]
    values: dict[str, Any] = {name: layer[f"{CONTROL}.{index}.{name}"].value for name in names}
    for name, find in _MEANINGS.items():
        if isinstance(values.get(name), str | int):
            values[name] = find(str(values[name]).strip())
    return values


_MEANINGS: dict[str, Callable[[str], str]] = {
    "mode": str.casefold,
    "kind": str.casefold,
    "preprocess": str.casefold,
}


def control_images(layer: Layer) -> Iterator[tuple[int, Written]]:
    """The pictures that the entries of `control` name, as written, by the entries' indexes."""
    for index, entry in enumerate(_entries(layer)):
        for name, part in entry.pairs:
            if name == "image":
                yield index, part


def with_control_image(index: int, layer: Layer, image: Written) -> Layer:
    """The layer with another picture in that entry of `control`."""
    written, entries = layer[CONTROL], list(_entries(layer))
    pairs = tuple((n, image if n == "image" else part) for n, part in entries[index].pairs)
    entries[index] = entries[index].with_pairs(pairs)
    if isinstance(written.value, tuple):
        return {**layer, CONTROL: replace(written, parts=tuple(entries))}
    return {**layer, CONTROL: entries[index]}


def _entries(layer: Layer) -> tuple[Written, ...]:
    written = layer.get(CONTROL)
    if written is None:
        return ()
    return written.parts if isinstance(written.value, tuple) else (written,)


def controls_fit(recipe: Recipe) -> Iterator[Finding]:
    """Check what its ControlNets are used with; somebody else's are left out."""
    for index, control in enumerate(recipe.control):
        for name, message in _mistakes(recipe, index):
            is_misfit = name == "model" and control.model != ""
            field = f"{CONTROL}.{index}.{name}"
            yield Finding(field, message, instead="", of_checkpoint=is_misfit)


def _mistakes(recipe: Recipe, index: int) -> Iterator[tuple[str, str]]:
    """Parts of a ControlNet, and what is wrong with them."""
    control, checkpoint = recipe.control[index], recipe.installed_checkpoint
    installed = recipe.inventory.controlnets
    model = next((one for one in installed if one.name == control.model), None)
    if not control.image and not recipe.image:
        yield "image", "control has no picture to follow. Write 'image: …' there."
    if not recipe.says(f"{CONTROL}.{index}.model"):
        names = [one.name for one in installed if one.fits(checkpoint)]
        there = f"Installed: {listed(names)}." if names else "None is installed for it."
        yield "model", f"control names no model from models/controlnet. {there}"
    elif model and not checkpoint.rules.flow and not model.fits(checkpoint):
        other = f"belongs to {checkpoint.family}"
        if model.family == checkpoint.family:
            other = "is of another size"
        yield (
            "model",
            f"the ControlNet '{shown(model.name)}' is for {model.family}, but the checkpoint "
            f"'{shown(checkpoint.name)}' {other}. Use a ControlNet of its family, or another "
            "checkpoint.",
        )
    if control.preprocess == "inpaint" and not recipe.mask:
        yield (
            "preprocess",
            "'preprocess: inpaint' shows a ControlNet what the mask leaves of the start image. Add "
            "image and mask.",
        )
    for name, needed in OPTIONS.items():
        if recipe.says(f"{CONTROL}.{index}.{name}") and needed != control.preprocess:
            what = f"control {name} has no effect without 'preprocess: {needed}'. Remove it."
            yield name, what
    if control.start > control.end:
        what = f"control begins at {control.start:g}, after its end at {control.end:g}."
        yield "start", what
    if model and (why := _wrong_kind(model, control.kind)):
        yield "kind", why


def _wrong_kind(model: ControlNet, kind: str) -> str:
    """Say why a model takes no map of this kind; a union has to be told the kind."""
    if not model.kinds:
        what = f"the ControlNet '{shown(model.name)}' is no union: it follows one kind of map."
        return f"{what} Remove kind." if kind else ""
    known = KINDS[: model.kinds]
    if kind in known:
        return ""
    what = f"not '{shown(kind)}'" if kind else "which 'preprocess: none' does not say"
    return (
        f"the union ControlNet '{shown(model.name)}' must be told what the map shows, {what}. "
        f"Write 'kind: …' with {listed(known, 'or')}."
    )
