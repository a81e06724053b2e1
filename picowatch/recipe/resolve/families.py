"""What recipes combine with a checkpoint's family, and what it cannot honour."""

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from picowatch.families import FAMILIES
from picowatch.recipe.families import family_called
from picowatch.recipe.fields import BAKED, PROMPTS
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import embedding_missing
from picowatch.recipe.passes import has_steps, is_ever_guided
from picowatch.recipe.prompts.grammar import (
    embedding_words,
    lora_tags,
    parse_attention,
    split_loras,
)
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.hires import PIXEL_UPSCALERS, UPSCALERS
from picowatch.recipe.resolve.installed import (
    EMBEDDINGS,
    MODULE,
    NotInstalled,
    find_hires_upscaler,
    find_lora,
    find_upscaler,
    find_vae,
)
from picowatch.recipe.resolve.layers import names_none
from picowatch.recipe.resolve.loras import said_family
from picowatch.recipe.samplers import (
    AUTOMATIC,
    SIMPLE,
    ScheduleUnknown,
    decide_schedule_type,
    sampler_named,
)
from picowatch.recipe.written import Layer, Written

# Of a picture; a search for all that a hostile one could name would take minutes.
_MOST_EMBEDDINGS = 200


class Misfit(NamedTuple):
    """A VAE, LoRA or embedding for another family: the field and the words that name it."""

    field: str
    words: str
    message: str


def misfits(recipe: Recipe, inventory: Inventory) -> Iterator[Misfit]:
    """What the recipe names as written and its checkpoint cannot use; drawn or not."""
    checkpoint = recipe.installed_checkpoint
    family = checkpoint.family
    if not family:
        return
    others = _other_families(recipe.vae, checkpoint, inventory)
    if others:
        message = _vae_message(recipe.vae, others, checkpoint, inventory)
        yield Misfit("vae", recipe.vae, message)
    said = {name: FAMILIES[key].name for name, key in recipe.lora_families.items()}
    known = {**inventory.lora_families, **said}
    loras = {name: other for name, other in known.items() if other != family}
    embeddings = _other_embeddings(checkpoint, inventory)
    if loras:
        for name, _ in recipe.loras:
            if name in loras:
                yield Misfit("loras", name, _message("LoRA", name, loras[name], checkpoint))
        for tag in lora_tags(recipe.prompt):
            try:
                name = find_lora(tag.name, inventory)
            except NotInstalled:  # reported where prompts are checked
                continue
            if name in loras:
                message = _message("LoRA", name, loras[name], checkpoint)
                yield Misfit("prompt", tag.written, message)
    if embeddings:
        for field in PROMPTS:
            text, _ = split_loras(getattr(recipe, field))
            for start, end, name in embedding_words(text, inventory.embeddings):
                if name in embeddings:
                    message = _message("embedding", name, embeddings[name], checkpoint)
                    yield Misfit(field, text[start:end], message)


def _other_families(vae: str, checkpoint: Checkpoint, inventory: Inventory) -> tuple[str, ...]:
    """The names of the families that a VAE is for; () if the checkpoint's is one of them."""
    families = inventory.vae_families.get(vae, ())
    return () if checkpoint.family in ("", *families) else families


def _other_embeddings(checkpoint: Checkpoint, inventory: Inventory) -> dict[str, str]:
    """Embeddings for other families than the checkpoint's, and these families.

    They are for text encoders of Stable Diffusion, whatever their files say.
    """
    families = dict(inventory.embedding_families)
    if checkpoint.rules.flow:
        families = dict.fromkeys(inventory.embeddings, "Stable Diffusion") | families
    return {name: own for name, own in families.items() if checkpoint.family not in ("", own)}


def _vae_message(
    vae: str, families: tuple[str, ...], checkpoint: Checkpoint, inventory: Inventory
) -> str:
    able = [name for name, found in inventory.vae_families.items() if checkpoint.family in found]
    return (
        f"the VAE '{shown(vae)}' is for {listed(families)}, but the checkpoint "
        f"'{shown(checkpoint.name)}' belongs to {checkpoint.family}. Use "
        f"{listed([*able, BAKED], 'or')}."
    )


