"""LoRAs and embeddings belong to the family of the checkpoint that they are used with."""

from collections.abc import Iterator
from typing import NamedTuple

from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.prompts.grammar import embedding_words, lora_tags, split_loras
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


def _message(kind: str, name: str, family: str, checkpoint: Checkpoint) -> str:
    return (
        f"the {kind} '{shown(name)}' is for {family}, but the checkpoint "
        f"'{shown(checkpoint.name)}' belongs to {checkpoint.family}. Remove the {kind}, or use a "
        "checkpoint of its family."
    )
