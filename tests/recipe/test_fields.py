"""The recipe's fields: what they take, their defaults, aliases and limits."""

import pytest

from picowatch.recipe.fields import DEFAULTS, MOST_IMAGES
from picowatch.settings import Settings
from tests.recipe.reading import hash_of, messages, read, read_one


def test_everything_but_the_prompt_has_a_default() -> None:
    """A prompt alone is a whole recipe."""
    recipe = read_one("prompt: a corgi")
    assert recipe.model_dump() == DEFAULTS | {
        "prompt": "a corgi",
        "checkpoint": "demo",
        "sampler": "DPM++ 2M",
        "schedule_type": "karras",
        "width": 128,
        "height": 128,
    }
    assert recipe.wants_random_seed


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("negative: dim", "negative_prompt", "dim"),
        ("model: demo", "checkpoint", "demo"),
        ("ckpt: demo", "checkpoint", "demo"),
        ("sd_model: demo", "checkpoint", "demo"),
        ("sampler_name: DDIM", "sampler", "DDIM"),
        ("guidance_scale: 3", "cfg_scale", 3.0),
        ("cfg: 3", "cfg_scale", 3.0),
        ("steps: '30'", "steps", 30),
        ("width: 512", "height", 128),
        ("size: 512×768", "height", 768),
        ('size: "512X768"', "width", 512),
        ("seed: -1", "seed", "random"),
        ("seed: '-1'", "seed", "random"),
        ("seed: −1", "seed", "random"),
        ("seed: Random", "seed", "random"),
        ("seed: 4294967295", "seed", 4294967295),
        ("seed: [3, 1, 2, '1']", "seed", (3, 1, 2)),
        ("seed: 5..8", "seed", (5, 6, 7, 8)),
        ("seed: 8 .. 2 step 3", "seed", (8, 5, 2)),
        ("seed: '4294967294..4294967295'", "seed", (4294967294, 4294967295)),
        ("noise: NV", "noise", "nvidia"),
        ("rng: CUDA", "noise", "nvidia"),
        ("variation_strength: .5\nsubseed: '7'", "variation_seed", 7),
        ("subseed_strength: '0.5'", "variation_strength", 0.5),
        ("eta_noise_seed_delta: 31337", "ensd", 31337),
        ("skip_early_cfg: 0.1", "cfg_start", 0.1),
        ("guidance_start: '.2'", "cfg_start", 0.2),
        ("guidance_end: 0.8", "cfg_end", 0.8),
        ("hires: 0", "hires", None),
        ("hires: 'off'", "hires", None),
        ("upscale: 0", "upscale", None),
        ("control: no", "control", ()),
        ("exact: off", "exact", False),
        ("exact: 'true'", "exact", True),
    ],
)
def test_aliases_and_forgiven_spellings(written: str, field: str, value: object) -> None:
    """Names from other programs mean the same; the first name is kept."""
    assert getattr(read_one(f"prompt: a\n{written}"), field) == value


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("steps: 151", "steps must be a whole number from 1 to 150, not 151."),
        ("steps: many", "steps must be a whole number from 1 to 150, not 'many'."),
        ("cfg_scale: 31", "cfg_scale must be a number from 1 to 30, not 31."),
        ("clip_skip: 5", "clip_skip must be a whole number from 1 to 4, not 5."),
        (
            "seed: 0..4294967295",
            "this file requests 4,294,967,296 images; one save may request 1,000 (the setting "
            "max_images_per_save).",
        ),
        ("seed: 1..8 step 0", "a range's step must not be 0."),
        (
            "seed: 1..8\ncount: 2",
            "count and several seeds together: each seed makes one image. Remove count.",
        ),
        ("width: 500", "width must be a multiple of 8: 496 or 504 would do."),
        (
            "size: 512x2056",
            "height must be a whole number from 64 to 2048, not 2056. For a larger picture, write "
            "a smaller size, and hires: {scale: 2} to redraw it larger, or upscale: {scale: 4} to "
            "enlarge it.",
        ),
        ("size: big", "size must be text like 512x768, not 'big'."),
        ("size: 512", "size must be text like 512x768, not 512."),
        ("size: [512, 768]", "size must be text like 512x768, not [512, 768]."),
        ("seed: -2", None),
        ("seed: 4294967296", None),
        (
            "sampler:",
            "sampler has no value. Write a name, or delete the field.",
        ),
        ("seed: []", None),
        ("seed: [1, random]", "seed must be a whole number from 0 to 4294967295, not 'random'."),
        ("exact: maybe", "exact must be true or false, not 'maybe'."),
        (
            "size: 512x512\nwidth: 512",
            "size together with width or height: keep one of them.",
        ),
        ("steps: 3\nsteps: 4", "'steps' is given twice: already on line 2. Keep one."),
        (
            "cfg: 3\ncfg_scale: 4",
            "'cfg_scale' is given twice: already on line 2 as 'cfg'. Keep one.",
        ),
        ("stesp: 3", "unknown field 'stesp'. Did you mean 'steps'?"),
        ("Negative-Promt: x", "unknown field 'Negative-Promt'. Did you mean 'negative_prompt'?"),
        ("colour: red", "unknown field 'colour'."),
        (
            "schedule_type: karas",
            "unknown schedule type 'karas'. Did you mean 'karras'? The schedule types are "
            "automatic, karras, "
            "exponential, beta, uniform, sgm_uniform, leading, simple, kl_optimal and "
            "align_your_steps.",
        ),
        (
            "sampler: DPM++ 2M Karras\nschedule_type: beta",
            "the sampler's name says karras, schedule_type says beta. Keep one.",
        ),
        (
            "vae: mse",
            "no VAE 'mse' in models/vae. Only baked is available.",
        ),
    ],
)
def test_wrong_values_are_refused_with_limit_and_remedy(written: str, message: str | None) -> None:
    """Each mistake has one message with field, value, limit and remedy."""
    value = written.partition(": ")[2]
    expected = message or (
        "seed must be a whole number from 0 to 4294967295, random, a range like 1..8, or a list "
        f"like [1, 2, 3], not {value}."
    )
    assert messages(f"prompt: a\n{written}\n") == [expected]


