"""The rules: what a recipe's checkpoint, its prompts and its other values rule out.

A rule takes a resolved recipe and gives findings; what they mean is decided in severity.py.
"""

from collections.abc import Callable, Iterator

from picowatch.families import FAMILIES
from picowatch.recipe.fields import (
    BAKED,
    MAX_UPSCALED_PIXELS,
    PICTURE_FIELDS,
    PROMPTS,
    ZERO_SNR,
    Loras,
)
from picowatch.recipe.inventory import Checkpoint, Inventory, family_called
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import not_multiple_of
from picowatch.recipe.parts import PIXEL_UPSCALERS, UPSCALERS
from picowatch.recipe.prompts.grammar import Mistake, embedding_words, lora_tags, split_loras
from picowatch.recipe.prompts.wildcards import MAX_LENGTH
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.control import controls_fit
from picowatch.recipe.resolve.edits import edit_findings
from picowatch.recipe.resolve.installed import NotInstalled, find_lora
from picowatch.recipe.resolve.prompts import mistakes_in
from picowatch.recipe.resolve.severity import NOTHING, Finding, Judge
from picowatch.recipe.samplers import (
    AUTOMATIC,
    SAMPLERS,
    SIMPLE,
    ScheduleUnknown,
    decide_schedule_type,
    sampler_named,
)
from picowatch.recipe.written import FORBIDDEN, invisible

Rule = Callable[[Recipe], Iterator[Finding]]


class Rules:
    """Applies the rules to the recipes of one file.

    Sweeps and defaults repeat prompts: one that was looked through is not read again.
    """

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._mistakes: dict[tuple[object, ...], list[Mistake]] = {}
        self._misfits: dict[tuple[object, ...], list[Finding]] = {}

    def applied(self, recipe: Recipe, judge: Judge) -> Recipe:
        """The recipe with what is used instead of values that somebody else chose."""
        for rule in (self._prompts, *_ALWAYS):
            recipe = _applied(rule, recipe, judge)
        if recipe.says("prompt"):  # without one the recipe is refused anyway
            for rule in (self._files, *_OF_CHECKPOINT):
                recipe = _applied(rule, recipe, judge)
        return recipe

    def _mistakes_in(self, field: str, text: str, loras: Loras) -> list[Mistake]:
        key = (field, text, loras)
        if key not in self._mistakes:
            self._mistakes[key] = mistakes_in(field, text, loras, self._inventory)
        return self._mistakes[key]

    def _prompts(self, recipe: Recipe) -> Iterator[Finding]:
        """Find what no prompt may hold."""
        for field in PROMPTS:
            text = getattr(recipe, field)
            is_short = len(text) <= MAX_LENGTH  # else a sweep reads a megabyte again and again
            for found in FORBIDDEN.finditer(text.replace("\n", " ")) if is_short else ():
                without = text.replace(found[0], "")
                what = f"{field} contains {invisible(found[0])}."
                yield Finding(field, what, "Remove it.", without, of_checkpoint=False)
            tags = {tag.written for tag in lora_tags(text)} if is_short else set()
            mistakes = self._mistakes_in(field, text, recipe.loras)
            for mistake in mistakes:
                start, end = mistake.offset, mistake.offset + mistake.length
                is_tag = text[start:end] in tags
                without = (text[:start] + text[end:]).strip() if is_tag else NOTHING
                yield Finding(field, mistake.message, "", without, of_checkpoint=False)

    def _files(self, recipe: Recipe) -> Iterator[Finding]:
        """A VAE, LoRAs and embeddings for another family than the checkpoint's."""
        named = recipe.prompt, recipe.negative_prompt, recipe.loras
        key = (recipe.checkpoint, recipe.vae, *named, *recipe.lora_families.items())
        if key not in self._misfits:
            self._misfits[key] = list(_misfits(recipe, self._inventory))
        yield from self._misfits[key]


def _applied(rule: Rule, recipe: Recipe, judge: Judge) -> Recipe:
    """Begin again after each value that is replaced: the others may be fine without it."""
    errors = set()
    while True:
        for finding in rule(recipe):
            if finding.error not in errors and judge.replaces(finding):
                recipe = recipe.with_value(finding.field, finding.instead)
                break
            errors.add(finding.error)
        else:
            return recipe


