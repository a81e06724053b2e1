"""ControlNets: the pictures that they follow, and what they are used with."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from picowatch.recipe.inventory import ControlNet
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.parts import KINDS, OPTIONS
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.layers import CONTROL
from picowatch.recipe.resolve.severity import Finding
from picowatch.recipe.written import Written


def with_picture(
    control: Written, is_picture: Callable[[Written], bool], picture: Written
) -> Written:
    """The field `control` as written, with a picture's path where `is_picture` says so."""
    if isinstance(control.value, tuple):
        parts = tuple(with_picture(part, is_picture, picture) for part in control.parts)
        return replace(control, value=tuple(part.value for part in parts), parts=parts)
    pairs = [
        (name, picture if name == "image" and is_picture(part) else part)
        for name, part in control.pairs
    ]
    return control.with_pairs(tuple(pairs)) if pairs else control


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
