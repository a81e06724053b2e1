"""LoRAs and embeddings for another family than the checkpoint's are refused with both names."""

import pytest

from picowatch.metadata import PICOWATCH, picowatch_json
from picowatch.recipe.families import rules_of
from picowatch.recipe.inventory import Checkpoint, Inventory
from tests.recipe.reading import DEMO, PicturesWith, hash_of, messages, read, read_one

SD1, XL, FLUX = "Stable Diffusion 1.x", "Stable Diffusion XL", "FLUX.1"
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("dream", 512, family=SD1),
        Checkpoint("pony", 1024, family=XL),
        Checkpoint("dev", 1024, family=FLUX, rules=rules_of("flux", "dev")),
        Checkpoint("sana", 1024, family="Sana", rules=rules_of("sana")),
    ),
    vaes=("mse", "ae", "qwen"),
    vae_families={"mse": (SD1, XL), "ae": (FLUX, "Z-Image"), "qwen": ("Qwen-Image",)},
    loras=("pixel", "styles/line", "unsaid"),
    embeddings=("bad hands", "glow", "unsaid"),
    lora_families={"pixel": SD1, "styles/line": XL},
    embedding_families={"bad hands": SD1, "glow": XL},
)
ENDING = "Remove the {0}, or use a checkpoint of its family."
OVERRULING = (
    ENDING.format("LoRA") + " If its file is wrong, write 'loras: {{{0}: {{family: {1}}}}}'."
)


def test_what_fits_or_does_not_say_is_used() -> None:
    """A file need not say its family; the engine compares shapes, too."""
    for checkpoint, lora, embedding in (("dream", "pixel", "bad hands"), ("pony", "line", "glow")):
        read_one(
            f"prompt: a {embedding} unsaid <lora:{lora}>\nloras: unsaid\ncheckpoint: {checkpoint}",
            inventory=INVENTORY,
        )
    read_one("prompt: a\ncheckpoint: dev\nvae: ae", inventory=INVENTORY)
    read_one("prompt: a\ncheckpoint: sana\nvae: baked", inventory=INVENTORY)
    everything = "prompt: a glow, bad hands <lora:pixel>\nloras: line\ncheckpoint: demo"
    read_one(everything, inventory=INVENTORY)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "prompt: a\nloras: pixel\ncheckpoint: pony",
            f"the LoRA 'pixel' is for {SD1}, but the checkpoint 'pony' belongs to {XL}. "
            + OVERRULING.format("pixel", "sdxl"),
        ),
        (
            "prompt: a <lora:line:0.5>\ncheckpoint: dream",
            f"the LoRA 'styles/line' is for {XL}, but the checkpoint 'dream' belongs to {SD1}. "
            + OVERRULING.format("styles/line", "sd1"),
        ),
        (
            "prompt: a (Glow:1.2)\ncheckpoint: dream",
            f"the embedding 'glow' is for {XL}, but the checkpoint 'dream' belongs to {SD1}. "
            + ENDING.format("embedding"),
        ),
        (
            "prompt: a unsaid\ncheckpoint: dev",
            "the embedding 'unsaid' is for Stable Diffusion, but the checkpoint 'dev' belongs to "
            "FLUX.1. " + ENDING.format("embedding"),
        ),
        (
            "prompt: a\ncheckpoint: dev\nvae: qwen",
            "the VAE 'qwen' is for Qwen-Image, but the checkpoint 'dev' belongs to FLUX.1. Use ae "
            "or baked.",
        ),
        (
            "prompt: a\ncheckpoint: pony\nvae: ae",
            f"the VAE 'ae' is for FLUX.1 and Z-Image, but the checkpoint 'pony' belongs to {XL}. "
            "Use mse or baked.",
        ),
        (
            "prompt: a\ncheckpoint: sana\nvae: mse",
            f"the VAE 'mse' is for {SD1} and {XL}, but the checkpoint 'sana' belongs to Sana. "
            "Use baked.",
        ),
        (
            "prompt: a\nnegative_prompt: bad hands\ncheckpoint: pony",
            f"the embedding 'bad hands' is for {SD1}, but the checkpoint 'pony' belongs to {XL}. "
            + ENDING.format("embedding"),
        ),
    ],
)
def test_what_is_for_another_family_is_refused(recipe: str, message: str) -> None:
    """In the field, in a tag, in both prompts."""
    assert messages(recipe, inventory=INVENTORY) == [message]