class Borrowed:
    """The `fields` of a layer that a picture or another program said.

    Whoever starts from them did not write them, and could not remove them.
    """

    def __init__(
        self, fields: Collection[str], layer: Layer, checkpoint: Checkpoint, inventory: Inventory
    ) -> None:
        self._fields = fields
        self._layer = layer
        self._checkpoint = checkpoint
        self._inventory = inventory

    def set_aside(self) -> Iterator[str]:
        """Take out what the checkpoint cannot have, and what is not here, with warnings."""
        yield from self._take_module()
        yield from self._take_embeddings()
        yield from self._lacking()
        if self._checkpoint.rules.flow:
            yield from self._sampling()
        else:
            yield from self._schedule_type()
        yield from self._vae()
        yield from self._loras()
        yield from self._embeddings()
        yield from self._upscalers()

    def _written(self, field: str) -> Written | None:
        return self._layer.get(field) if field in self._fields else None

    def _text(self, field: str) -> str | None:
        written = self._written(field)
        return written.value if written and isinstance(written.value, str) else None

    def _take_module(self) -> Iterator[str]:
        """Forge's module becomes the VAE, if it is one for the checkpoint and none is named."""
        written = self._layer.pop(MODULE, None)
        if written is None or "vae" in self._layer:
            return
        name = str(written.value)
        try:
            warning = self._vae_left_out(name)
        except NotInstalled:
            warning = (
                f"There is no VAE '{shown(name)}' in models/vae; the checkpoint's own is used "
                "instead."
            )
        if warning:
            yield warning
        else:
            self._layer["vae"] = written

    def _take_embeddings(self) -> Iterator[str]:
        """Those that the prompts name, but that are not here: their words stay as words."""
        written = self._layer.pop(EMBEDDINGS, None)
        if written is None or self._checkpoint.rules.flow:
            return
        entries = str(written.value).split(",")[:_MOST_EMBEDDINGS]
        names = [entry.partition(":")[0].strip() for entry in entries]
        here = (*self._inventory.embeddings, *self._inventory.refused_embeddings)
        words = {name.rpartition("/")[2].casefold() for name in here}
        away = tuple(one for one in names if one.rpartition("/")[2].casefold() not in {"", *words})
        for field in PROMPTS:
            text = split_loras(self._text(field) or "")[0]
            for name in sorted({name for *_, name in embedding_words(text, away)}):
                yield embedding_missing(name)

    def _lacking(self) -> Iterator[str]:
        family = self._checkpoint.family or "this checkpoint"
        for field, why in self._checkpoint.rules.lacks.items():
            written = self._written(field)
            usual = (self._checkpoint.rules.default(field), None, False)
            if written and written.value not in usual and not names_none(written):
                del self._layer[field]
                yield f"{field} was ignored: {family} has none. {why[0].upper()}{why[1:]}."

    def _sampling(self) -> Iterator[str]:
        """What steps along noise, and is enlarged as latents of Stable Diffusion."""
        family, samplers = self._checkpoint.family, self._checkpoint.rules.samplers
        sampler, schedule_type, upscaler = map(
            self._text, ("sampler", "schedule_type", "hires.upscaler")
        )
        if sampler and sampler not in samplers:
            del self._layer["sampler"]
            yield (
                f"The sampler {sampler} was replaced by {samplers[0]}: {family} steps along a flow."
            )
        if schedule_type not in (None, AUTOMATIC, SIMPLE):
            del self._layer["schedule_type"]
            yield (
                f"The schedule type {schedule_type} was ignored: {family} has a schedule of its "
                "own."
            )
        if upscaler in UPSCALERS and upscaler not in PIXEL_UPSCALERS:
            del self._layer["hires.upscaler"]
            yield (
                f"The upscaler {shown(upscaler)} was replaced by {PIXEL_UPSCALERS[0]}: it is for "
                "Stable Diffusion's latents."
            )

    def _schedule_type(self) -> Iterator[str]:
        """One that the sampler does not take."""
        sampler, written = self._layer.get("sampler"), self._written("schedule_type")
        if sampler and written:
            try:
                decide_schedule_type(sampler_named(str(sampler.value)), str(written.value))
            except ScheduleUnknown as error:
                self._layer["schedule_type"] = replace(written, value=error.instead)
                yield f"{error} {error.instead.capitalize()} is used instead."

    def _vae(self) -> Iterator[str]:
        """One for other families than the checkpoint's, which then decodes with its own."""
        name = self._text("vae")
        with suppress(NotInstalled):  # reported where the VAE is looked up
            if name is not None and (warning := self._vae_left_out(name)):
                del self._layer["vae"]
                yield warning

    def _vae_left_out(self, written: str) -> str:
        """That it is for other families than the checkpoint's; "" if not. Raises NotInstalled."""
        name = find_vae(written, self._inventory)
        families = _other_families(name, self._checkpoint, self._inventory)
        if not families:
            return ""
        return f"The VAE '{shown(name)}' was left out: it is for {listed(families)}."

    def _loras(self) -> Iterator[str]:
        """Those for other families than the checkpoint's, of the prompt and beside it."""
        text, loras = self._text("prompt"), self._written("loras")
        if text is not None:
            for tag in lora_tags(text):
                if family := self._other_family(tag.name):
                    text = text.replace(tag.written, "", 1).strip()
                    self._layer["prompt"] = replace(self._layer["prompt"], value=text)
                    yield _left_out("LoRA", tag.name, family)
        if loras and loras.pairs:
            others = {n: family for n, use in loras.pairs if (family := self._other_family(n, use))}
            kept = tuple(pair for pair in loras.pairs if pair[0] not in others)
            self._layer["loras"] = loras.with_pairs(kept)
            yield from (_left_out("LoRA", name, family) for name, family in others.items())

    def _embeddings(self) -> Iterator[str]:
        """Words that stand for embeddings for other families than the checkpoint's."""
        others = _other_embeddings(self._checkpoint, self._inventory)
        for field in PROMPTS if others else ():
            text = self._text(field) or ""
            tags = [range(tag.offset, tag.offset + len(tag.written)) for tag in lora_tags(text)]
            words = embedding_words(text, self._inventory.embeddings)
            named = [
                (start, end, name)
                for start, end, name in words
                if name in others and not any(start in tag for tag in tags)
            ]
            for start, end, _ in reversed(named):
                text = text[:start] + text[end:]
                self._layer[field] = replace(self._layer[field], value=text)
            for name in dict.fromkeys(name for *_, name in named):
                yield _left_out("embedding", name, others[name])

    def _other_family(self, lora: str, use: Written | None = None) -> str:
        try:
            name = find_lora(lora, self._inventory)
        except NotInstalled:  # reported where LoRAs are looked up
            return ""
        said = said_family(use) if use else ""
        family = FAMILIES[said].name if said else self._inventory.lora_families.get(name, "")
        return "" if self._checkpoint.family in ("", family) else family

    def _upscalers(self) -> Iterator[str]:
        """Those that are not here."""
        finders = {"hires.upscaler": find_hires_upscaler, "upscale.model": find_upscaler}
        for field, find in finders.items():
            name = self._text(field)
            if name is None:
                continue
            try:
                find(name, self._inventory)
            except NotInstalled:
                what = f"the upscaler '{shown(name)}' is not in models/upscalers"
                written = self._layer.pop(field)
                if field == "hires.upscaler":
                    self._layer[field] = replace(written, value=PIXEL_UPSCALERS[0])
                    yield f"{what}; {PIXEL_UPSCALERS[0]} is used instead."
                else:
                    self._layer["upscale"] = replace(written, value=False)
                    yield f"upscale was left out: {what}."


