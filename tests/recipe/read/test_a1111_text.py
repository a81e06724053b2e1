"""A1111's generation parameters as recipes."""

from dataclasses import asdict

import pytest

from picowatch.recipe import Checkpoint, Inventory
from tests.recipe.reading import DEMO, hash_of, messages, read, read_one, refused

TXT = "corgi.txt"
INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(Checkpoint("dreamshaper_8", 512), Checkpoint("a, b: c", 512)),
    vaes=("vae-ft-mse",),
)
BLOCK = """a corgi,
# at the beach
Negative prompt: blurry,
dim
Steps: 30, Sampler: DPM++ 2M SDE, Schedule type: Exponential, CFG scale: 6.5, Seed: 42, \
Size: 512x768, Model hash: 879db523c3, Model: dreamshaper_8, VAE hash: 735e4c3a44, \
VAE: vae-ft-mse.safetensors, Clip skip: 2, Version: v1.10.1
"""


def test_a_block_is_a_recipe_with_its_settings() -> None:
    """Line breaks in the prompts are kept, and # is no comment here."""
    recipe = read_one(BLOCK, TXT, INVENTORY)
    assert recipe.prompt == "a corgi,\n# at the beach"
    assert recipe.negative_prompt == "blurry,\ndim"
    assert recipe.model_dump(exclude={"prompt", "negative_prompt"}, exclude_defaults=True) == {
        "checkpoint": "dreamshaper_8",
        "vae": "vae-ft-mse",
        "sampler": "DPM++ 2M SDE",
        "schedule_type": "exponential",
        "steps": 30,
        "cfg_scale": 6.5,
        "width": 512,
        "height": 768,
        "seed": 42,
        "clip_skip": 2,
    }


def test_several_blocks_are_several_recipes() -> None:
    """A Steps line ends a block; the first and last may have none."""
    text = f"a cat\nNegative prompt: dim\n\n{BLOCK}\n\na fox\n\nwith a hat\nSteps: 3, Sampler: DDIM"
    recipes = read(text + ", Model: dream\n\nan owl\n", TXT, ONE_CHECKPOINT)
    assert [(r.prompt, r.negative_prompt, r.steps) for r in recipes] == [
        ("a cat", "dim", 24),
        ("a corgi,\n# at the beach", "blurry,\ndim", 30),
        ("a fox\n\nwith a hat", "", 3),
        ("an owl", "", 24),
    ]


ONE_CHECKPOINT = Inventory(
    demo=DEMO, checkpoints=(Checkpoint("dreamshaper_8", 512),), vaes=("vae-ft-mse",)
)


def test_blocks_without_steps_are_separated_by_blank_lines() -> None:
    """A Negative prompt line alone makes it A1111's text."""
    recipes = read("a\nNegative prompt: b\n\nc\nNegative prompt: d\n", TXT)
    assert [(r.prompt, r.negative_prompt) for r in recipes] == [("a", "b"), ("c", "d")]


def test_an_older_single_sampler_name_holds_the_schedule_type() -> None:
    """As A1111 wrote it before version 1.9."""
    recipe = read_one("a\nSteps: 3, Sampler: DPM++ 2M Karras, Seed: 1", TXT)
    assert (recipe.sampler, recipe.schedule_type) == ("DPM++ 2M", "karras")


def test_quoted_values_are_json() -> None:
    """Commas, colons and letters of all languages."""
    recipe = read_one('a\nSteps: 3, Sampler: Euler, Model: "a, b: c", Seed: 5', TXT, INVENTORY)
    assert (recipe.checkpoint, recipe.seed) == ("a, b: c", 5)


def test_an_empty_prompt_is_a_prompt() -> None:
    """A1111 writes its empty line."""
    assert read_one("\nSteps: 3, Sampler: Euler, Seed: 1\n", TXT).prompt == ""


def test_what_only_informs_is_ignored() -> None:
    """Versions, hashes, and what Civitai adds."""
    text = (
        "a\nSteps: 3, Sampler: Euler, Created Date: 2025-01-01T10:00:00Z, "
        'Civitai resources: [{"type":"checkpoint","modelVersionId":128713}], '
        "Civitai metadata: {}, Model: demo, Model hash: 0123456789, Version: v1.10.1"
    )
    assert read_one(text, TXT).steps == 3


