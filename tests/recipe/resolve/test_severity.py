"""The author of a wrong value decides: an error, or a warning and another value."""

from typing import Any

import pytest

from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.recipe import Recipe
from tests.recipe.reading import (
    DEMO,
    check_refused,
    check_warned,
    chunk_of,
    of_family,
    read_one,
    request_of,
)

SD1, XL, FLUX = "Stable Diffusion 1.x", "Stable Diffusion XL", "FLUX.1"
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("dream", 512, family=SD1),
        Checkpoint("zero", 512, family=SD1, prediction="v_zero_snr"),
        of_family("dev", "flux", "dev"),
    ),
    vaes=("ae",),
    vae_families={"ae": (FLUX,)},
    loras=("pixel",),
    lora_families={"pixel": (XL,)},
)

# Checkpoint, a field's value in a recipe and in A1111's text, the value instead, what is said.
IMPOSSIBLE: list[tuple[str, str, str, str, Any, str]] = [
    ("dream", "vae: ae", "VAE: ae", "vae", "baked", "the VAE 'ae' is for FLUX.1"),
    ("dream", "loras: pixel", "", "loras", (), "the LoRA 'pixel' is for Stable Diffusion XL"),
    ("zero", "sampler: LMS", "Sampler: LMS", "sampler", "Euler", "the sampler LMS cannot be"),
    ("dev", "schedule_type: karras", "Schedule type: Karras", "schedule_type", "simple",
     "FLUX.1 does not take the schedule type 'karras'"),
    ("dev", "tiling: true", "Tiling: True", "tiling", False, "FLUX.1 has no tiling"),
    ("dev", "size: 520x512", "Size: 520x512", "width", 512, "width must be a multiple of 16"),
]  # fmt: skip
# The same of what no checkpoint could have.
UNKNOWN: list[tuple[str, str, str, Any, str]] = [
    ("vae: mse", "VAE: mse", "vae", "baked", "no VAE 'mse' in models/vae"),
    ("loras: ink", "", "loras", (), "no LoRA 'ink' in models/loras"),
    ("steps: 200", "Steps: 200", "steps", 150, "steps"),
    ("cfg_scale: 7,5", "CFG scale: 7,5", "cfg_scale", 7.5, "cfg_scale must be a number"),
    ("size: 9999x512", "Size: 9999x512", "width", 2048, "width must be a whole number"),
    ("sampler: Restart", "Sampler: Restart", "sampler", "Heun", "Restart"),
    ("sampler: Nope", "Sampler: Nope", "sampler", "DPM++ 2M", "Nope"),
    ("hires: {upscaler: x2}", "Hires upscale: 2, Hires upscaler: x2", "hires", "Lanczos", "'x2'"),
    ("upscale: x2", "Postprocess upscaler: x2", "upscale", None, "no upscaler 'x2'"),
]


def pasted(setting: str, checkpoint: str) -> str:
    said = dict(part.split(": ") for part in setting.split(", "))
    values = {"Steps": "3", "Sampler": "Euler", "Model": checkpoint} | said
    return "a cat\n" + ", ".join(f"{key}: {value}" for key, value in values.items())


def check_replaced(recipes: list[Recipe], field: str, instead: Any, words: str) -> None:
    for recipe in recipes:
        value = getattr(recipe, field)
        assert (value.upscaler if field == "hires" else value) == instead
        check_warned(recipe, f"…{words}…")


def started_from(text: str) -> list[Recipe]:
    """Return the recipe of a pasted text, and of the picture with this text."""
    picture = {"parameters": text}
    return [
        read_one(text, "a.txt", INVENTORY),
        read_one("from: a.png", inventory=INVENTORY, texts=picture),
    ]


@pytest.mark.parametrize(("checkpoint", "own", "theirs", "field", "instead", "words"), IMPOSSIBLE)
def test_what_a_checkpoint_cannot_have(
    checkpoint: str, own: str, theirs: str, field: str, instead: Any, words: str
) -> None:
    """In the recipe an error; in a folder's defaults, a paste and a picture a warning."""
    model = f"prompt: a cat\ncheckpoint: {checkpoint}\n"
    check_refused(model + own, f"{words}…", inventory=INVENTORY)
    recipes = started_from(pasted(theirs, checkpoint)) if theirs else []
    recipes.append(read_one(model, inventory=INVENTORY, defaults=own))
    check_replaced(recipes, field, instead, words)


@pytest.mark.parametrize(("own", "theirs", "field", "instead", "words"), UNKNOWN)
def test_what_no_checkpoint_could_have(
    own: str, theirs: str, field: str, instead: Any, words: str
) -> None:
    """In the recipe and in its folder's defaults an error: a typing mistake, perhaps."""
    model = "prompt: a cat\ncheckpoint: dream\n"
    for text, defaults in ((model + own, ""), (model, own)):
        check_refused(text, f"…{words}…", inventory=INVENTORY, defaults=defaults)
    if theirs:
        check_replaced(started_from(pasted(theirs, "dream")), field, instead, words)


def test_a_pictures_prompt_loses_editing_that_cannot_be_done() -> None:
    """The words of the last step stay."""
    drawn = request_of("prompt: a [cat|dog] b\ncheckpoint: dream", inventory=INVENTORY)
    recipe = read_one("from: a.png\ncheckpoint: dev", inventory=INVENTORY, texts=chunk_of(drawn))
    assert recipe.prompt == "a dog b"
    assert any("cannot change words between the steps" in warning for warning in recipe.warnings)


def test_what_is_swept_is_the_recipes_own() -> None:
    """A folder's defaults for the field do not matter."""
    text = "prompt: a\ncheckpoint: dev\nsweep: {clip_skip: [1, 2]}"
    check_refused(text, "FLUX.1 has no clip_skip…", inventory=INVENTORY, defaults="clip_skip: 2")
