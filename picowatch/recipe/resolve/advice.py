"""Advice about what is drawn, but perhaps not as it was meant: warnings, never errors."""

import re
from collections.abc import Iterator, Sequence

from picowatch.recipe.fields import PROMPTS, ROWS
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import MAX_WARNINGS, embedding_missing
from picowatch.recipe.passes import has_steps, is_ever_guided
from picowatch.recipe.prompts.grammar import (
    embedding_words,
    parse_attention,
    probable_mistakes,
    split_loras,
)
from picowatch.recipe.prompts.known_words import unknown_words
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.written import Layer, Origin, Written

_V_PREDICTION = re.compile(r"(?i)v[-_ ]?pred")
_MOST_CHARACTERS = 100_000  # of prompts in which unknown words are looked for
# Of a picture; a search for all that a hostile one could name would take minutes.
_MOST_EMBEDDINGS = 200


def advice(
    images: Sequence[Recipe], own: Layer, layer: Layer, inventory: Inventory
) -> Iterator[str]:
    """Sentences about an entry's images; `own` is what the file says, `layer` all that holds."""
    yield from images[0].refused_embeddings()
    yield from _probable_mistakes(own)
    yield from _ignored_by_samplers(images, layer)
    for recipe in images:
        yield from recipe.warnings
        if recipe.draws:
            yield from checkpoint_advice(recipe)
    yield from _doubtful_predictions(images, inventory)


def missing_embeddings(
    written: Written, layer: Layer, checkpoint: Checkpoint, inventory: Inventory
) -> Iterator[str]:
    """Embeddings that a picture names, but that are not here: their words stay as words.

    `layer` has the prompts that the picture's are used as, if they are.
    """
    if checkpoint.rules.flow:
        return
    entries = str(written.value).split(",")[:_MOST_EMBEDDINGS]
    names = [entry.partition(":")[0].strip() for entry in entries]
    here = (*inventory.embeddings, *inventory.refused_embeddings)
    words = {name.rpartition("/")[2].casefold() for name in here}
    away = tuple(one for one in names if one.rpartition("/")[2].casefold() not in {"", *words})
    for field in PROMPTS:
        text = split_loras(layer[field].text)[0] if field in layer else ""
        yield from map(
            embedding_missing, sorted({name for *_, name in embedding_words(text, away)})
        )


def with_unknown_words(recipes: list[Recipe], inventory: Inventory) -> list[Recipe]:
    """Add one warning about words that the demo model was not taught.

    LoRAs teach words of their own.
    """
    demo = inventory.demo
    if demo.known_words is None:
        return recipes
    known = demo.known_words.and_names(inventory.embeddings)
    unknown: list[str] = []
    left = _MOST_CHARACTERS
    seen: set[str] = set()
    for variant in (variant for recipe in recipes for variant in recipe.variants):
        prompt = variant.prompt
        if left <= 0:
            break
        if prompt in seen or not variant.draws or variant.checkpoint != demo.name:
            continue
        seen.add(prompt)
        left -= len(prompt)
        if not variant.names_loras:
            unknown += known.unknown_in(prompt)
    if unknown:
        said = unknown_words(demo.name, known, unknown)
        recipes[0] = recipes[0].warned([*recipes[0].warnings, said])
    return recipes


def checkpoint_advice(recipe: Recipe) -> Iterator[str]:
    """Say what its family does not honour of a recipe that it can render."""
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
    if not rules.guided and recipe.cfg_scale > 1:
        yield (
            f"The checkpoint '{shown(checkpoint.name)}' was trained for cfg_scale 1: a higher one "
            "takes longer, and may change nothing or make pictures worse."
        )


def _weighs(prompt: str) -> bool:
    text, _ = split_loras(prompt)
    return any(weight != 1 for _, weight in parse_attention(text))


def _ignored_by_samplers(images: Sequence[Recipe], layer: Layer) -> Iterator[str]:
    """Fields that only other samplers look at."""
    for field, row in ROWS.items():
        if not row.samplers or field not in layer or layer[field].origin is not Origin.OWN:
            continue
        samplers = {recipe.sampler for recipe in images if getattr(recipe, field)}
        if samplers and samplers.isdisjoint(row.samplers):
            yield (
                f"{field} has no effect with the sampler {listed(sorted(samplers))}: it is for "
                f"{listed(row.samplers)}."
            )


def _probable_mistakes(own: Layer) -> list[str]:
    texts = [own[field].text for field in PROMPTS if field in own]
    return [mistake for text in texts for mistake in probable_mistakes(text)][:MAX_WARNINGS]


def _doubtful_predictions(images: Sequence[Recipe], inventory: Inventory) -> list[str]:
    """Checkpoints whose names say v-prediction, but not their files: their pictures are noise."""
    silent = {one.name for one in inventory.checkpoints if not one.says_prediction}
    names = {recipe.checkpoint: None for recipe in images if not recipe.prediction}
    return [
        f"the checkpoint '{shown(name)}' says v-prediction only in its name. If its pictures are "
        "noise, write 'prediction: v_zero_snr' or 'prediction: v'."
        for name in names
        if name in silent and _V_PREDICTION.search(name)
    ]
