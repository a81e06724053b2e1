"""Embeddings that a prompt names, but that are not installed: its words would only be words."""

import json
from dataclasses import replace

import pytest

from picowatch.recipe import Checkpoint, Inventory
from picowatch.recipe.inventory import rules_of
from picowatch.recipe.request import EmbeddingUse
from tests.metadata.requests import CORGI
from tests.recipe.reading import DEMO, PicturesWith, read_one

INVENTORY = Inventory(
    demo=DEMO,
    embeddings=("xl/negativeXL", "bad hands 5", "style(v2)"),
    refused_embeddings={"old": "old.pt is a pickle file."},
)
PASTED = "a cat\nNegative prompt: (EasyNeg:1.2), negativeXL\nSteps: 3, Sampler: Euler, {}"


def missing(*names: str) -> tuple[str, ...]:
    return tuple(
        f"The prompt's '{name}' is used as plain words, because no embedding of that name is in "
        "models/embeddings."
        for name in names
    )


def test_comfyuis_word_for_an_embedding_is_a_warning_without_one() -> None:
    """Wherever it stands; a wildcard may name one that is there."""
    recipe = read_one(
        "prompt: a cat, (embedding:lost.pt:1.2), embedding:bad hands 5, embedding:negativeXL.pt\n"
        "negative_prompt: embedding:{negativeXL|bad hands 5}, embedding:xl/negativeXL",
        inventory=INVENTORY,
    )
    assert recipe.warnings == missing("embedding:lost.pt")


@pytest.mark.parametrize("key", ["TI hashes", "Embeddings"])
def test_a1111s_text_names_those_that_were_used(key: str) -> None:
    """SD.Next has another key. What the prompt does not name was another image's."""
    value = '"easyneg: c74b4e810b03, negativeXL: 0123456789ab, old: 00, other: 11"'
    text = PASTED.format(f"{key}: {value}, Version: 1.10.1")
    assert read_one(text, "corgi.txt", INVENTORY).warnings == missing("easyneg")
    (refused,) = read_one("prompt: an old cat", inventory=INVENTORY).warnings
    assert "old.pt is a pickle file" in refused


def test_a_picture_of_picowatchs_own_says_what_is_gone() -> None:
    """A file may have moved to another folder; a prompt of the recipe's own needs none of them."""
    request = replace(
        CORGI,
        prompt="a cat",
        negative_prompt="easyneg, negativeXL",
        checkpoint="demo",
        embeddings=(EmbeddingUse("neg/easyneg", "a" * 64), EmbeddingUse("negativeXL", "b" * 64)),
    )
    chunk = json.dumps({"format": 1, "request": request.as_dict()})
    pictures = PicturesWith(lambda _: {"picowatch": chunk})
    for own, warnings in (("", missing("neg/easyneg")), ("negative_prompt: easyneg", ())):
        recipe = read_one(f"from: a.png\n{own}", inventory=INVENTORY, pictures=pictures)
        assert recipe.warnings == warnings


def test_flow_families_have_none() -> None:
    """Their prompts are plain words anyway."""
    flow = Checkpoint("dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev"))
    inventory = replace(INVENTORY, checkpoints=(flow,))
    text = "a easyneg\nSteps: 3, Sampler: Euler, CFG scale: 1, TI hashes: easyneg"
    assert read_one(text, "corgi.txt", inventory).warnings == ()
