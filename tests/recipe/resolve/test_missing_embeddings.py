"""Embeddings that a prompt names, but that are not installed: its words would only be words."""

import json
from dataclasses import replace

import pytest

from picowatch.recipe import Checkpoint, Inventory, Recipe
from picowatch.recipe.families import rules_of
from picowatch.recipe.request import EmbeddingUse
from tests.metadata.requests import CORGI
from tests.recipe.read.test_comfyui import node
from tests.recipe.reading import DEMO, PicturesWith, read_one

INVENTORY = Inventory(
    demo=DEMO,
    embeddings=("xl/negativeXL", "bad hands 5", "style(v2)"),
    refused_embeddings={"old": "old.pt is a pickle file."},
)
REQUEST = replace(
    CORGI,
    prompt="a cat",
    negative_prompt="easyneg, negativeXL",
    checkpoint="demo",
    embeddings=(EmbeddingUse("neg/easyneg", "a" * 64), EmbeddingUse("negativeXL", "b" * 64)),
)


def missing(*names: str) -> tuple[str, ...]:
    return tuple(
        f"The prompt's '{name}' is used as plain words, because no embedding of that name is in "
        "models/embeddings."
        for name in names
    )


def from_picture(texts: dict[str, str], more: str = "") -> Recipe:
    pictures = PicturesWith(lambda _: texts)
    return read_one(f"from: a.png\n{more}", inventory=INVENTORY, pictures=pictures)


def comfyui(text: str) -> dict[str, str]:
    nodes = {
        "1": node("CheckpointLoaderSimple", ckpt_name="demo"),
        "2": node("CLIPTextEncode", text=text, clip=["1", 1]),
        "3": node("EmptyLatentImage", width=128, height=128),
        "4": node("KSampler", seed=1, steps=3, cfg=4, sampler_name="euler", model=["1", 0],
                  positive=["2", 0], latent_image=["3", 0]),
    }  # fmt: skip
    return {"prompt": json.dumps(nodes)}


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
    recipe = read_one(
        f"a cat\nNegative prompt: (EasyNeg:1.2), negativeXL, old\nSteps: 3, Sampler: Euler, {key}: "
        f"{value}, Version: 1.10.1",
        "corgi.txt",
        INVENTORY,
    )
    refused, *others = recipe.warnings
    assert "old.pt is a pickle file" in refused
    assert tuple(others) == missing("easyneg")


def test_a_picture_of_picowatchs_own_says_what_is_gone() -> None:
    """A file may have moved to another folder; a prompt of the recipe's own needs none of them."""
    texts = {"picowatch": json.dumps({"format": 1, "request": REQUEST.as_dict()})}
    assert from_picture(texts).warnings == missing("neg/easyneg")
    assert from_picture(texts, "negative_prompt: easyneg").warnings == ()


def test_flow_families_have_none() -> None:
    """Their prompts are plain words anyway."""
    flow = Checkpoint("dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev"))
    inventory = replace(INVENTORY, checkpoints=(flow,))
    text = "a easyneg\nSteps: 3, Sampler: Euler, CFG scale: 1, TI hashes: easyneg"
    assert read_one(text, "corgi.txt", inventory).warnings == ()


@pytest.mark.parametrize(
    ("written", "prompt", "names"),
    [
        ("a, embedding:negativeXL", "a, negativeXL", ()),
        ("a, (embedding:xl/negativeXL:1.2)", "a, (negativeXL:1.2)", ()),
        ("a, embedding:xl\\negativeXL.safetensors, b", "a, negativeXL, b", ()),
        ("embedding:style\\(v2\\)", "style\\(v2\\)", ()),
        ("embedding:xl/easyneg.pt embedding:lost", "easyneg lost", ("easyneg", "lost")),
    ],
)
def test_comfyuis_pictures_name_them_with_folder_and_ending(
    written: str, prompt: str, names: tuple[str, ...]
) -> None:
    """On Windows with a backslash, which would be an escape."""
    recipe = from_picture(comfyui(written))
    assert (recipe.prompt, recipe.warnings) == (prompt, missing(*names))


def test_invokeais_pictures_name_them_in_angle_brackets() -> None:
    """invokeai/app/util/ti_utils.py."""
    metadata = {"positive_prompt": "a <negativeXL>", "negative_prompt": "<lost-one>, <3"}
    recipe = from_picture({"invokeai_metadata": json.dumps(metadata)})
    assert (recipe.prompt, recipe.negative_prompt) == ("a negativeXL", "lost-one, <3")
    assert recipe.warnings == missing("lost-one")


def test_swarmuis_pictures_name_them_as_tags() -> None:
    """With their folders and endings."""
    negative = "<embed:xl/negativeXL.safetensors>, (<embedding:lost>:1.2)"
    texts = {"sui_image_params": {"prompt": "a", "negativeprompt": negative}}
    recipe = from_picture({"parameters": json.dumps(texts)})
    assert recipe.negative_prompt == "negativeXL, (lost:1.2)"
    assert recipe.warnings == missing("lost")
