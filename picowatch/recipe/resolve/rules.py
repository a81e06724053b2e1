"""Rules that find values which a recipe's checkpoint, prompts or other values rule out.

A rule takes a resolved recipe and yields findings; a `Reporter` decides what they mean.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import Any

from picowatch.families import FAMILIES
from picowatch.families.row import EULER
from picowatch.recipe import fields, samplers
from picowatch.recipe.inventory import NO_CHECKPOINT, family_called
from picowatch.recipe.messages.problems import NOTHING, Finding, Reporter, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import EDITED, MAX_WARNINGS, cannot_edit, not_multiple_of
from picowatch.recipe.parts import KINDS, OPTIONS, PIXEL_UPSCALERS, UPSCALERS, Cutout
from picowatch.recipe.prompts.drawing import NEGATIVE, installed_tags, mistakes_in
from picowatch.recipe.prompts.editing import edits_in
from picowatch.recipe.prompts.grammar import embedding_words, without_loras
from picowatch.recipe.prompts.wildcards import MAX_LENGTH
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.written import FORBIDDEN, invisible

Rule = Callable[[Recipe], Iterator[Finding]]
# The findings in prompts so far, by field, text and the LoRAs beside it.
FoundInPrompts = dict[tuple[str, str, fields.Loras], list[Finding]]


def with_rules(recipe: Recipe, reporter: Reporter, found: FoundInPrompts) -> Recipe:
    """Return the recipe, with unusable values that somebody else chose replaced."""
    recipe = _applied(partial(_prompts, found), recipe, reporter)
    is_long = max(len(text) for _, text in recipe.texts) > MAX_LENGTH
    for rule in _RULES if not is_long else ():  # too long to read once per image
        recipe = _applied(rule, recipe, reporter)
    return recipe


def _prompts(found: FoundInPrompts, recipe: Recipe) -> Iterator[Finding]:
    """Find what no prompt may contain; sweeps repeat prompts."""
    for place, text in filter(itemgetter(1), recipe.texts):
        field = place.rpartition(".")[2]
        if (key := (field, text, recipe.loras)) not in found:
            found[key] = own = []
            for sign in FORBIDDEN.finditer(text.replace("\n", " ")):
                what = f"{field} contains {invisible(sign[0])}."
                clean = text.replace(sign[0], " " if sign[0].isspace() else "")
                own.append(Finding(field, what, "Remove it.", clean, of_checkpoint=False))
            for mistake in mistakes_in(*key, recipe.inventory):
                without = text.replace(mistake.tag, mistake.instead, 1).strip()
                instead, what = without if mistake.tag else NOTHING, mistake.message
                own.append(Finding(field, what, "", instead, False, used=mistake.used))
        yield from (replace(finding, field=place) for finding in found[key])


def _applied(rule: Rule, recipe: Recipe, reporter: Reporter) -> Recipe:
    """Apply a rule, again after each replaced value: the other values may be fine without it."""
    errors, left = set(), MAX_WARNINGS
    while True:
        for finding in rule(recipe):
            # A hostile picture may have thousands of values to replace: these are errors then.
            finding = finding if left else replace(finding, instead=NOTHING)
            if finding.error not in errors and reporter.replaces(finding):
                recipe, left = recipe.with_value(finding.field, finding.instead), left - 1
                break
            errors.add(finding.error)
        else:
            return recipe


def _vae(recipe: Recipe) -> Iterator[Finding]:
    inventory, family = recipe.inventory, recipe.checkpoint_used.family
    able = [name for name, families in inventory.vae_families.items() if family in families]
    remedy = f"Use {listed([*able, fields.BAKED], 'or')}."
    families = inventory.vae_families.get(recipe.vae, ())
    yield from _misfit(recipe, "VAE", Finding("vae", recipe.vae, remedy, fields.BAKED), families)


def _misfit(
    recipe: Recipe, kind: str, named: Finding, families: Sequence[str]
) -> Iterator[Finding]:
    """Yield the finding, whose message is a file's name, if the file is for other families."""
    checkpoint = recipe.checkpoint_used
    if checkpoint.family and families and checkpoint.family not in families:
        message = (
            f"the {kind} '{shown(named.message)}' is for {listed(families)}, but the checkpoint "
            f"'{shown(checkpoint.name)}' belongs to {checkpoint.family}."
        )
        yield replace(named, message=message)