@pytest.mark.parametrize(
    ("prompt", "model", "left"),
    [
        ("a cat", "", "checkpoint 'Pony' and lora 'Ink & Wash' 0.4"),
        ("a cat", ", Model: demo", "lora 'Ink & Wash' 0.4"),
        ("a cat <lora:ink:0.4>", "", "checkpoint 'Pony'"),
        ("a cat <lora:ink:0.4>", ", Model: demo", ""),
    ],
)
def test_models_that_only_civitai_names_are_a_warning(prompt: str, model: str, left: str) -> None:
    """By names of its own, without the files': the picture would be another one in silence."""
    text = (
        f"{prompt}\nSteps: 3, Sampler: Euler, Seed: 1{model}, Civitai resources: "
        '[{"type":"checkpoint","modelVersionId":290640,"modelName":"Pony"},'
        '{"type":"lora","weight":0.4,"modelVersionId":5,"modelName":"Ink & Wash"}], '
        "Civitai metadata: {}"
    )
    recipe = read_one(text, TXT, Inventory(demo=Checkpoint("demo", 128), loras=("ink",)))
    said = f"Civitai does not say which files these are, so they are left out: {left}. Name"
    warnings = [warning for warning in recipe.warnings if "Civitai" in warning]
    assert [warning.startswith(said) for warning in warnings] == ([True] if left else [])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "Model hash: 879db523c3",
            "the model with the hash 879db523c3 is not known by name. Write 'Model: ' and its "
            "name in models/checkpoints instead.",
        ),
        (
            "Model: dreamshaper_8",
            "no checkpoint 'dreamshaper_8' in models/checkpoints. Only demo is available.",
        ),
        (
            "Sampler: Euler a",
            "'sampler' is given twice: already on line 2 as 'Sampler'. Keep one.",
        ),
        ("Size: 500x512", "width must be a multiple of 8: 496 or 504 would do."),
    ],
)
def test_what_cannot_be_honoured_is_refused(line: str, message: str) -> None:
    """The picture would be another one, and nobody would know."""
    assert messages(f"a\nSteps: 3, Sampler: Euler, {line}, Seed: 1\n", TXT) == [message]


def test_the_noise_schedule_is_the_prediction() -> None:
    """Checkpoints of zero terminal SNR predict v; "Default" says nothing."""
    text = "a\nSteps: 3, Sampler: Euler, Noise Schedule: {}, Model: demo"
    assert read_one(text.format("Zero Terminal SNR"), TXT).prediction == "v_zero_snr"
    recipe = read_one(text.format("Default"), TXT)
    assert (recipe.prediction, recipe.warnings) == ("", ())


def test_hires_is_read_with_its_strength() -> None:
    """A1111 has one strength for both passes and pictures."""
    recipe = read_one(
        "a\nSteps: 3, Sampler: Euler, Denoising strength: 0.4, Hires upscale: 1.5, Hires steps: 9, "
        "Hires upscaler: Latent (nearest-exact), Version: v1.10.1",
        TXT,
    )
    assert recipe.hires and asdict(recipe.hires) == {
        "scale": 1.5,
        "steps": 9,
        "denoising_strength": 0.4,
        "upscaler": "Latent (nearest-exact)",
    }
    assert recipe.warnings == ()


OLD = "Old prompt editing timelines: True"


@pytest.mark.parametrize(
    ("prompt", "values", "warned"),
    [
        ("[a:b:0.5]", f"Hires upscale: 2, {OLD}", True),
        ("[a:b:0.5]", "Hires upscale: 2, Version: v1.5.2", True),
        ("c\nNegative prompt: [a:b:2.0]", OLD, True),
        ("[a:b:0.5] [c:d:8]", OLD, False),
        ("[a|b] [c]", f"Hires upscale: 2, {OLD}", False),
        ("[a:b:0.5]", "Hires upscale: 2, Version: v1.6.0", False),
        ("[a:b:0.5]", "Hires upscale: 2, Version: v1.10.1-amd", False),
        ("[a:b:0.5]", "Hires upscale: 2, Version: f2.0.1v1.10.1-previous-659", False),
        ("[a:b:0.5]", "Hires upscale: 2, Old prompt editing timelines: False", False),
    ],
)
def test_prompt_editing_by_a1111s_old_rule_is_a_warning(
    prompt: str, values: str, warned: bool
) -> None:
    """Where today's rule changes words at other steps; the text stays as it is."""
    recipe = read_one(f"{prompt}\nSteps: 12, Sampler: Euler, Seed: 1, {values}", TXT)
    found = [one for one in recipe.warnings if one.startswith("the words in [from:to:when]")]
    assert len(found) == warned
    assert recipe.prompt == prompt.partition("\n")[0]