def _left_out(kind: str, name: str, family: str) -> str:
    return f"The {kind} '{shown(name)}' was left out: it is for {family}."


def family_warnings(recipe: Recipe) -> Iterator[str]:
    """What the checkpoint's family does not honour of a recipe that it can render."""
    checkpoint = recipe.installed_checkpoint
    rules = checkpoint.rules
    if not rules.weighs and any(_weighs(getattr(recipe, field)) for field in PROMPTS):
        yield (
            f"{checkpoint.family} reads prompts as plain text: their weights and BREAK were left "
            "out, the words stayed."
        )
    if recipe.cfg_scale == 1 and recipe.negative_prompt:
        yield "The negative prompt was ignored: it has no effect at cfg_scale 1."
    elif recipe.cfg_scale > 1 and has_steps(recipe) and not is_ever_guided(recipe):
        ignored = " and the negative prompt were" if recipe.negative_prompt else " was"
        yield (
            f"cfg_scale{ignored} ignored: cfg_start {recipe.cfg_start:g} and cfg_end "
            f"{recipe.cfg_end:g} leave no step with guidance."
        )
    if recipe.ensd and not rules.flow and not sampler_named(recipe.sampler).noisy:
        yield f"ensd was ignored: the steps of {recipe.sampler} draw no noise."
    if not rules.guided and recipe.cfg_scale > 1:
        yield (
            f"The checkpoint '{shown(checkpoint.name)}' was trained for cfg_scale 1: a higher one "
            "takes longer, and may change nothing or make pictures worse."
        )


def _weighs(prompt: str) -> bool:
    text, _ = split_loras(prompt)
    return any(weight != 1 for _, weight in parse_attention(text))


def _message(kind: str, name: str, family: str, checkpoint: Checkpoint) -> str:
    return (
        f"the {kind} '{shown(name)}' is for {family}, but the checkpoint "
        f"'{shown(checkpoint.name)}' belongs to {checkpoint.family}. Remove the {kind}, or use a "
        f"checkpoint of its family.{_overruling(kind, name, checkpoint)}"
    )


def _overruling(kind: str, name: str, checkpoint: Checkpoint) -> str:
    """How to say that a LoRA is for the checkpoint's family, whatever its file says."""
    key = family_called(checkpoint.family) if kind == "LoRA" else ""
    if not key:
        return ""
    return f" If its file is wrong, write 'loras: {{{shown(name)}: {{family: {key}}}}}'."
