"""Rules about ControlNets: what they follow, and whether they fit the checkpoint."""

from collections.abc import Iterator

from picowatch.recipe.control import KINDS, OPTIONS
from picowatch.recipe.fields import CONTROL
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.severity import Finding


def mistakes_in_control(recipe: Recipe) -> Iterator[Finding]:
    """Check each ControlNet; a wrong one that somebody else chose is left out."""
    for index, control in enumerate(recipe.control):
        for name, message in _mistakes(recipe, index):
            is_misfit = name == "model" and control.model != ""
            field = f"{CONTROL}.{index}.{name}"
            yield Finding(field, message, instead="", of_checkpoint=is_misfit)


def _mistakes(recipe: Recipe, index: int) -> Iterator[tuple[str, str]]:
    """Yield the wrong parts of a ControlNet, and the messages about them."""
    control, checkpoint = recipe.control[index], recipe.context.checkpoint
    installed = recipe.context.inventory.named("controlnet")
    model = installed.get(control.model)
    if not control.image and not recipe.image:
        yield "image", "control has no picture to follow. Write 'image: …' there."
    if not recipe.says(f"{CONTROL}.{index}.model"):
        names = [name for name, controlnet in installed.items() if controlnet.fits(checkpoint)]
        there = f"Installed: {listed(names)}." if names else "None is installed for it."
        yield "model", f"control names no model from models/controlnet. {there}"
    elif model and not checkpoint.rules.flow and not model.fits(checkpoint):
        is_size = model.family == checkpoint.family
        other = "is of another size" if is_size else f"belongs to {checkpoint.family}"
        yield (
            "model",
            f"the ControlNet '{shown(model.name)}' is for {model.family}, but the checkpoint "
            f"'{shown(checkpoint.name)}' {other}. Use a ControlNet of its family, or another "
            "checkpoint.",
        )
    if control.preprocess == "inpaint" and not recipe.mask:
        yield (
            "preprocess",
            "'preprocess: inpaint' shows a ControlNet the start image outside the mask. Add image "
            "and mask.",
        )
    for name, needed in OPTIONS.items():
        if recipe.says(f"{CONTROL}.{index}.{name}") and needed != control.preprocess:
            yield name, f"control {name} has no effect without 'preprocess: {needed}'. Remove it."
    if control.start > control.end:
        yield "start", f"control begins at {control.start:g}, after its end at {control.end:g}."
    kinds = KINDS[: model.kinds] if model else ()
    if model and not kinds and control.kind:
        what = f"the ControlNet '{shown(model.name)}' is not a union: it follows one kind of map."
        yield "kind", f"{what} Remove kind."
    elif kinds and control.kind not in kinds:
        said = f"not '{control.kind}'" if control.kind else "which 'preprocess: none' does not tell"
        yield (
            "kind",
            f"the union ControlNet '{shown(control.model)}' must be told what the map shows, "
            f"{said}. Write 'kind: …' with {listed(kinds, 'or')}.",
        )