def _loras(recipe: Recipe) -> Iterator[Finding]:
    """Find LoRAs for other families; a family that the recipe gives overrides the file's."""
    loras: list[tuple[str, str, Any]] = [
        ("loras", name, tuple(pair for pair in recipe.loras if pair[0] != name))
        for name, _ in recipe.loras
    ]
    for field, text in recipe.texts:
        if not field.endswith(NEGATIVE):
            tags = installed_tags(text, recipe.inventory)
            loras += [(field, name, text.replace(tag.written, "", 1).strip()) for tag, name in tags]
    if not loras:
        return
    said = {name: (FAMILIES[key].name,) for name, key in recipe.lora_families.items()}
    key = family_called(recipe.checkpoint_used.family)
    for field, name, without in loras:
        remedy = "Remove the LoRA, or use a checkpoint of its family."
        if key:
            remedy += f" If its file is wrong, write 'loras: {{{shown(name)}: {{family: {key}}}}}'."
        families = said.get(name) or recipe.inventory.lora_families.get(name, ())
        yield from _misfit(recipe, "LoRA", Finding(field, name, remedy, without), families)


def _embeddings(recipe: Recipe) -> Iterator[Finding]:
    """Embeddings are for text encoders of Stable Diffusion, whatever their files say."""
    inventory = recipe.inventory
    remedy = "Remove the embedding, or use a checkpoint of its family."
    usual = ("Stable Diffusion",) if recipe.checkpoint_used.rules.flow else ()
    for field, prompt in recipe.texts:
        text = without_loras(prompt)
        for start, end, name in embedding_words(text, inventory.embeddings):
            named = Finding(field, name, remedy, prompt.replace(text[start:end], "", 1))
            families = inventory.embedding_families.get(name, usual)
            yield from _misfit(recipe, "embedding", named, families)


def _controls(recipe: Recipe) -> Iterator[Finding]:
    """Check each ControlNet; a wrong ControlNet that somebody else chose is left out."""
    for index, control in enumerate(recipe.control):
        for name, message in _mistakes_in_control(recipe, index):
            is_misfit = name == "model" and control.model != ""
            field = f"control.{index}.{name}"
            yield Finding(field, message, instead="", of_checkpoint=is_misfit)


def _mistakes_in_control(recipe: Recipe, index: int) -> Iterator[tuple[str, str]]:
    """Yield the wrong parts of a ControlNet, and the messages about them."""
    control, checkpoint = recipe.control[index], recipe.checkpoint_used
    installed = recipe.inventory.named("controlnet")
    model = installed.get(control.model)
    if not control.image and not recipe.image:
        yield "image", "control has no picture to follow. Write 'image: …' there."
    if not recipe.says(f"control.{index}.model"):
        names = [name for name, controlnet in installed.items() if controlnet.fits(checkpoint)]
        there = f"Installed: {listed(names)}." if names else "None is installed for it."
        yield "model", f"control names no model from models/controlnet. {there}"
    elif model and not checkpoint.rules.flow and not model.fits(checkpoint):
        is_size = model.family == checkpoint.family
        other = "is of another size" if is_size else f"belongs to {checkpoint.family}"
        what = f"the ControlNet '{shown(model.name)}' is for {model.family}, but the checkpoint "
        what += f"'{shown(checkpoint.name)}' {other}."
        yield "model", f"{what} Use a ControlNet of its family, or another checkpoint."
    if control.preprocess == "inpaint" and not recipe.mask:
        what = "'preprocess: inpaint' shows a ControlNet the start image outside the mask."
        yield "preprocess", f"{what} Add image and mask."
    for name, needed in OPTIONS.items():
        if recipe.says(f"control.{index}.{name}") and needed != control.preprocess:
            yield name, f"control {name} has no effect without 'preprocess: {needed}'. Remove it."
    if control.start > control.end:
        yield "start", f"control begins at {control.start:g}, after its end at {control.end:g}."
    kinds = KINDS[: model.kinds] if model else ()
    if model and not kinds and control.kind:
        what = f"the ControlNet '{shown(model.name)}' is not a union: it follows one kind of map."
        yield "kind", f"{what} Remove kind."
    elif kinds and control.kind not in kinds:
        said = f"not '{control.kind}'" if control.kind else "which 'preprocess: none' does not tell"
        what = f"the union ControlNet '{shown(control.model)}' must be told what the map shows"
        yield "kind", f"{what}, {said}. Write 'kind: …' with {listed(kinds, 'or')}."


