"""A picture's recipe as YAML: it makes the same picture again."""

from dataclasses import replace

import yaml
from hypothesis import given

from picowatch.metadata import differing_fields, recipe_yaml, settings_yaml
from picowatch.recipe import ImageRequest
from picowatch.recipe.fields import ROWS
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import LoraUse
from tests.metadata.requests import CORGI, image_requests, inventory_for
from tests.recipe.reading import chunk_of, hash_of, read_one

DEFAULTS = (
    "negative_prompt: x\nvae: baked\nclip_skip: 3\ncount: 2\nexact: true\nschedule_type: beta\n"
    "loras: {add_detail: 1}\nimage: x.png\nstrength: 0.1\nresize: fit\nmask: y.png\nmask_blur: 1\n"
    "mask_invert: true\nhires: {scale: 3, steps: 9}\nshrink_to_fit: true\n"
    "prediction: v_zero_snr\nsweep: {steps: [1, 2]}\nnoise: nvidia\nvariation_seed: 3\n"
    "variation_strength: 0.5\nensd: 9\ntiling: true\n"
)
# Quotes, comments, documents, white space, characters that cannot be seen.
HOSTILE = [
    *("", " ", " a corgi ", "a: b", "a # b", "# a", "'", '"', "'\"\\", "yes", "~", "\n", "a\n"),
    *("a\n\n b\n\nc", "a\tb\n\tc", "👨‍👩‍👧 a\n猫", "---\na\n...", "\ufeffa", "a " * 5000),
    "a\u00a0\u200b\N{RIGHT-TO-LEFT OVERRIDE}b",
]


def test_it_reads_like_a_recipe_somebody_wrote() -> None:
    """Every field is there, so that no folder's defaults change the picture."""
    request = replace(CORGI, prompt="it's a corgi: \\(cute\\)", negative_prompt="blurry,\ndim # x")
    text = recipe_yaml(request)
    assert text.startswith(
        "prompt: 'it''s a corgi: \\(cute\\)'\nnegative_prompt: |-\n  blurry,\n  dim # x\n"
        "checkpoint: dreamshaper_8\nvae: baked\n"
    )
    assert "\nsampler: DPM++ 2M\n" in text
    assert "\ncfg_scale: 7.5\ncfg_rescale: 0\n" in text
    assert "\nsize: 512x768\nseed: 42\n" in text
    assert text.endswith("\nloras: {}\nreferences: none\ncontrol: none\ncount: 1\nsweep: false\n")
    idle = {"height", "width", "mask", "mask_blur", "mask_invert", "variation_seed", "resize"}
    idle |= {"denoising_strength"} | {name for name, row in ROWS.items() if not row.changes_pixels}
    idle -= {"count", "sweep"}
    assert set(yaml.safe_load(text)) == ROWS.keys() - idle | {"size"}


def _short(request: ImageRequest) -> str:
    return recipe_yaml(request, differing_fields(request))


def test_a_short_recipe_has_only_what_differs() -> None:
    """It also has fields that depend on the installed models or their family."""
    assert _short(replace(CORGI, negative_prompt="")) == (
        "prompt: a corgi\ncheckpoint: dreamshaper_8\nsize: 512x768\nseed: 42\n"
    )
    other = replace(CORGI, image="a.png", image_hash="1" * 64, steps=9, sampler="Euler",
                    schedule_type="simple", denoising_strength=0.3)  # fmt: skip
    assert _short(other).partition("checkpoint: dreamshaper_8\n")[2] == (
        "sampler: Euler\nschedule_type: simple\nsteps: 9\ncfg_scale: 7.5\nguidance: 0\n"
        "size: 512x768\nseed: 42\nimage: a.png\ndenoising_strength: 0.3\n"
    )
    demo = replace(CORGI, negative_prompt="", checkpoint="demo")
    assert "\ncfg_scale: 7.5\n" in _short(demo)


@given(image_requests())
def test_any_request_reads_back_as_the_same_request(request: ImageRequest) -> None:
    """By what `show` prints, in a folder with any defaults; in short; and by `from:`."""
    inventory, chunk = inventory_for(request), chunk_of(request)
    for recipe in (
        read_one(recipe_yaml(request), inventory=inventory, defaults=DEFAULTS),
        read_one(_short(request), inventory=inventory),
        read_one("from: a.png", inventory=inventory, texts=chunk),
    ):
        (again,) = recipe.image_requests(hash_of)
        assert again.digest == request.digest  # the picture's identity


def test_hostile_prompts_read_back_exactly() -> None:
    """Also where they look like YAML."""
    corgi = replace(CORGI, checkpoint_hash=hash_of("checkpoint", ""))
    for prompt in HOSTILE:
        request = replace(corgi, prompt=prompt, negative_prompt=prompt)
        content, inventory = recipe_yaml(request), inventory_for(request)
        recipe = read_one(content, inventory=inventory, defaults=DEFAULTS)
        assert recipe.image_requests(hash_of) == [request]


def test_loras_of_the_prompt_stay_there() -> None:
    """The others are beside it; numbers are as short as they can be."""
    loras = (LoraUse("style/it's", "b" * 64, -1.0), LoraUse("add_detail", "a" * 64, 0.5))
    hires = Hires(1.5, 0, 1e-7, "Latent (nearest-exact)")
    request = replace(CORGI, prompt="a <lora:add:0.5> corgi", loras=loras, hires=hires)
    text = recipe_yaml(request)
    assert "\nhires:\n  scale: 1.5\n  steps: 0\n  denoising_strength: 1.0e-07\n" in text
    assert "\nloras:\n  style/it's: -1\nreferences: none\ncontrol: none\n" in text


def test_half_a_character_in_a_text_is_replaced() -> None:
    """Escapes in JSON may give lone surrogates, which no file can hold."""
    assert settings_yaml({"prompt": "a \ud800cat"}, []) == "prompt: a ?cat\n"
