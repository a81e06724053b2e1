"""What recipes combine with a checkpoint's family, and what it cannot honour."""

from collections.abc import Iterator
from typing import NamedTuple

from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.prompts.grammar import (
    embedding_words,
    lora_tags,
    parse_attention,
    split_loras,
)
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.installed import NotInstalled, find_lora


class Misfit(NamedTuple):
    """A LoRA or embedding for another family: the field and the words that name it."""

    field: str
    words: str
    message: str


def misfits(recipe: Recipe, checkpoint: Checkpoint, inventory: Inventory) -> Iterator[Misfit]:
    """What the recipe names as written and its checkpoint cannot use; drawn or not."""
    family = checkpoint.family
    if not family:
        return
    loras, embeddings = (
        {name: other for name, other in families.items() if other != family}
        for families in (inventory.lora_families, inventory.embedding_families)
    )
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


def family_warnings(recipe: Recipe, checkpoint: Checkpoint) -> Iterator[str]:
    """What the checkpoint's family does not honour of a recipe that it can render."""
    rules = checkpoint.rules
    if not rules.weighs and any(_weighs(getattr(recipe, field)) for field in PROMPTS):
        yield (
            f"{checkpoint.family} reads prompts as plain text: their weights and BREAK were left "
            "out, the words stayed."
        )
    if recipe.cfg_scale == 1 and recipe.negative_prompt:
        yield "The negative prompt was ignored: it has no effect at cfg_scale 1."
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
        "checkpoint of its family."
    )