def _misfits(recipe: Recipe, inventory: Inventory) -> Iterator[Finding]:
    checkpoint = recipe.installed_checkpoint
    if checkpoint.family:
        yield from _misfit_vae(recipe, inventory)
        yield from _misfit_loras(recipe, inventory)
        yield from _misfit_embeddings(recipe, inventory)


def _misfit_vae(recipe: Recipe, inventory: Inventory) -> Iterator[Finding]:
    families = inventory.vae_families.get(recipe.vae, ())
    family = recipe.installed_checkpoint.family
    if families and family not in ("", *families):
        able = [name for name, found in inventory.vae_families.items() if family in found]
        what = _is_for("VAE", recipe.vae, listed(families), recipe.installed_checkpoint)
        yield Finding("vae", what, f"Use {listed([*able, BAKED], 'or')}.", BAKED)


def _misfit_loras(recipe: Recipe, inventory: Inventory) -> Iterator[Finding]:
    """LoRAs of the field and of the prompt's tags; what a recipe says of one holds."""
    checkpoint = recipe.installed_checkpoint
    said = {name: FAMILIES[key].name for name, key in recipe.lora_families.items()}
    families = {**inventory.lora_families, **said}
    others = {name: one for name, one in families.items() if one not in ("", checkpoint.family)}
    for name, _ in recipe.loras if others else ():
        if name in others:
            kept = tuple(pair for pair in recipe.loras if pair[0] != name)
            what = _is_for("LoRA", name, others[name], checkpoint)
            yield Finding("loras", what, _other_lora(name, checkpoint), kept)
    for tag in lora_tags(recipe.prompt) if others else ():
        try:
            name = find_lora(tag.name, inventory)
        except NotInstalled:  # a mistake of the prompt
            continue
        if name in others:
            without = recipe.prompt.replace(tag.written, "", 1).strip()
            what = _is_for("LoRA", name, others[name], checkpoint)
            yield Finding("prompt", what, _other_lora(name, checkpoint), without)


def _misfit_embeddings(recipe: Recipe, inventory: Inventory) -> Iterator[Finding]:
    """Embeddings are for text encoders of Stable Diffusion, whatever their files say."""
    checkpoint = recipe.installed_checkpoint
    families = dict(inventory.embedding_families)
    if checkpoint.rules.flow:
        families = dict.fromkeys(inventory.embeddings, "Stable Diffusion") | families
    others = {name: one for name, one in families.items() if one not in ("", checkpoint.family)}
    for field in PROMPTS if others else ():
        prompt = getattr(recipe, field)
        text, _ = split_loras(prompt)
        for start, end, name in embedding_words(text, inventory.embeddings):
            if name in others:
                without = prompt.replace(text[start:end], "", 1)
                what = _is_for("embedding", name, others[name], checkpoint)
                remedy = "Remove the embedding, or use a checkpoint of its family."
                yield Finding(field, what, remedy, without)


def _is_for(kind: str, name: str, family: str, checkpoint: Checkpoint) -> str:
    return (
        f"the {kind} '{shown(name)}' is for {family}, but the checkpoint "
        f"'{shown(checkpoint.name)}' belongs to {checkpoint.family}."
    )


def _other_lora(name: str, checkpoint: Checkpoint) -> str:
    """The remedy for a LoRA of another family, and how to say that its file is wrong."""
    remedy = "Remove the LoRA, or use a checkpoint of its family."
    if key := family_called(checkpoint.family):
        remedy += f" If its file is wrong, write 'loras: {{{shown(name)}: {{family: {key}}}}}'."
    return remedy


def _lacks(recipe: Recipe) -> Iterator[Finding]:
    """Fields that the checkpoint's family has no use for."""
    checkpoint = recipe.installed_checkpoint
    for field, why in checkpoint.rules.lacks.items():
        usual = checkpoint.rules.default(field)
        if getattr(recipe, field) != usual:
            what = f"{checkpoint.family or 'this checkpoint'} has no {field}: {why}."
            yield Finding(field, what, "Remove it.", usual)