@pytest.mark.parametrize(
    ("checkpoint", "prompt", "negative", "left_out"),
    [
        ("dream", "a (bad hands:1.2) <lora:pixel:1> unsaid", ", dim", ["'glow' is for"]),
        ("pony", "a (:1.2)  unsaid", "glow, dim", ["'pixel' is for", "'bad hands' is for"]),
    ],
)
def test_what_is_for_another_family_than_a_pictures_is_left_out(
    checkpoint: str, prompt: str, negative: str, left_out: list[str]
) -> None:
    """Whoever starts from the picture did not write it, and cannot remove it."""
    picture = {
        "parameters": "a (bad hands:1.2) <lora:pixel:1> unsaid\nNegative prompt: glow, dim\n"
        "Steps: 3, Sampler: Euler, CFG scale: 4, Model: dream"
    }
    recipe = read_one(
        f"from: a.png\ncheckpoint: {checkpoint}",
        inventory=INVENTORY,
        pictures=PicturesWith(lambda _: picture),
    )
    assert (recipe.prompt, recipe.negative_prompt) == (prompt, negative)
    assert len(recipe.warnings) == len(left_out)
    assert all(map(str.__contains__, recipe.warnings, left_out))


def test_what_a_recipe_says_of_a_loras_family_holds() -> None:
    """Chroma's LoRAs look like FLUX.1's; what a picture names is used again as well."""
    text = "prompt: a\nseed: 1\nloras: {pixel: {family: sdxl}}\ncheckpoint: pony"
    (request,) = read_one(text, inventory=INVENTORY).image_requests(hash_of)
    assert request.loras[0].family == "sdxl"
    whole = picowatch_json(
        request, recipe="a.yaml", save_digest="", entry_index=0, image_index=0, rendered={}
    )
    pictures = PicturesWith(lambda _: {PICOWATCH: whole})
    (again,) = read("from: a.png", inventory=INVENTORY, pictures=pictures)
    assert (again.image_requests(hash_of), again.warnings) == ([request], ())
    (message,) = messages(text.replace("pony", "dream"), inventory=INVENTORY)
    assert message.startswith(f"the LoRA 'pixel' is for {XL}, but")


def test_a_sweep_over_checkpoints_says_which_do_not_fit() -> None:
    """Once for each."""
    recipe = "prompt: a\nloras: pixel\nsweep:\n  checkpoint: [dream, pony]"
    (message,) = messages(recipe, inventory=INVENTORY)
    assert "the checkpoint 'pony' belongs to" in message


FLOWS = Inventory(
    demo=DEMO,
    checkpoints=(
        Checkpoint("flux", 1024, family="FLUX.1", rules=rules_of("flux", "dev")),
        Checkpoint("z", 1024, family="Z-Image", rules=rules_of("z_image", "Turbo")),
        Checkpoint("pony", 1024, family=XL),
    ),
)


def test_a_flow_always_predicts_the_same() -> None:
    """Automatic is all that a folder's defaults may be set back to."""
    assert messages("prompt: a\ncheckpoint: flux\nprediction: v", inventory=FLOWS) == [
        "FLUX.1 has no prediction: it predicts the flow from noise to picture. Remove it."
    ]
    recipe = "prompt: a\ncheckpoint: flux\nprediction: automatic"
    assert read_one(recipe, inventory=FLOWS).prediction == ""