def test_lora_tags_are_loras_and_hashes_only_inform() -> None:
    """They say which file was meant."""
    known = Inventory(demo=DEMO, loras=("add_detail",))
    text = 'a <lora:add_detail:0.5>\nSteps: 3, Sampler: Euler, Lora hashes: "add_detail: 0123"'
    (request,) = read_one(f"{text}, Seed: 1", TXT, known).image_requests(hash_of)
    assert [(lora.name, lora.weight) for lora in request.loras] == [("add_detail", 0.5)]


@pytest.mark.parametrize(
    ("line", "warnings"),
    [
        (
            "Face restoration: CodeFormer",
            ("Recipes have no 'Face restoration: CodeFormer' setting; it was "
             "ignored.",),
        ),
        (
            "Frobnication: high",
            ("Recipes have no 'Frobnication: high' setting; it was "
             "ignored.",),
        ),
        (
            "Denoising strength: 0.5, Mask blur: 4",
            ("denoising_strength was ignored: it needs image or hires, which is missing here.",
             "mask_blur was ignored: it needs mask, which is missing here."),
        ),
        (
            "Hires upscale: 2, Hires upscaler: R-ESRGAN 4x+",
            ("the upscaler 'R-ESRGAN 4x+' is not in models/upscalers; Lanczos is used instead.",),
        ),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_say_is_a_warning(line: str, warnings: tuple[str, ...]) -> None:
    """The picture is rendered without it, and a warning says so."""
    recipe = read_one(f"a\nSteps: 3, Sampler: Euler, {line}, Seed: 1\n", TXT)
    assert recipe.warnings == warnings


def test_problems_point_into_the_steps_line() -> None:
    """At the values that are wrong."""
    invalid = refused("a\nSteps: 300, Sampler: Euler, Seed: -5, ENSD: 31337\n", TXT)
    assert [(p.line, p.column, p.width) for p in invalid.problems] == [(2, 8, 3), (2, 35, 2)]


def test_generation_parameters_under_a_yaml_name_are_recognised() -> None:
    """They are no YAML, and the message does not talk about colons."""
    assert messages(BLOCK, "corgi.yaml") == [
        "this looks like A1111's generation parameters; rename it to corgi.txt"
    ]


def test_a_steps_line_that_says_no_number_is_still_one() -> None:
    """It is never drawn as a prompt."""
    assert messages("a\nSteps: many, Sampler: Euler\n", TXT) == [
        "steps must be a whole number from 1 to 150, not 'many'."
    ]


def test_constructs_in_the_prompts_are_refused_with_their_positions() -> None:
    """As in any other recipe."""
    text = "a\n<lora:x:1>\nNegative prompt: b,\n __c__\nSteps: 3, Sampler: Euler\n"
    assert [(p.line, p.column, p.width) for p in refused(text, TXT).problems] == [
        (2, 1, 10),
        (4, 2, 5),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("CFG scale: 7,5", "cfg_scale must be a number from 1 to 30. Write 7.5, with a point."),
        (
            "Hires upscale: 1,5, Denoising strength: 0.4",
            "hires scale must be a number from 1 to 4. Write 1.5, with a point.",
        ),
    ],
)
def test_a_decimal_comma_is_no_next_value(values: str, message: str) -> None:
    """7,5 is not 7, with a 5 to ignore."""
    text = f"a corgi\nSteps: 20, Sampler: Euler, {values}, Clip skip: 1"
    assert messages(text, "a.txt") == [message]


def test_values_without_spaces_between_them_are_still_values() -> None:
    """What follows the comma is a key then, not a number."""
    recipe = read_one("a corgi\nSteps: 20,Sampler: Euler,CFG scale: 7.5,Seed: 3", "a.txt")
    assert (recipe.steps, recipe.sampler, recipe.cfg_scale) == (20, "Euler", 7.5)