def _sampler(recipe: Recipe) -> Iterator[Finding]:
    """Check the sampler: only some step along a flow, only some can begin with pure noise."""
    checkpoint = recipe.installed_checkpoint
    able = checkpoint.rules.samplers
    if checkpoint.rules.flow:
        if recipe.sampler not in able:
            why = f"{checkpoint.family} has a sampler of its own"
            if len(able) > 1:
                why = f"it steps along noise, but {checkpoint.family} steps along a flow"
            what = f"the sampler {recipe.sampler} cannot be used: {why}."
            yield Finding("sampler", what, f"Use {listed(able, 'or')}, or leave it out.", able[0])
        return
    zero_snr = recipe.prediction == ZERO_SNR if recipe.prediction else checkpoint.zero_snr
    if zero_snr and not sampler_named(recipe.sampler).zero_snr:
        able = tuple(one.name for one in SAMPLERS if one.zero_snr)
        why = f"which the checkpoint '{checkpoint.name}' is trained on"
        if recipe.prediction:
            why = f"as 'prediction: {ZERO_SNR}' demands"
        what = (
            f"the sampler {recipe.sampler} cannot begin with pure noise, {why} (zero terminal SNR)."
        )
        yield Finding("sampler", what, f"Use {listed(able, 'or', most=len(able))}.", able[0])


def _schedule_type(recipe: Recipe) -> Iterator[Finding]:
    checkpoint = recipe.installed_checkpoint
    if checkpoint.rules.flow:
        is_wrong = recipe.schedule_type not in (AUTOMATIC, SIMPLE)
        # That of an impossible sampler came with it.
        if is_wrong and recipe.sampler in checkpoint.rules.samplers:
            what = (
                f"{checkpoint.family} does not take the schedule type '{recipe.schedule_type}': it "
                "has a schedule of its own."
            )
            yield Finding("schedule_type", what, f"Remove it, or write {SIMPLE}.", SIMPLE)
        return
    sampler = sampler_named(recipe.sampler)
    try:
        decide_schedule_type(sampler, recipe.schedule_type)
    except ScheduleUnknown as error:
        yield Finding("schedule_type", str(error), instead=sampler.automatic)


def _clip_skip(recipe: Recipe) -> Iterator[Finding]:
    checkpoint = recipe.installed_checkpoint
    most = checkpoint.text_layers
    if checkpoint.rules.weighs and recipe.clip_skip > most:
        what = (
            f"clip_skip {recipe.clip_skip} is too much for the checkpoint '{checkpoint.name}': its "
            f"text encoder has {most} layers."
        )
        yield Finding("clip_skip", what, f"The limit is {most}.", most)


def _sides(recipe: Recipe) -> Iterator[Finding]:
    """Sides that the family cannot draw; of those before `hires` first."""
    rules, family = recipe.installed_checkpoint.rules, recipe.installed_checkpoint.family
    most = rules.max_side
    sides = {"width": recipe.width or 0, "height": recipe.height or 0}
    for field, side in sides.items():
        if side > most and recipe.says(field):
            what = f"{field} is {side}; the limit for {family} is {most} pixels."
            yield Finding(field, what, instead=most)
            return
    width, height = recipe.size_before_upscale
    if recipe.hires and max(width, height) > most:
        what = f"hires makes {width}x{height} of {recipe.size}; the limit is {most} pixels a side."
        scale = int(most / max(sides.values()) * 4) / 4
        yield Finding("hires.scale", what, "Use a smaller scale or size.", max(1.0, scale))


def _multiples(recipe: Recipe) -> Iterator[Finding]:
    rules, family = recipe.installed_checkpoint.rules, recipe.installed_checkpoint.family
    multiple = 1 if recipe.references and rules.references else rules.multiple
    for field, side in (("width", recipe.width or 0), ("height", recipe.height or 0)):
        if side % multiple and recipe.says(field):
            nearest = max(multiple, side - side % multiple)
            yield Finding(field, not_multiple_of(multiple, field, side), instead=nearest)
    width, height = recipe.size_before_upscale
    if recipe.hires and (width % multiple or height % multiple):
        what = (
            f"hires makes {width}x{height} of {recipe.size}, but {family} has sides that are "
            f"multiples of {multiple}."
        )
        whole = float(int(recipe.hires.scale))
        yield Finding("hires.scale", what, "Use another scale or size.", whole)