def test_more_images_than_a_save_may_ask_for_are_refused() -> None:
    """Before anything is looked up, with the name of the setting."""
    assert messages("- {prompt: a, count: 600}\n- {prompt: b, count: 600}\n") == [
        "this file requests 1,200 images; one save may request 1,000 "
        "(the setting max_images_per_save)."
    ]
    assert sum(r.image_count for r in read("- {prompt: a, count: 1000}")) == 1000
    setting = Settings.model_json_schema()["properties"]["max_images_per_save"]
    assert setting["maximum"] == MOST_IMAGES


def test_control_characters_written_as_yaml_escapes_are_refused() -> None:
    """The file has none, but the prompt would."""
    assert messages('prompt: "a\\x1b[31m"') == [
        "prompt contains the invisible character U+001B. Remove it."
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("prompt: a\nsteps: 8.0\nwidth: 64.0\nseed: [3.0]\nhires: {steps: 4.0}\n", "a.yaml"),
        ("a --steps 8.0 --width 64.0 --seed 3.0 --hires true\n", "a.txt"),
        ('{"prompt": "a", "steps": 8.0, "width": 64.0, "seed": [3.0], "hires": true}', "a.json"),
    ],
)
def test_a_whole_number_may_end_in_point_zero(text: str, name: str) -> None:
    """Tables with gaps give such numbers, and JSON Schema takes them for whole ones."""
    recipe = read_one(text, name)
    seeds = [request.seed for request in recipe.image_requests(hash_of)]
    assert (recipe.steps, recipe.width, seeds) == (8, 64, [3])
