"""A picture's recipe as YAML: it makes the same picture again."""

from dataclasses import replace

import pytest
from hypothesis import given

from picowatch.metadata import picowatch_json, recipe_yaml, short_recipe_yaml
from picowatch.recipe import DefaultsFile, ImageRequest, read_recipes
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import LoraUse
from tests.metadata.requests import CORGI, hashes_of, image_requests, inventory_for
from tests.recipe.reading import PicturesWith

DEFAULTS = DefaultsFile(
    "_defaults.yaml",
    b"negative_prompt: x\nvae: baked\nclip_skip: 3\ncount: 2\nexact: true\nschedule_type: beta\n"
    b"loras: {add_detail: 1}\nimage: x.png\nstrength: 0.1\nresize: fit\nmask: y.png\nmask_blur: 1\n"
    b"mask_invert: true\nhires: {scale: 3, steps: 9}\nshrink_to_fit: true\n"
    b"prediction: v_zero_snr\nsweep: {steps: [1, 2]}\nnoise: nvidia\nvariation_seed: 3\n"
    b"variation_strength: 0.5\nensd: 9\ntiling: true\n",
)


def test_it_reads_like_a_recipe_somebody_wrote() -> None:
    """Every field is there, so that no folder's defaults change the picture."""
    request = replace(CORGI, prompt="it's a corgi: \\(cute\\)", negative_prompt="blurry,\ndim # x")
    assert recipe_yaml(request) == (
        "prompt: 'it''s a corgi: \\(cute\\)'\n"
        "negative_prompt: |-\n"
        "  blurry,\n"
        "  dim # x\n"
        "checkpoint: 'dreamshaper_8'\n"
        "vae: baked\n"
        "prediction: automatic\n"
        "sampler: DPM++ 2M\n"
        "schedule_type: karras\n"
        "steps: 24\n"
        "cfg_scale: 7.5\n"
        "cfg_rescale: 0\n"
        "cfg_start: 0\n"
        "cfg_end: 1\n"
        "guidance: 0\n"
        "size: 512x768\n"
        "seed: 42\n"
        "noise: cpu\n"
        "variation_strength: 0\n"
        "ensd: 0\n"
        "clip_skip: 1\n"
        "image: none\n"
        "hires: false\n"
        "tiling: false\n"
        "upscale: false\n"
        "shrink_to_fit: false\n"
        "exact: false\n"
        "loras: {}\n"
        "control: none\n"
        "count: 1\n"
        "sweep: off\n"
    )


def _again(request: ImageRequest) -> ImageRequest:
    content = recipe_yaml(request).encode()
    (recipe,) = read_recipes("shown.yaml", content, inventory_for(request), [DEFAULTS])
    (again,) = recipe.image_requests(hashes_of(request))
    return again


def test_a_short_recipe_has_only_what_differs() -> None:
    """Beside what depends on the models that are installed, or on their family."""
    assert short_recipe_yaml(replace(CORGI, negative_prompt="")) == (
        "prompt: 'a corgi'\ncheckpoint: 'dreamshaper_8'\nsize: 512x768\nseed: 42\n"
    )
    other = replace(CORGI, image="a.png", image_hash="1" * 64, steps=9, sampler="Euler",
                    schedule_type="simple", denoising_strength=0.3)  # fmt: skip
    assert short_recipe_yaml(other).partition("checkpoint: 'dreamshaper_8'\n")[2] == (
        "sampler: Euler\nschedule_type: simple\nsteps: 9\ncfg_scale: 7.5\nguidance: 0\n"
        "size: 512x768\nseed: 42\nimage: 'a.png'\ndenoising_strength: 0.3\n"
    )
    demo = replace(CORGI, negative_prompt="", checkpoint="demo")
    assert "\ncfg_scale: 7.5\n" in short_recipe_yaml(demo)


@given(image_requests())
def test_a_short_recipe_gives_the_same_request(request: ImageRequest) -> None:
    """Where no folder's defaults say anything else."""
    content = short_recipe_yaml(request).encode()
    (recipe,) = read_recipes("short.yaml", content, inventory_for(request), [])
    (again,) = recipe.image_requests(hashes_of(request))
    assert again.digest == request.digest


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        " ",
        " a corgi ",
        "a: b",
        "a # b",
        "# a",
        "'",
        '"',
        "'\"\\",
        "yes",
        "~",
        "\n",
        "a\n",
        "a\n\n b\n\nc",
        "a\tb\n\tc",
        "👨‍👩‍👧 a\n猫",
        "a\u00a0\u200b\N{RIGHT-TO-LEFT OVERRIDE}b",
        "---\na\n...",
        "\ufeffa",
        "a " * 5000,
    ],
)
def test_hostile_prompts_read_back_exactly(prompt: str) -> None:
    """Quotes, comments, documents, white space, characters that cannot be seen."""
    request = replace(CORGI, prompt=prompt, negative_prompt=prompt)
    assert _again(request) == request


@given(image_requests())
def test_any_request_reads_back_as_the_same_request(request: ImageRequest) -> None:
    """The digest is the picture's identity."""
    assert _again(request).digest == request.digest


def test_start_images_loras_and_hires_are_restored() -> None:
    """The start image's path as the recipe had it; LoRAs of the prompt stay there."""
    request = replace(
        CORGI,
        prompt="a <lora:add:0.5> corgi",
        loras=(LoraUse("style/it's", "b" * 64, -1.0), LoraUse("add_detail", "a" * 64, 0.5)),
        image="photos/a.png",
        image_hash="1" * 64,
        denoising_strength=0.3,
        resize="fit",
        mask="m.png",
        mask_hash="2" * 64,
        mask_blur=8,
        mask_invert=True,
        hires=Hires(1.5, 0, 1e-7, "Latent (nearest-exact)"),
        shrink_to_fit=True,
    )
    assert recipe_yaml(request).partition("clip_skip: 1\n")[2] == (
        "image: 'photos/a.png'\n"
        "denoising_strength: 0.3\n"
        "resize: fit\n"
        "mask: 'm.png'\n"
        "mask_blur: 8\n"
        "mask_invert: true\n"
        "hires: {scale: 1.5, steps: 0, denoising_strength: 1.0e-07, upscaler: Latent "
        "(nearest-exact)}\n"
        "tiling: false\n"
        "upscale: false\n"
        "shrink_to_fit: true\n"
        "exact: false\n"
        "loras: {'style/it''s': -1}\n"
        "control: none\n"
        "count: 1\n"
        "sweep: off\n"
    )


@given(image_requests())
def test_a_picture_of_ours_is_a_recipe_again(request: ImageRequest) -> None:
    """`from:` gives the same request as the YAML that `picowatch show` prints."""
    texts = {
        "picowatch": picowatch_json(
            request,
            recipe="a.yaml",
            save_digest="5",
            entry_index=0,
            image_index=0,
            rendered={},
        )
    }
    (recipe,) = read_recipes(
        "again.yaml",
        b"from: a.png",
        inventory_for(request),
        [],
        pictures=PicturesWith(lambda _: texts),
    )
    (again,) = recipe.image_requests(hashes_of(request))
    assert again.digest == request.digest
