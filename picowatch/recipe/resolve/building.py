"""A recipe from one layer: its values, what they name looked up, and the rest decided.

layer → values (`layers.read_layer`) → looked up (`lookup.Lookup`) → decided → `Recipe`, which
gives requests. No step changes what an earlier step gave; mistakes go into the reporter's problems.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from picowatch.errors import PictureUnreadable, ValueInvalid
from picowatch.recipe import fields, samplers
from picowatch.recipe.converters import RANDOM, SAME
from picowatch.recipe.extend import margins_of
from picowatch.recipe.inventory import DEMO_CUTOUT, NO_CHECKPOINT, Checkpoint
from picowatch.recipe.messages.problems import Finding, Reporter
from picowatch.recipe.messages.wording import given_twice
from picowatch.recipe.prompts.grammar import lora_tags
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve import layers
from picowatch.recipe.resolve.advice import unlike_the_picture
from picowatch.recipe.resolve.lookup import Known, Lookup, find_installed, fit, named
from picowatch.recipe.resolve.loras import read_loras
from picowatch.recipe.resolve.rules import mistakes_in_finishing, with_rules, without_unusable
from picowatch.recipe.written import Entry, Layer, Origin, SourceValue, find_in, is_on

_SIDES = ("width", "height")
_MOST_NARROW = 20  # pictures that are searched; of others, networks see hardly a row
_LIGHTNING = re.compile(r"lightning.*?(\d{1,2})[ _-]?steps?", re.IGNORECASE)
_NEEDS_MODEL = (
    "a photo needs a cutout model, and none is installed: put one into models/cutout/ "
    "(docs/models.md, Cutout models), and run picowatch retry. The embedded demo-cutout knows only "
    "drawings of the demo model. To try it all the same, write cutout: demo-cutout."
)
_USUALLY = "Write 'prompt: …'."
# Where a prompt is written, by a file's ending, or what the file itself should be, by its name.
_WHERE_PROMPT = {
    "json": 'Write "prompt": "…".',
    "csv": "Fill the column prompt, or add it.",
    "txt": "Write it before the flags.",
    "picowatch.yaml": f"{_USUALLY} Settings of picowatch belong beside the inbox, not into it.",
} | {
    f"{name}.yaml": f"{_USUALLY} To use the file for its folder, call it _{name}.yaml."
    for name in ("defaults", "pictures")
}
_SWITCHES = {name for needs in fields.NEEDS.values() for name in needs}


def resolve(reporter: Reporter, known: Known, entry: Entry) -> Recipe | None:
    """Return the recipe of the reporter's layer, without its sweep; None if it cannot be built.

    The layer is normalised and merged. The reporter is told of mistakes, and of replaced values
    that others chose. The `entry` says which files were used before, and what was dropped.
    """
    if layers.only_details(reporter.layer):
        layer = {name: said for name, said in reporter.layer.items() if name not in fields.WHOLE}
        reporter = replace(reporter, layer=layer)
    is_finished = layers.only_finishes(reporter.layer)
    recipe = _finished(reporter, known) if is_finished else _drawn(reporter, known, entry)
    is_filled = recipe and recipe.mask_is_alpha and not recipe.mask_invert
    if recipe and (not recipe.draws or recipe.leaves_a_part) and not is_filled:
        with suppress(PictureUnreadable):  # reported where pictures are kept
            recipe.known(is_transparent=known.pictures.is_transparent(recipe.image))
    for finding in _too_narrow(recipe, known) if recipe else ():
        reporter.replaces(finding)
    return recipe and recipe.warned(*reporter.warnings)


def _drawn(reporter: Reporter, known: Known, entry: Entry) -> Recipe | None:
    """Return a recipe that draws, with all that depends on its checkpoint and its files."""
    if "prompt" not in reporter.layer and not layers.only_details(reporter.layer):
        says_file = {*_SIDES, *fields.WRITING} & reporter.layer.keys()
        is_copy = is_on(reporter.layer, "image") and says_file
        instead = " For a copy of the picture, write resize_to: 1600." if is_copy else ""
        name = reporter.position.source.name.lower().rpartition("/")[2]
        where = _WHERE_PROMPT.get(name) or _WHERE_PROMPT.get(name.rpartition(".")[2], _USUALLY)
        reporter.wrong("prompt", f"a prompt is missing. {where}{instead}")
    checkpoint = find_installed(reporter, known.inventory, entry.by_another_program)
    layer = _with_dropped(reporter.layer, entry.dropped, checkpoint)
    layer = _with_hires_strength(layer, reporter)
    reporter = replace(reporter, layer=layer)
    reporter.warnings.extend(unlike_the_picture(layer, entry, checkpoint, known.inventory))
    loras, families = read_loras(layer, known.inventory, reporter)
    said, wrong = layers.read_layer(layer, reporter)
    prediction = said.get("prediction") or checkpoint.prediction
    tags = [(tag.name, tag.weight) for tag in lora_tags(said.get("prompt", ""))]
    used = [name for name, weight in (*loras, *tags) if weight]
    values = _defaults(layer, checkpoint, used, prediction) | said
    values |= {"prediction": prediction, "loras": loras, "seed": _seeds(values["seed"], reporter)}
    values |= Lookup(reporter, known, said).files(checkpoint)
    recipe = _recipe(values, reporter, known, checkpoint, lora_families=families)
    # What does nothing decides no size and breaks no rule: a folder's mask is for its pictures.
    recipe = _without_idle(without_unusable(_without_idle(recipe), reporter))
    recipe = _with_picture_size(recipe, known, reporter)
    # The rules are checked without wrong values, so that all mistakes are told at once. Those that
    # switch something on are needed by other fields, which would be blamed.
    blaming = _SWITCHES - fields.idle_fields(recipe)
    if any("." in place or place in blaming for place in wrong):
        return None
    recipe = _without_idle(with_rules(recipe, reporter, known.found_in_prompts))
    kind = samplers.SIMPLE
    if not checkpoint.rules.flow:  # an impossible type is refused already
        sampler = samplers.sampler_named(recipe.sampler)
        kind = samplers.decide_schedule_type(sampler, recipe.schedule_type) or recipe.schedule_type
    return recipe.with_values(schedule_type=kind, format=_format(recipe, reporter))


def _without_idle(recipe: Recipe) -> Recipe:
    """Return the recipe with the defaults of fields that change nothing in it."""
    off: dict[str, Any] = {name: fields.DEFAULTS[name] for name in fields.idle_fields(recipe)}
    return recipe.with_values(**off)


def _finished(reporter: Reporter, known: Known) -> Recipe | None:
    """Return a recipe that only finishes its start image, without a checkpoint."""
    layer = {name: said for name, said in reporter.layer.items() if name in fields.ON_FINISHED}
    said, wrong = layers.read_layer(layer, reporter)
    lookup = Lookup(reporter, known, said)
    image, upscale, cutout = lookup.path("image"), lookup.upscale(), lookup.cutout()
    resize_to = said.get("resize_to")
    if not image or not (upscale or cutout or resize_to is not None or layers.only_writes(layer)):
        return None
    try:
        size = known.pictures.size(image)
    except PictureUnreadable as error:
        reporter.wrong("image", named(image, str(error)))
        return None
    cuts_a_photo = cutout and cutout["model"] == DEMO_CUTOUT and known.pictures.is_photo(image)
    if cuts_a_photo and not find_in(reporter.layer, "cutout.model"):
        reporter.wrong("cutout", _NEEDS_MODEL)
    if any("." in place for place in wrong):
        return None
    values = said | {"prompt": "", "seed": 0, "image": image, "upscale": upscale, "cutout": cutout}
    recipe = _recipe(values, reporter, known, NO_CHECKPOINT, picture_size=size, draws=False)
    for finding in mistakes_in_finishing(recipe):
        reporter.replaces(finding)
    return recipe


def _too_narrow(recipe: Recipe, known: Known) -> Iterator[Finding]:
    """Find what looks for words in a picture of which networks see hardly a row of pixels."""
    looking = [f"detail.{index}" for index in range(len(recipe.detail))]
    looking += ["cutout"] if recipe.cutout and recipe.cutout.find else []
    searched = dict.fromkeys(looking, recipe.size_before_upscale)
    if recipe.found_mask and recipe.image:
        with suppress(PictureUnreadable):  # reported where pictures are kept
            searched["mask"] = known.pictures.size(recipe.image)
    for place, (width, height) in searched.items():
        if max(width, height) > _MOST_NARROW * min(width, height):
            field = place.partition(".")[0]
            what = f"{field} finds nothing in a picture of {width}x{height}: it is too narrow."
            most = f"One side may have {_MOST_NARROW} times the other's pixels. Cut a part out."
            yield Finding(f"{place}.find", what, most, of_checkpoint=False)


def _recipe(
    values: Mapping[str, Any], reporter: Reporter, known: Known, checkpoint: Checkpoint, **told: Any
) -> Recipe:
    """Return the recipe with these values, and with what is known and `told` besides."""
    parts = dict[str, Any]()
    for field, kind in fields.KINDS.items():
        if isinstance(said := values.get(field), dict):
            parts[field] = kind(**said)
        elif field in fields.LISTS:
            parts[field] = tuple(kind(**entry) for entry in said or ())
    return Recipe(
        **{**values, **parts, **told},
        inventory=known.inventory,
        checkpoint_used=checkpoint,
        layer=reporter.layer,
        position=reporter.position,
        most_photo_pixels=known.pictures.most_photo_pixels,
    )


def _with_dropped(layer: Layer, dropped: SourceValue | None, checkpoint: Checkpoint) -> Layer:
    """Make a dropped picture the start image, or the reference of an editing checkpoint."""
    if not dropped:
        return layer
    others = {name: said for name, said in layer.items() if name != "image"}
    if "references" in layer:
        return others
    started = others | {"image": dropped}
    if not checkpoint.rules.references or layers.only_details(started) or is_on(layer, "extend"):
        return started
    return others | {"references": dropped.with_parts((dropped,))}


def _with_hires_strength(layer: Layer, reporter: Reporter) -> Layer:
    """Give the second pass the denoising strength that is for it without a start image."""
    strength, own = layer.get("denoising_strength"), find_in(layer, "hires.denoising_strength")
    if not strength or not is_on(layer, "hires") or is_on(layer, "image"):
        return layer
    # A strength in the mapping is for it, too: the own is nearer, and its file says it once.
    is_own = strength.origin is Origin.OWN
    if own and is_own and own.position.source is strength.position.source:
        pair = sorted((own, strength), key=lambda each: each.name_position.line)
        what = given_twice("denoising_strength", pair[0])
        reporter.wrong("denoising_strength", what, position=pair[1].name_position)
    if own and (layer["hires"].origin is Origin.OWN or not is_own):
        return layer
    layer = layers.with_part(layer, "hires.denoising_strength", strength)
    return {name: said for name, said in layer.items() if name != "denoising_strength"}


def _defaults(
    layer: Layer, checkpoint: Checkpoint, loras: Collection[str], prediction: str
) -> dict[str, Any]:
    """Return the values of fields that are not written, where the checkpoint has its own."""
    rules, native = checkpoint.rules, checkpoint.native_size
    found = {"prompt": "", "width": native, "height": native, "seed": RANDOM, **rules.defaults}
    if is_on(layer, "extend") and "mask" not in rules.lacks:  # the margins begin with noise
        found["denoising_strength"] = 1.0
    if layers.only_details(layer):
        found["denoising_strength"] = 0.0
    # The name of a Lightning LoRA has its steps.
    names = filter(None, map(_LIGHTNING.search, loras if rules.lightning else ()))
    if lightning := next(names, None):
        found |= {"steps": int(lightning[1]), "cfg_scale": 1.0}
    if not rules.flow:
        is_zero = prediction == fields.ZERO_SNR
        usual = samplers.SAMPLER_OF_ZERO_SNR if is_zero else samplers.DEFAULT_SAMPLER
        sampler, schedule_type = samplers.find_sampler(usual)
        found |= {"sampler": sampler.name, "schedule_type": schedule_type}
    return found


def _seeds(seed: object, reporter: Reporter) -> object:
    """Return one seed, or several, with which `count` is a mistake."""
    if isinstance(seed, tuple | range) and "count" in reporter.layer:
        what = "count and several seeds together: each seed makes one image. Remove count."
        reporter.wrong("count", what, position=reporter.layer["count"].name_position)
    return tuple(seed) if isinstance(seed, range) else seed


def _format(recipe: Recipe, reporter: Reporter) -> str:
    """Return the file format; which pictures are used is known after the rules."""
    if recipe.format != SAME or recipe.image or recipe.references or recipe.control:
        return recipe.format
    if reporter.origin_of("format") is not Origin.FOLDER:  # which is for recipes with pictures
        what = "format: same is the format of the start image."
        remedy = "Add image or references, or write png, jpeg, webp, avif or tiff."
        reporter.wrong("format", what, "", remedy=remedy)
    return ""


def _with_picture_size(recipe: Recipe, known: Known, reporter: Reporter) -> Recipe:
    """Return the recipe with the sides of its picture, and a warning if that had to be reduced.

    A given side decides the other. A picture that is masked, or of which only parts are drawn,
    keeps its size.
    """
    native, extend = recipe.checkpoint_used.native_size, recipe.extend
    references = recipe.references
    given = reporter.layer if references or extend else _SIDES  # others are native
    own: dict[str, Any] = {"width": recipe.width, "height": recipe.height}
    sides = [side for side in _SIDES if own[side] == fields.PICTURE or side not in given]
    path = recipe.image or next(chain(references, (use.image for use in recipe.control)), "")
    # What a folder says is for its recipes with pictures.
    is_for_others = not path and all(reporter.origin_of(s) is Origin.FOLDER for s in sides)
    only_masked = recipe.mask and recipe.mask_padding is not None
    if only_masked or recipe.only_details or (sides and is_for_others):
        kept: dict[str, Any] = dict.fromkeys(sides, native)
        with suppress(PictureUnreadable):  # reported where pictures are kept
            kept["picture_size"] = known.pictures.size(path) if path else None
        return recipe.with_values(**kept)
    size = native, native
    if path and (sides or extend):
        try:
            size = known.pictures.size(path)
            size = margins_of(extend, size).around(size) if extend else size
        except PictureUnreadable as error:
            field = "image" if recipe.image else "references.0" if references else "control"
            reporter.wrong(field, named(path, str(error)))
        except ValueInvalid as error:
            reporter.wrong("extend", named(path, str(error)))
    elif sides and not is_on(reporter.layer, "image"):
        what = "size: picture is the size of the start image. Add image, or a size."
        reporter.wrong(sides[0], what)
    width, height = (own[s] if len(sides) == 1 and s not in sides else None for s in _SIDES)
    _, most_side, most_pixels = limits = _limits(recipe, known.pictures.most_pixels)
    fitted, is_reduced = fit(size, (width, height), *limits)
    warning, whole, becomes = "", None, f"becomes {fitted[0]}x{fitted[1]}"
    if len(sides) > 1 and fitted != size and recipe.mask and not (extend or recipe.hires):
        whole, becomes = size, f"is drawn in {fitted[0]}x{fitted[1]}, and what is new enlarged"
    if len(sides) > 1 and is_reduced:
        is_setting = most_pixels == known.pictures.most_pixels
        who = "max_picture_megapixels" if is_setting else "this checkpoint"
        most = f"{most_pixels / 1e6:.2g} megapixels, with sides of {most_side}"
        warning = f"A picture of {size[0]}x{size[1]} pixels {becomes}: {who} allows {most} at most."
        reporter.warnings.append(warning)
    taken: dict[str, Any] = {side: fitted[_SIDES.index(side)] for side in sides}
    return recipe.with_values(**taken, picture_size=whole, size_warning=warning)


def _limits(recipe: Recipe, most_pixels: int) -> tuple[int, int, int]:
    """Return the unit of sides, the longest side and the most pixels of a picture's size."""
    rules, scale = recipe.checkpoint_used.rules, recipe.hires.scale if recipe.hires else 1
    most_side = min(fields.MAX_SIDE, int(rules.max_side / scale))
    if recipe.references and rules.references:  # a reference is edited in another size
        return 1, most_side, most_pixels
    return rules.multiple, most_side, min(most_pixels, rules.most_start_pixels or most_pixels)
