"""The recipe's fields: what they take, their defaults, aliases and limits."""

from dataclasses import replace

import pytest

from picowatch.recipe.converters import MOST_IMAGES
from picowatch.recipe.fields import DEFAULTS
from picowatch.recipe.inventory import DEMO_FIND
from picowatch.recipe.parts import Detail, Hires
from picowatch.settings.settings import Settings
from tests.recipe.reading import check_refused, read, read_one

A_DETAIL = Detail("a", model=DEMO_FIND, size="128x128")


def test_everything_but_the_prompt_has_a_default() -> None:
    recipe = read_one("prompt: a corgi")
    own = {"prompt": "a corgi", "checkpoint": "demo", "width": 128, "height": 128}
    sampler = {"sampler": "DPM++ 2M", "schedule_type": "karras"}
    values = {name: getattr(recipe, name) for name in DEFAULTS}
    assert values == DEFAULTS | own | sampler
    assert recipe.wants_random_seed


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("Negative Prompt: dim", "negative_prompt", "dim"),
        ("CFG-SCALE: 3", "cfg_scale", 3.0),
        ("Hires: {Denoising Strength: 0.5}", "hires", Hires(denoising_strength=0.5)),
        ("steps: '30'", "steps", 30),
        ("width: 512", "height", 128),
        ("size: 512×768", "height", 768),
        ('size: "512X768"', "width", 512),
        ("seed: −1", "seed", "random"),
        ("seed: [3, 1, 2, '1']", "seed", (3, 1, 2)),
        ("seed: 8 .. 2 step 3", "seed", (8, 5, 2)),
        ("variation_strength: .5\nsubseed: '7'", "variation_seed", 7),
        ("skip_early_cfg: '.1'", "cfg_start", 0.1),
        ("init_image: a.png", "image", "a.png"),
        ("image: a.png\nstrength: '.5'", "denoising_strength", 0.5),
        ("hires: 'off'", "hires", None),
        ("image: a.png\nextend: false", "denoising_strength", 0.75),
        ("control: ''", "control", ()),
        ("control: []", "control", ()),
        ("loras: false", "loras", ()),
        ("quantize: false", "quantize", ""),
        ("detail: off", "detail", ()),
        ("detail: {Find: a, dilate_erode: -3}", "detail", (replace(A_DETAIL, grow=-3),)),
        (
            "detail: [a, {find: b, strength: 0.25}]",
            "detail",
            (A_DETAIL, replace(A_DETAIL, find="b", denoising_strength=0.25)),
        ),
        ("exact: 'Off'", "exact", False),
        # Tables with gaps give such numbers, and JSON Schema takes them for whole ones.
        ("steps: 8.0", "steps", 8),
        ("hires: {steps: 4.0}", "hires", Hires(steps=4)),
        ("steps: 1e2", "steps", 100),
        ("seed: 1_000", "seed", 1000),
        ("cfg_rescale: 1e-05", "cfg_rescale", 0.00001),
        # ComfyUI's scheduler is a schedule type, diffusers' a sampler.
        ("Scheduler: SGM Uniform", "schedule_type", "sgm_uniform"),
        ("scheduler: EulerAncestralDiscreteScheduler", "sampler", "Euler a"),
    ],
)
def test_aliases_and_forgiven_spellings(written: str, field: str, value: object) -> None:
    """Names from other programs mean the same; names, numbers and switches as people write them."""
    assert getattr(read_one(f"Prompt: a\n{written}"), field) == value


def test_more_images_than_a_save_may_ask_for_are_refused() -> None:
    """Before anything is looked up, with the name of the setting."""
    text = "- {prompt: a, count: 600}\n- {prompt: b, count: 600}\n"
    check_refused(text, "this file requests 1,200 images; one save may request 1,000 …")
    assert sum(r.image_count for r in read("- {prompt: a, count: 1000}")) == 1000
    setting = Settings.model_json_schema()["properties"]["max_images_per_save"]
    assert setting["maximum"] == MOST_IMAGES
