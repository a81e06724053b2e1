"""Which images share a batch, and how many."""

from dataclasses import replace
from typing import Any

import pytest
from picowatch.engine.models.parts import SD15
from picowatch.engine.unet.batch import equal_parts

from picowatch.catalog import read_config
from picowatch.engine.samplers import build_sampler
from picowatch.recipe.fields import ROWS
from picowatch.recipe.parts import Hires, Upscale
from picowatch.recipe.passes import evaluations
from picowatch.recipe.request import ControlUse, EmbeddingUse, LoraUse
from picowatch.recipe.samplers import SAMPLERS, KnownSampler
from picowatch.work.batch_sizes import batch_size_for
from tests.engine.requests import request

# diffusers' and torch's own, with this numpy.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

CONFIG = read_config(SD15 / "scheduler" / "scheduler_config.json")


def test_prompts_and_seeds_may_differ_in_a_batch() -> None:
    """Each image has its own text and noise."""
    other = request("a corgi", negative_prompt="blurry", seed=2)
    assert request().batch_key == other.batch_key


@pytest.mark.parametrize(
    "other",
    [
        {"checkpoint_hash": "1"},
        {"checkpoint": "other"},
        {"vae": "soft"},
        {"vae_hash": "1"},
        {"sampler": "Euler"},
        {"schedule_type": "uniform"},
        {"steps": 7},
        {"cfg_scale": 7.0},
        {"width": 64},
        {"height": 64},
        {"clip_skip": 2},
        {"exact": True},
        {"loras": (LoraUse("a", "1", 0.5),)},
        {"control": (ControlUse("a.png", "canny"),)},
        {"image": "a.png", "image_hash": "1", "denoising_strength": 0.5, "resize": "crop"},
        {"hires": Hires(2.0, 0, 0.5, "Latent")},
        {"shrink_to_fit": True},
    ],
    ids=lambda other: next(iter(other)),
)
def test_everything_else_must_be_equal(other: dict[str, object]) -> None:
    """They go through the UNet together."""
    different = request(**other)  # type: ignore[arg-type]
    assert request().batch_key != different.batch_key


PIXELS = [name for name, row in ROWS.items() if row.changes_pixels]
OF_OTHER_TYPES: dict[str, Any] = {
    "hires": Hires(),
    "control": (ControlUse("a.png", "canny"),),
    "loras": (LoraUse("a", "1", 0.5),),
    "prediction": "v",
    "resize": "stretch",
    "schedule_type": "beta",
    "upscale": Upscale("4x", 2.0),
    "variation_seed": 5,
    "width": 64,
    "height": 64,
}


def _another(name: str, value: Any) -> Any:
    """Another value of the same type, or the one from the table above."""
    if name in OF_OTHER_TYPES:
        return OF_OTHER_TYPES[name]
    if isinstance(value, bool):
        return not value
    return value + " too" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("name", PIXELS)
def test_every_field_that_changes_pixels_is_in_the_digest(name: str) -> None:
    """Or two different pictures would be taken for one, and the second never be rendered."""
    first = request(image="a.png", mask="b.png", variation_strength=0.5)
    other = replace(first, **{name: _another(name, getattr(first, name))})
    assert first.digest != other.digest


@pytest.mark.parametrize("name", PIXELS)
def test_every_field_that_changes_pixels_is_in_the_batch_key_or_may_differ(name: str) -> None:
    """Or its neighbours in the batch would get the wrong pixels."""
    first = request(image="a.png", mask="b.png", variation_strength=0.5)
    other = replace(first, **{name: _another(name, getattr(first, name))})
    assert (first.batch_key == other.batch_key) == (ROWS[name].batch == "may differ")


def test_the_fields_that_may_differ_within_a_batch_are_each_images_own() -> None:
    """The engine reads these for each image, and all others once for the batch."""
    assert {name for name in PIXELS if ROWS[name].batch == "may differ"} == {
        *("prompt", "negative_prompt", "seed"),
        *("noise", "ensd", "variation_seed", "variation_strength"),
        *("image", "resize", "mask", "mask_blur", "mask_invert"),
    }


def test_embeddings_start_images_and_masks_may_differ() -> None:
    """They are each image's own; only whether there is one, and how strong, must agree."""
    first, second = (
        request(
            image=path,
            image_hash=path,
            denoising_strength=0.5,
            resize=resize,
            mask=path,
            mask_hash=path,
            mask_blur=blur,
            mask_invert=False,
            embeddings=(EmbeddingUse(path, path),),
        )
        for path, resize, blur in (("a", "crop", 0), ("b", "fit", 4))
    )
    assert first.batch_key == second.batch_key
    for changed in (
        replace(second, image="b", image_hash="b", denoising_strength=0.6, resize="crop"),
        replace(second, mask=""),
    ):
        assert first.batch_key != changed.batch_key


def test_exact_images_share_with_none() -> None:
    """Not even with each other."""
    assert request(exact=True).batch_key != request(exact=True, seed=2).batch_key


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [(64, 64, 16), (128, 128, 16), (256, 256, 4), (512, 512, 1), (2048, 2048, 1)],
)
def test_auto_goes_by_pixels(width: int, height: int, expected: int) -> None:
    """Sixteen small ones, one large one."""
    assert batch_size_for(request(width=width, height=height), "auto") == expected


def test_with_hires_the_larger_size_counts() -> None:
    """That is where memory runs out."""
    assert batch_size_for(request(hires=Hires(2.0, 0, 0.5, "Latent")), "auto") == 4


def test_a_set_batch_size_is_taken_and_exact_is_one() -> None:
    """Whatever the size of the image."""
    assert batch_size_for(request(width=512, height=512), 4) == 4
    assert batch_size_for(request(exact=True), 4) == 1


@pytest.mark.parametrize(
    ("images", "cores", "parts"),
    [
        (8, 2, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (2, 2, [[0], [1]]),
        (1, 2, [[0]]),
        (3, 2, [[0, 1, 2]]),
        (5, 2, [[0, 1, 2], [3, 4, 4]]),
        (5, 4, [[0, 1], [2, 3], [4, 4]]),
        (6, 4, [[0, 1], [2, 3], [4, 5]]),
        (3, 1, [[0, 1, 2]]),
    ],
)
def test_parts_of_a_batch_are_equal(images: int, cores: int, parts: list[list[int]]) -> None:
    """So that a picture does not depend on its position; the last one fills up the last part."""
    assert equal_parts(images, cores) == parts


@pytest.mark.parametrize("steps", [1, 2, 9])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_evaluations_are_those_of_the_engine(sampler: KnownSampler, steps: int) -> None:
    """Measurements of the one sampler are compared with those of the other."""
    for strength in (1.0, 0.5, 0.05):
        requested = request(
            sampler=sampler.name,
            schedule_type=sampler.automatic,
            steps=steps,
            image="a" if strength < 1 else "",
            denoising_strength=strength,
        )
        built = build_sampler(sampler.name, sampler.automatic, steps, CONFIG, strength)
        assert evaluations(requested) == len(built.timesteps)


def test_the_second_pass_of_hires_counts() -> None:
    """With steps of its own, or with those of the first."""
    assert evaluations(request(steps=20, hires=Hires(2.0, 10, 0.5, "Latent"))) == 25
    assert evaluations(request(steps=20, hires=Hires(2.0, 0, 0.5, "Latent"))) == 30