def _sampler(recipe: Recipe) -> Iterator[Finding]:
    """Check the sampler and its schedule type.

    Only some samplers work for flow models, and only some can begin with pure noise.
    """
    checkpoint, kind, simple = recipe.checkpoint_used, recipe.schedule_type, samplers.SIMPLE
    able, why = checkpoint.rules.samplers, f"{checkpoint.family} has samplers of its own"
    if not checkpoint.rules.flow:
        is_zero = recipe.prediction == fields.ZERO_SNR
        able = tuple(s.name for s in samplers.SAMPLERS if s.zero_snr or not is_zero)
        why = "it cannot begin with pure noise (zero terminal SNR)"
    if recipe.sampler not in able:
        what = f"the sampler {recipe.sampler} cannot be used with '{checkpoint.name}': {why}."
        remedy = f"Use {listed(able, 'or', most=len(able))}, or leave it out."
        yield Finding("sampler", what, remedy, able[0] if checkpoint.rules.flow else EULER)
    what = f"does not take the schedule type '{kind}'"
    if not checkpoint.rules.flow:
        sampler = samplers.sampler_named(recipe.sampler)
        if samplers.decide_schedule_type(sampler, kind) is None:
            takes = listed([samplers.AUTOMATIC, *sampler.schedule_types])
            message = f"{sampler.name} {what}: it takes {takes}."
            yield Finding("schedule_type", message, instead=sampler.automatic)
    # The schedule type of an impossible sampler came with it.
    elif kind not in (samplers.AUTOMATIC, simple) and recipe.sampler in able:
        message = f"{checkpoint.family} {what}: it has a schedule of its own."
        yield Finding("schedule_type", message, f"Remove it, or write {simple}.", simple)


def _clip_skip(recipe: Recipe) -> Iterator[Finding]:
    checkpoint = recipe.checkpoint_used
    most = checkpoint.text_layers
    if not checkpoint.rules.flow and recipe.clip_skip > most:
        what = f"clip_skip {recipe.clip_skip} is too much for the checkpoint '{checkpoint.name}'"
        why = f"its text encoder has {most} layers."
        yield Finding("clip_skip", f"{what}: {why}", f"The limit is {most}.", most)


def _sides(recipe: Recipe) -> Iterator[Finding]:
    """Find sides that the family cannot draw, before and after `hires`."""
    rules, family = recipe.checkpoint_used.rules, recipe.checkpoint_used.family
    most, multiple = rules.max_side, rules.multiple
    if recipe.references and rules.references:
        multiple = 1  # it is rendered in another size, and resized to this size
    width, height = recipe.width or 0, recipe.height or 0
    for field, side in (("width", width), ("height", height)):
        if side > most and recipe.says(field):
            what = f"{field} is {side}; the limit for {family} is {most} pixels."
            yield Finding(field, what, instead=most)
        elif side % multiple and recipe.says(field):
            nearest = max(multiple, side - side % multiple)
            # No checkpoint can draw sides that are not multiples of 8.
            what = not_multiple_of(multiple, field, side)
            yield Finding(field, what, instead=nearest, of_checkpoint=side % 8 == 0)
    sides = recipe.drawn_size
    what = f"hires makes {sides[0]}x{sides[1]} from {recipe.size}"
    if recipe.hires and max(sides) > most:
        what = f"{what}; the limit is {most} pixels a side."
        scale = max(1.0, int(most / max(width, height) * 4) / 4)
        yield Finding("hires.scale", what, "Use a smaller scale or size.", scale)
    elif recipe.hires and any(side % multiple for side in sides):
        what = f"{what}, but {family} needs sides that are multiples of {multiple}."
        whole = float(int(recipe.hires.scale))
        yield Finding("hires.scale", what, "Use another scale or size.", whole)


