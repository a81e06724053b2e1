"""Pictures of flow families say what made them, and every reader gets it back."""

import pytest

from picowatch.metadata import PARAMETERS, PICOWATCH, parameters_text, picowatch_json, recipe_yaml
from picowatch.recipe import Checkpoint, ImageRequest, Inventory, read_recipes
from picowatch.recipe.inventory import rules_of
from tests.recipe.flow_rules import FLOW_RULES
from tests.recipe.reading import DEMO, PicturesWith, hash_of

XL = "Stable Diffusion XL"
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("FLUX.1-dev", 1024, family="FLUX.1", rules=rules_of("flux", "dev")),
        Checkpoint("Z-Image-Turbo", 1024, family="Z-Image", rules=rules_of("z_image", "Turbo")),
        Checkpoint("sd_xl_base_1.0", 1024, family=XL, rules=rules_of("sdxl")),
    ),
    vaes=("ae-fixed",),
    vae_families={"ae-fixed": ("FLUX.1", "Z-Image")},
    loras=("film",),
    lora_families={"film": "FLUX.1"},
)
RECIPES = {
    "FLUX.1": (
        "prompt: a lighthouse <lora:film:0.8>\ncheckpoint: FLUX.1-dev\nguidance: 2.5\nseed: 7\n"
        "vae: ae-fixed\nsize: 832x1216\nhires: {scale: 1.5, denoising_strength: 0.3}"
    ),
    "Z-Image": "prompt: a lighthouse\ncheckpoint: Z-Image-Turbo\nseed: 7\nsampler: DPM++ 2M",
}


def request_of(text: str, picture: dict[str, str] | None = None) -> ImageRequest:
    """Return the only image that a recipe requests."""
    texts = picture or {}
    (recipe,) = read_recipes(
        "a.yaml", text.encode(), INVENTORY, pictures=PicturesWith(lambda _: texts)
    )
    assert recipe.warnings == ()
    (request,) = recipe.image_requests(hash_of)
    return request


def texts_of(request: ImageRequest) -> dict[str, str]:
    """What picowatch writes into the picture."""
    whole = picowatch_json(
        request, recipe="a.yaml", save_digest="", entry_index=0, image_index=0, rendered={}
    )
    return {PARAMETERS: parameters_text(request, "0.1.0"), PICOWATCH: whole}


@pytest.mark.parametrize("family", RECIPES)
def test_a_picture_gives_its_request_again(family: str) -> None:
    """By `show`, by `from:` with either text, and pasted into a TXT."""
    request = request_of(RECIPES[family])
    texts = texts_of(request)
    assert request_of(recipe_yaml(request)) == request
    for name in (PICOWATCH, PARAMETERS):
        assert request_of("from: a.png", {name: texts[name]}) == request
    (pasted,) = read_recipes("a.txt", texts[PARAMETERS].encode(), INVENTORY)
    assert pasted.image_requests(hash_of) == [request]
    assert pasted.warnings == ()


@pytest.mark.parametrize(("family", "variant"), FLOW_RULES)
@pytest.mark.parametrize("name", [PICOWATCH, PARAMETERS])
def test_nothing_of_a_usual_picture_is_ignored(family: str, variant: str, name: str) -> None:
    """This holds for any defaults of a family."""
    rules = FLOW_RULES[family, variant]
    inventory = Inventory(DEMO, (Checkpoint("it", 512, family="F", rules=rules),))
    start = "image: a.png\nmask: b.png\n" if rules.fills else ""
    if rules.references and rules.references.required:
        start = "references: a.png\nsize: 512x512\n"
    (recipe,) = read_recipes("a.yaml", f"prompt: a\nseed: 1\n{start}".encode(), inventory)
    (request,) = recipe.image_requests(hash_of)
    texts = {name: texts_of(request)[name]}
    pictures = PicturesWith(lambda _: texts)
    text = f"from: a.png\n{start}".encode()
    (again,) = read_recipes("b.yaml", text, inventory, pictures=pictures)
    assert (again.image_requests(hash_of), again.warnings) == ([request], ())


@pytest.mark.parametrize("name", [PICOWATCH, PARAMETERS])
def test_a_flux_picture_starts_a_recipe_for_another_family(name: str) -> None:
    """What Stable Diffusion XL does not have is named, and the rest is the picture's."""
    texts = {name: texts_of(request_of(RECIPES["FLUX.1"]))[name]}
    text = b"from: a.png\ncheckpoint: sd_xl_base_1.0\nprompt: a lighthouse\ncfg_scale: 6"
    pictures = PicturesWith(lambda _: texts)
    (recipe,) = read_recipes("a.yaml", text, INVENTORY, pictures=pictures)
    (request,) = recipe.image_requests(hash_of)
    assert (request.checkpoint, request.guidance, request.cfg_scale) == ("sd_xl_base_1.0", 0, 6)
    assert (request.sampler, request.schedule_type) == ("Euler", "sgm_uniform")
    assert (request.seed, request.width, request.height) == (7, 832, 1216)
    assert request.vae == "baked"
    vae, guidance = recipe.warnings
    assert vae.startswith("the VAE 'ae-fixed' is for FLUX.1 and")
    assert guidance.startswith(f"{XL} has no guidance")
