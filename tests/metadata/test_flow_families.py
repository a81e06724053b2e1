"""Pictures of flow families say what made them, and every reader gets it back."""

import pytest

from picowatch.metadata import PARAMETERS, PICOWATCH, parameters_text, recipe_yaml
from picowatch.recipe import Checkpoint, ImageRequest, Inventory
from picowatch.recipe.inventory import rules_of
from tests.recipe.reading import (
    DEMO,
    FLOW_RULES,
    check_warned,
    chunk_of,
    hash_of,
    read_one,
    request_of,
)

XL = "Stable Diffusion XL"
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("FLUX.1-dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev")),
        Checkpoint("sd_xl_base_1.0", 1024, family=XL, rules=rules_of("sdxl")),
    ),
    vaes=("ae-fixed",),
    vae_families={"ae-fixed": ("FLUX.1", "Z-Image")},
    loras=("film",),
    lora_families={"film": "FLUX.1"},
)
FLUX = (
    "prompt: a lighthouse <lora:film:0.8>\ncheckpoint: FLUX.1-dev\nguidance: 2.5\nseed: 7\n"
    "vae: ae-fixed\nsize: 832x1216\nhires: {scale: 1.5, denoising_strength: 0.3}"
)


def texts_of(request: ImageRequest) -> dict[str, str]:
    """What picowatch writes into the picture."""
    return {PARAMETERS: parameters_text(request, "0.1.0")} | chunk_of(request)


def check_again(request: ImageRequest, start: str, inventory: Inventory) -> None:
    """By `show`, by `from:` with either text, and pasted into a TXT; without a warning."""
    texts = texts_of(request)
    again = [read_one(recipe_yaml(request), inventory=inventory)]
    for name in (PICOWATCH, PARAMETERS):
        picture = {name: texts[name]}
        again.append(read_one(f"from: a.png\n{start}", inventory=inventory, texts=picture))
    if not start:
        again.append(read_one(texts[PARAMETERS], "a.txt", inventory))
    for recipe in again:
        assert (recipe.image_requests(hash_of), recipe.warnings) == ([request], ())


def test_a_flux_picture_gives_its_request_again() -> None:
    """With its LoRA, VAE, guidance and hires."""
    check_again(request_of(FLUX, inventory=INVENTORY), "", INVENTORY)


@pytest.mark.parametrize(("family", "variant"), FLOW_RULES)
def test_nothing_of_a_usual_picture_is_ignored(family: str, variant: str) -> None:
    """This holds for any defaults of a family."""
    rules = FLOW_RULES[family, variant]
    inventory = Inventory(DEMO, (Checkpoint("it", 512, family="F", rules=rules),))
    start = "image: a.png\nmask: b.png\n" if rules.fills else ""
    if rules.references and rules.references.required:
        start = "references: a.png\nsize: 512x512\n"
    check_again(request_of(f"prompt: a\nseed: 1\n{start}", inventory=inventory), start, inventory)


@pytest.mark.parametrize("name", [PICOWATCH, PARAMETERS])
def test_a_flux_picture_starts_a_recipe_for_another_family(name: str) -> None:
    """What Stable Diffusion XL does not have is named, and the rest is the picture's."""
    texts = {name: texts_of(request_of(FLUX, inventory=INVENTORY))[name]}
    text = "from: a.png\ncheckpoint: sd_xl_base_1.0\nprompt: a lighthouse\ncfg_scale: 6"
    recipe = read_one(text, inventory=INVENTORY, texts=texts)
    (request,) = recipe.image_requests(hash_of)
    assert (request.checkpoint, request.guidance, request.cfg_scale) == ("sd_xl_base_1.0", 0, 6)
    assert (request.sampler, request.schedule_type) == ("Euler", "sgm_uniform")
    assert (request.seed, request.width, request.height) == (7, 832, 1216)
    assert request.vae == "baked"
    check_warned(recipe, "the VAE 'ae-fixed' is for FLUX.1 and …", f"{XL} has no guidance…")