def _detail(recipe: Recipe) -> Iterator[Finding]:
    rules, family = recipe.checkpoint_used.rules, recipe.checkpoint_used.family
    least, most = fields.MIN_SIDE, min(rules.max_side, fields.MAX_SIDE)
    for index, detail in enumerate(recipe.detail):
        if any(side % rules.multiple or not least <= side <= most for side in detail.sides):
            what = f"detail size is {detail.size}, but {family} draws sides from {least} to "
            what += f"{most} pixels that are multiples of {rules.multiple}."
            yield Finding(f"detail.{index}.size", what, "Leave it out for the usual one.", "")


def _start_image(recipe: Recipe) -> Iterator[Finding]:
    checkpoint = recipe.checkpoint_used
    missing = [field for field in fields.PICTURE_FIELDS if not getattr(recipe, field)]
    if recipe.extend and recipe.mask:
        what = "extend and mask together: extend redraws what is around the picture."
        yield Finding("mask", what, "Remove one of them.", "", of_checkpoint=False)
    elif recipe.extend:
        missing = [field for field in missing if field != "mask"]
    if checkpoint.rules.fills and missing and not recipe.only_details:
        what = f"the checkpoint '{checkpoint.name}' redraws the part of a picture that a mask"
        yield Finding("checkpoint", f"{what} selects.", f"Add {listed(missing, 'and')}.")
    most = checkpoint.rules.most_start_pixels
    if recipe.image and 0 < most < (recipe.width or 0) * (recipe.height or 0):
        what = f"{checkpoint.family} takes start images of at most {most:,} pixels (1024x1024)"
        field = "width" if recipe.says("width") else "image"
        yield Finding(field, f"{what}, but the size is {recipe.size}.", "Use a smaller size.")


def without_unusable(recipe: Recipe, reporter: Reporter) -> Recipe:
    """Return the recipe without what others chose that its checkpoint has no use for.

    Sizes are decided after that: of a picture that is ignored none is taken.
    """
    return _applied(_unusable, recipe, reporter)


def _unusable(recipe: Recipe) -> Iterator[Finding]:
    checkpoint = recipe.checkpoint_used
    takes = checkpoint.rules.references or checkpoint is NO_CHECKPOINT
    if recipe.references and not takes:
        what = f"{checkpoint.family or 'this checkpoint'} takes no references."
        remedy = (
            "Write image for a picture to start from, or use a checkpoint that edits pictures: "
            "FLUX.2, Qwen-Image-Edit, Qwen-Image 2.1 or FLUX.1 Kontext (docs/models.md)."
        )
        variants = recipe.inventory.variants.get(checkpoint.name, {}).values()
        able = [v.name for v in variants if not isinstance(v, str) and v.rules.references]
        if able:  # its file does not tell its variant
            words = listed([f"'checkpoint: {name}'" for name in able], "or")
            remedy = f"If it edits pictures, write {words}. Otherwise w{remedy[1:]}"
        yield Finding("references", what, remedy, ())
    lacks = checkpoint.rules.lacks
    for also, like in (("extend", "mask"), ("detail", "image")):  # margins are drawn as masks
        lacks = {**lacks, also: lacks[like]} if like in lacks else lacks
    for field, why in lacks.items():
        usual = checkpoint.rules.defaults.get(field, fields.DEFAULTS[field])
        if getattr(recipe, field) != usual:
            what = f"{checkpoint.family or 'this checkpoint'} has no {field}: {why}."
            yield Finding(field, what, "Remove it.", usual)


def _references(recipe: Recipe) -> Iterator[Finding]:
    checkpoint, found = recipe.checkpoint_used, recipe.references
    takes = checkpoint.rules.references
    if takes and len(found) > takes.most:
        at_most = "one reference" if takes.most == 1 else f"{takes.most} references"
        what = f"the checkpoint '{checkpoint.name}' takes at most {at_most}, not {len(found)}."
        yield Finding("references", what, "Remove the others.", found[: takes.most])
    elif takes and takes.required and not found:
        what = f"the checkpoint '{checkpoint.name}' edits pictures."
        yield Finding("checkpoint", what, "Add references: a picture, or a list of them.")
    if found and recipe.image:
        what = "image and references together: the picture cannot start from both."
        yield Finding("image", what, "Keep one of them.", "")