def _start_image(recipe: Recipe) -> Iterator[Finding]:
    checkpoint = recipe.installed_checkpoint
    missing = [field for field in PICTURE_FIELDS if not getattr(recipe, field)]
    if checkpoint.rules.fills and missing:
        what = (
            f"the checkpoint '{checkpoint.name}' redraws the part of a picture that a mask shows."
        )
        yield Finding("checkpoint", what, f"Add {listed(missing, 'and')}.")
    most = checkpoint.rules.most_start_pixels
    if recipe.image and 0 < most < (recipe.width or 0) * (recipe.height or 0):
        what = (
            f"{checkpoint.family} takes start images of at most {most:,} pixels (1024x1024), but "
            f"the size is {recipe.size}."
        )
        yield Finding("width" if recipe.says("width") else "image", what, "Use a smaller size.")


def _references(recipe: Recipe) -> Iterator[Finding]:
    """Reference pictures: too many, with a checkpoint that takes none, or none where it edits."""
    checkpoint, found = recipe.installed_checkpoint, recipe.references
    takes = checkpoint.rules.references
    if found and not takes:
        what = f"{checkpoint.family or 'this checkpoint'} takes no references."
        remedy = (
            "Write image for a picture to start from, or use a checkpoint that edits pictures, as "
            "FLUX.2 klein, Qwen-Image-Edit or FLUX.1 Kontext (docs/models.md)."
        )
        yield Finding("references", what, remedy, ())
    elif takes and len(found) > takes.most:
        at_most = "one reference" if takes.most == 1 else f"{takes.most} references"
        what = f"{checkpoint.family} takes at most {at_most}, not {len(found)}."
        yield Finding("references", what, "Remove the others.", found[: takes.most])
    elif takes and takes.required and not found:
        what = f"the checkpoint '{checkpoint.name}' edits pictures."
        yield Finding("checkpoint", what, "Add references: a picture, or a list of them.")
    if found and recipe.image:
        what = "image and references together: the picture cannot start from both."
        yield Finding("image", what, "Keep one of them.", "")


def _hires_upscaler(recipe: Recipe) -> Iterator[Finding]:
    """Latents of a flow do not stand enlarging; pixels do."""
    checkpoint = recipe.installed_checkpoint
    name = recipe.hires.upscaler if recipe.hires else ""
    if checkpoint.rules.flow and name in UPSCALERS and name not in PIXEL_UPSCALERS:
        what = f"the upscaler {shown(name)} is for Stable Diffusion's latents."
        able = listed((*PIXEL_UPSCALERS, "a model"), "or")
        remedy = f"With {checkpoint.family} use {able}."
        yield Finding("hires.upscaler", what, remedy, PIXEL_UPSCALERS[0])


def upscaled_size(recipe: Recipe) -> Iterator[Finding]:
    """Check the size that is published, whether anything is drawn for it or not."""
    width, height = recipe.published_size
    if recipe.upscale and width * height > MAX_UPSCALED_PIXELS:
        before = recipe.size_before_upscale
        what = (
            f"upscale makes {width}x{height} of {before[0]}x{before[1]}; the limit is "
            f"{MAX_UPSCALED_PIXELS // 1_000_000} million pixels."
        )
        scale = int((MAX_UPSCALED_PIXELS / (before[0] * before[1])) ** 0.5 * 4) / 4
        instead = scale if scale >= 1 else NOTHING
        yield Finding("upscale.scale", what, "Use a smaller scale.", instead, of_checkpoint=False)


def _edits(recipe: Recipe) -> Iterator[Finding]:
    if not recipe.installed_checkpoint.rules.weighs:
        wildcards = recipe.inventory.wildcards
        family = recipe.installed_checkpoint.family
        for field in PROMPTS:
            yield from edit_findings(field, getattr(recipe, field), family, wildcards)


_ALWAYS: tuple[Rule, ...] = (_sides, upscaled_size, _clip_skip)
_OF_CHECKPOINT: tuple[Rule, ...] = (
    controls_fit,
    _lacks,
    _sampler,
    _schedule_type,
    _edits,
    _references,
    _start_image,
    _multiples,
    _hires_upscaler,
)
