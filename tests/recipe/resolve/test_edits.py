"""Prompt editing: what it names, and refusals by families without it."""

import pytest

from picowatch.recipe import Checkpoint, Inventory, RecipeInvalid
from picowatch.recipe.inventory import rules_of
from tests.recipe.reading import DEMO, hash_of, read_one, refused

WILDCARDS = {"colour": ("red", "blue"), "both": ("[red|blue]",)}
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("dream", 512),
        Checkpoint("dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev")),
    ),
    loras=("x",),
    embeddings=("calm",),
    wildcards=WILDCARDS,
)


def test_what_an_edit_names_is_used_in_the_whole_picture() -> None:
    """LoRAs act on all steps, embeddings where their words stand; the text stays as it is."""
    prompt = "a [<lora:x:0.5>cat:(calm:1.2) dog:0.5]"
    recipe = read_one(f"checkpoint: dream\nprompt: '{prompt}'\nseed: 1", inventory=INVENTORY)
    (image,) = recipe.image_requests(hash_of)
    assert [(use.name, use.weight) for use in image.loras] == [("x", 0.5)]
    assert [use.name for use in image.embeddings] == ["calm"]
    assert image.prompt == prompt


def test_a_family_with_one_prompt_for_all_steps_refuses() -> None:
    """All ways are covered, before anything is loaded; mere weights are ignored."""
    text = "checkpoint: dev\nprompt: a [cat|dog], ([a:b:5]:1.2)\nnegative_prompt: '[a:9]'\n"
    problems = refused(text, inventory=INVENTORY).problems
    assert [(p.line, p.column, p.width) for p in problems] == [(2, 9, 26), (2, 9, 26), (3, 18, 7)]
    assert problems[0].message == (
        "FLUX.1 cannot change words between the steps: [cat|dog] is for Stable Diffusion. Write "
        "the words you want."
    )
    weights = read_one("checkpoint: dev\nprompt: '[cat] (dog:1.2)'", inventory=INVENTORY)
    assert len(weights.warnings) == 1


def test_what_a_wildcard_draws_for_such_a_family_is_refused_too() -> None:
    """With the seed and the text that it became."""
    recipe = read_one("checkpoint: dev\nprompt: a __both__\nseed: 1", inventory=INVENTORY)
    with pytest.raises(RecipeInvalid, match=r"line 2, column 9: FLUX.1 cannot change words"):
        recipe.image_requests(hash_of)
    recipe = read_one("checkpoint: dream\nprompt: a __both__\nseed: 1", inventory=INVENTORY)
    assert recipe.image_requests(hash_of)[0].prompt == "a [red|blue]"