@pytest.mark.parametrize(
    ("recipe", "guidance"),
    [
        ("prompt: a\ncheckpoint: flux", 3.5),
        ("prompt: a\ncheckpoint: flux\nguidance: 2", 2),
        ("prompt: a\ncheckpoint: flux\ndistilled_cfg: 5", 5),
        ("prompt: a\ncheckpoint: flux\nguidance: 0", 0),
        ("prompt: a\ncheckpoint: z", 0),
        ("prompt: a\ncheckpoint: pony\nguidance: 0", 0),
    ],
)
def test_guidance_is_the_checkpoints_own_unless_a_recipe_says_it(
    recipe: str, guidance: float
) -> None:
    """Off for those that were not trained with it."""
    assert read_one(recipe, inventory=FLOWS).guidance == guidance


def test_guidance_is_a_flag_and_a_folders_default() -> None:
    """The nearest wins."""
    txt = "a lighthouse --checkpoint flux --guidance 2.5\na lighthouse --checkpoint flux"
    defaults = {"_defaults.yaml": "guidance: 4"}
    recipes = read(txt, "a.txt", FLOWS, defaults)
    assert [recipe.guidance for recipe in recipes] == [2.5, 4]


def test_guidance_can_be_swept() -> None:
    """Each image has its own, and goes through the transformer in a batch of its own."""
    recipe = "prompt: a\ncheckpoint: flux\nsweep: {guidance: 2..5 step 1}\nseed: 1"
    requests = read_one(recipe, inventory=FLOWS).image_requests(hash_of)
    assert [one.guidance for one in requests] == [2, 3, 4, 5]
    assert len({one.digest for one in requests}) == len({one.batch_key for one in requests}) == 4


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (
            "prompt: a\ncheckpoint: z\nguidance: 3",
            "Z-Image has no guidance: guidance is a number that FLUX.1 dev was trained with; use "
            "cfg_scale. Remove it.",
        ),
        (
            "prompt: a\ncheckpoint: flux\nguidance: 101",
            "guidance must be a number from 0 to 100, not 101.",
        ),
        ("checkpoint: z\nguidance: 3", "a prompt is missing. Write 'prompt: …'."),
    ],
)
def test_wrong_guidance_is_refused(recipe: str, message: str) -> None:
    """Families without such an input, and what is no guidance."""
    assert messages(recipe, inventory=FLOWS) == [message]


def test_a_negative_prompt_without_guidance_is_warned_of() -> None:
    """As few-step checkpoints are used: it is not computed."""
    recipe = "prompt: a\nnegative_prompt: b\ncheckpoint: pony\ncfg_scale: {}"
    assert read_one(recipe.format(1), inventory=INVENTORY).warnings == (
        "The negative prompt was ignored: it has no effect at cfg_scale 1.",
    )
    assert read_one(recipe.format(1.5), inventory=INVENTORY).warnings == ()


@pytest.mark.parametrize(
    ("share", "warning"),
    [
        ("cfg_start: 0.5\ncfg_end: 0.6", ""),
        ("cfg_start: 0.9", ""),
        (
            "cfg_start: 0.9\ncfg_end: 0.4",
            "cfg_start 0.9 and cfg_end 0.4 leave no step with guidance.",
        ),
        # The steps are after 0, 0.25, 0.5 and 0.75 of them.
        ("steps: 4\ncfg_start: 0.75", "cfg_start 0.75 and cfg_end 1 leave no step with guidance."),
        ("steps: 4\ncfg_start: 0.5\ncfg_end: 0.7", "cfg_start 0.5 and cfg_end 0.7 leave no step"),
        ("steps: 4\ncfg_start: 0.8\nhires: {steps: 20, denoising_strength: 1}", ""),
        ("image: a.png\ndenoising_strength: 0", ""),
    ],
)
def test_guidance_on_no_step_is_warned_of(share: str, warning: str) -> None:
    """The negative prompt acts where guidance does, in any pass."""
    warnings = read_one(f"prompt: a\nnegative: b\n{share}").warnings
    assert len(warnings) == bool(warning)
    assert all(
        text.startswith("cfg_scale and the negative prompt were ignored: ") for text in warnings
    )
    assert all(warning in text for text in warnings)