def _hires_upscaler(recipe: Recipe) -> Iterator[Finding]:
    """Find a latent upscaler for a flow model, whose latents would be spoilt by enlarging."""
    checkpoint = recipe.checkpoint_used
    name = recipe.hires.upscaler if recipe.hires else ""
    if checkpoint.rules.flow and name in UPSCALERS and name not in PIXEL_UPSCALERS:
        what = f"the upscaler {shown(name)} is for Stable Diffusion's latents."
        able = listed((*PIXEL_UPSCALERS, "a model"), "or")
        remedy = f"With {checkpoint.family} use {able}."
        yield Finding("hires.upscaler", what, remedy, PIXEL_UPSCALERS[0])


def _edits(recipe: Recipe) -> Iterator[Finding]:
    checkpoint = recipe.checkpoint_used
    for field, prompt in recipe.texts if checkpoint.rules.flow else ():
        for words, edit in edits_in(prompt):
            instead = prompt.replace(words, edit.last_words, 1) if words in prompt else NOTHING
            yield Finding(field, cannot_edit(checkpoint.family, words), EDITED, instead)


def mistakes_in_finishing(recipe: Recipe) -> Iterator[Finding]:
    """Check how a picture is enlarged, resized and written."""
    (width, height), before = recipe.size_after_upscale, recipe.size_before_upscale
    most = recipe.most_photo_pixels
    if recipe.upscale and width * height > most:
        limit = f"the limit is {most / 1e6:g} million pixels (max_photo_megapixels)."
        what = f"upscale makes {width}x{height} from {before[0]}x{before[1]}; {limit}"
        scale = int((most / (before[0] * before[1])) ** 0.5 * 4) / 4
        instead = scale if scale >= 1 else NOTHING
        yield Finding("upscale.scale", what, "Use a smaller scale.", instead, of_checkpoint=False)
    yield from _resized(recipe)
    if recipe.quality == "lossless" and recipe.format in ("jpeg", "avif"):
        remedy = "Use webp or png, or a quality from 1 to 100."
        yield Finding("quality", f"{recipe.format} has no lossless.", remedy, "")
    cutout, usual = recipe.cutout, Cutout.confidence
    if cutout and not cutout.find and cutout.confidence != usual:
        what = "cutout confidence has no effect without find."
        yield Finding("cutout.confidence", what, "Add find, or remove confidence.", usual)


def _resized(recipe: Recipe) -> Iterator[Finding]:
    """Check that a size is said, in words that fit together, and is not too large."""
    wanted, place = recipe.resize_to, "resize_to"
    if not wanted:
        return
    for_inside = "longest_side", "shortest_side", "megapixels"
    beside = [name for name in for_inside if getattr(wanted, name)]
    if not (beside or wanted.width or wanted.height):
        what = "says no size."
        remedy = "Write longest_side, shortest_side, width, height or megapixels there."
    elif wanted.fit != "inside" and not (wanted.width and wanted.height):
        place, what = "resize_to.fit", f"with fit: {wanted.fit} needs width and height."
        remedy = "Add both, or remove fit."
    elif wanted.fit != "inside" and beside:
        place = f"resize_to.{beside[0]}"
        what = f"{beside[0]} is for fit: inside; {wanted.fit} has width and height."
        remedy = f"Remove {beside[0]}, or fit."
    else:
        (width, height), most = recipe.published_size, recipe.most_photo_pixels
        if width * height <= most or (width, height) == recipe.size_before_resize:
            return
        limit = f"the limit is {most / 1e6:g} million pixels (max_photo_megapixels)."
        what, remedy = f"makes {width}x{height}; {limit}", "Use a smaller size."
    yield Finding(place, f"resize_to {what}", remedy, of_checkpoint=False)


_RULES: tuple[Rule, ...] = (
    mistakes_in_finishing, _clip_skip, _vae, _loras, _embeddings, _controls,
    _sampler, _edits, _references, _start_image, _sides, _detail, _hires_upscaler,
)  # fmt: skip
