"""Stable Diffusion's pictures are those of a plain script with diffusers, except for rounding.

`exact: true` with `precision: float32`, by the schedulers as docs/moving.md calls them.
"""

from copy import copy
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from picowatch.catalog import Catalog
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.samplers import NOISE_LEVELS, STOP_EARLY, build_sampler, class_of
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import EVEN, SAMPLERS, KnownSampler, sampler_named
from tests.engine.demo import named
from tests.engine.requests import (
    Pixels,
    as_pixels,
    circle,
    draw,
    half,
    keep,
    pixels,
    plain_options,
    right_half,
    start,
)
from tests.engine.tiny_flows import checkpoints_of, tiny_unet

_D: Any = diffusers


FAMILIES = ("demo", "sd2", "sdxl")
INPAINTING = ("sd2-inpainting", "sdxl-inpainting")
EULER: dict[str, Any] = {"sampler": "Euler", "schedule_type": "leading", "steps": 4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All folders but the demo, which is always there; start images, too."""
    folders = {name: tiny_unet(name) for name in (*FAMILIES[1:], *INPAINTING)}
    return checkpoints_of(tmp_path_factory.mktemp("against") / "models", **folders)


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    return Renderer(plain_options(models))


@cache
def loaded(name: str, kind: str = "") -> Any:
    """What a script loads as "", "Img2Img" or "Inpaint"; the demo is a Stable Diffusion 1.x."""
    made = getattr(diffusers, f"StableDiffusion{'XL' * name.startswith('sdxl')}{kind}Pipeline")
    folder = Catalog(Path("nowhere")).demo.path if name == "demo" else tiny_unet(name)
    found = made.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found


@cache
def pipeline(name: str, kind: str = "", scheduler: Any = None) -> Any:
    """The same with a scheduler created from the folder's as usual."""
    found = copy(loaded(name, kind))
    made = scheduler or (_D.EulerDiscreteScheduler if name == "demo" else type(found.scheduler))
    found.scheduler = made.from_config(found.scheduler.config)
    return found


def asked(models: Path, name: str, prompt: str = "a corgi", **values: Any) -> ImageRequest:
    """Return a request for a small picture; wider than high, unless it has a start image."""
    given = {"prompt": prompt, "checkpoint": name, "exact": True, "seed": 4, **EULER}
    size = {} if "image" in values else {"width": 96, "height": 64}
    wanted: ImageRequest = named(models, **given | size | values)
    return wanted


def theirs(of: Any, wanted: ImageRequest, **more: Any) -> Pixels:
    """Return a pipeline's picture for a request; it gets a negative prompt only if there is one."""
    given = {
        "prompt": wanted.prompt,
        "negative_prompt": wanted.negative_prompt or None,
        "num_inference_steps": wanted.steps,
        "guidance_scale": wanted.cfg_scale,
        "generator": torch.Generator("cpu").manual_seed(wanted.seed),
        "output_type": "np",
    }
    if not wanted.image:
        given |= {"width": wanted.width, "height": wanted.height}
    found: Pixels = (of(**given | more).images[0] * 255).round().astype(np.int16)
    return found


def assert_equal(ours: Renderer, wanted: ImageRequest, expected: Pixels) -> None:
    """Assert that pictures are equal except for rounding, and not empty."""
    (image,) = draw(ours, wanted)
    picture = pixels(image)
    assert np.abs(picture - expected).max() <= 1
    assert picture.std() > 5


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let diffusers encode pictures to the mode, too: samples would use up random numbers."""
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("sdxl", {}),
        *((name, {"negative_prompt": "a cat"}) for name in FAMILIES),
        ("demo", {"cfg_scale": 1.0, "negative_prompt": "a cat"}),
        ("sd2", {"negative_prompt": "a cat", "cfg_scale": 9.0, "cfg_rescale": 0.7}),
    ],
)
def test_a_picture_from_text(
    name: str, values: dict[str, Any], models: Path, ours: Renderer
) -> None:
    """XL's empty negative prompt is zeros, that of the others is encoded, as in their pipelines."""
    wanted = asked(models, name, **values)
    expected = theirs(pipeline(name), wanted, guidance_rescale=wanted.cfg_rescale)
    assert_equal(ours, wanted, expected)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        *((name, "Euler") for name in FAMILIES),
        *(("demo", sampler) for sampler in ("Euler a", "DDIM", "DPM++ 2M")),
    ],
)
@pytest.mark.usefixtures("modes")
def test_a_picture_from_a_start_image(
    name: str, sampler: str, models: Path, ours: Renderer
) -> None:
    """The picture begins in the middle of the steps, with the seed's noise."""
    wanted = asked(models, name, sampler=sampler, **start(models, 0.6))
    of = pipeline(name, "Img2Img", class_of(sampler_named(sampler)))
    assert_equal(ours, wanted, theirs(of, wanted, image=circle(), strength=0.6))


@pytest.mark.parametrize(
    ("name", "strength"),
    [*((name, 0.6) for name in (*FAMILIES, *INPAINTING)), (INPAINTING[0], 1.0)],
)
@pytest.mark.usefixtures("modes")
def test_a_part_of_a_picture(name: str, strength: float, models: Path, ours: Renderer) -> None:
    """Only the masked part is compared: outside, diffusers decodes the start image from latents."""
    wanted = asked(models, name, **start(models, strength), **right_half(models))
    expected = theirs(
        pipeline(name, "Inpaint"), wanted, image=circle(), mask_image=half(), strength=strength
    )
    picture = pixels(draw(ours, wanted)[0])
    assert np.abs(picture - expected)[:, 64:].max() <= 1
    assert np.abs(picture - as_pixels(circle()))[:, 64:].max() > 5
    assert np.array_equal(picture[:, :64], as_pixels(circle())[:, :64])


LANCZOS = Image.Resampling.LANCZOS
# White in a picture of 128x96, with so many pixels around it, and the box that is drawn of it.
PLACES = {
    "inside": ((60, 40, 80, 50), 8, (52, 27, 88, 63)),
    "in a corner": ((0, 0, 10, 6), 4, (0, 0, 14, 14)),
    "at the right and below": ((120, 90, 128, 96), 4, (116, 84, 128, 96)),
    "a pixel wide": ((64, 20, 65, 60), 0, (45, 20, 85, 60)),
    "the whole picture": ((0, 0, 128, 96), 8, (0, 0, 128, 96)),
    "nothing": ((0, 0, 0, 0), 32, (0, 0, 128, 96)),
}


def in_a_square(picture: Image.Image, resampling: Any) -> Image.Image:
    """Return a part of 64x64, or of 64x48 with its first and last row repeated."""
    small = picture.resize((64, 64 * picture.height // picture.width), resampling)
    margin = (64 - small.height) // 2
    pixels = np.asarray(small)
    margins = [(margin, margin), *[(0, 0)] * (pixels.ndim - 1)]
    return Image.fromarray(np.pad(pixels, margins, mode="edge"))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("modes")
def test_only_the_masked_part_is_drawn(name: str, models: Path, ours: Renderer) -> None:
    """As a crop, a drawing and a paste by hand, all in one batch; the picture keeps its size."""
    photo, of = circle(128, 96), pipeline(name, "Inpaint")
    square: dict[str, Any] = {"width": 64, "height": 64}
    wanted, expected = [], list[Pixels]()
    for white, padding, box in PLACES.values():
        mask = Image.new("L", photo.size)
        mask.paste(255, white)
        given = {"mask": "m.png", "mask_hash": keep(models, mask), "mask_blur": 0, **square}
        given |= {"mask_padding": padding, "exact": False}
        wanted.append(asked(models, name, **start(models, 0.8, photo), **given))
        # A latent is redrawn if any of its pixels is white.
        holes = np.asarray(in_a_square(mask.crop(box), Image.Resampling.BOX))
        holes = holes.reshape(8, 8, 8, 8).max((1, 3)).repeat(8, 0).repeat(8, 1)
        part = in_a_square(photo.crop(box), LANCZOS)
        more = {"image": part, "mask_image": Image.fromarray(holes), "strength": 0.8}
        drawn = Image.fromarray(theirs(of, wanted[-1], **more, **square).astype(np.uint8))
        size = box[2] - box[0], box[3] - box[1]
        high = 64 * size[1] // size[0]
        shown = drawn.crop((0, (64 - high) // 2, 64, (64 + high) // 2)).resize(size, LANCZOS)
        by_hand = photo.copy()
        by_hand.paste(shown, box[:2], mask.crop(box))
        expected.append(as_pixels(by_hand))
    for place, image, pasted in zip(PLACES, draw(ours, *wanted), expected, strict=True):
        picture = pixels(image)
        assert picture.shape == (96, 128, 3)
        assert np.abs(picture - pasted).max() <= 1, place
        assert (picture != as_pixels(photo)).any() == (place != "nothing")


# The samplers that were published with "leading": it is their "uniform".
LEADING = ("DDIM", "DDPM", "PNDM", "LCM", "TCD")


def options(sampler: KnownSampler, schedule_type: str) -> dict[str, Any]:
    """Return the options in docs/moving.md for a sampler and schedule type."""
    match schedule_type:
        case "sgm_uniform":
            return {"timestep_spacing": "trailing"}
        case "linspace":
            return {"timestep_spacing": "linspace"}
        case "uniform" if sampler.name not in LEADING:
            return {"timestep_spacing": "linspace"}
        case "karras" | "exponential":
            return {f"use_{schedule_type}_sigmas": True, "timestep_spacing": "linspace"}
    return {}


def has_option(sampler: KnownSampler, schedule_type: str) -> bool:
    """Return whether a sampler's class has the option; test_samplers.py tests the others."""
    needed = f"use_{schedule_type}_sigmas" if schedule_type not in EVEN else "timestep_spacing"
    return needed in signature(class_of(sampler).__init__).parameters


COMBINATIONS = [
    pytest.param(
        *(sampler, schedule_type),
        id=f"{sampler.name}-{schedule_type}",
        marks=() if schedule_type in ("karras", "uniform") else pytest.mark.heavy,
    )
    for sampler in SAMPLERS
    for schedule_type in sampler.schedule_types
    if schedule_type == "uniform" or has_option(sampler, schedule_type)
    if schedule_type != "uniform" or sampler.scheduler not in STOP_EARLY  # not diffusers'
    if schedule_type not in NOISE_LEVELS  # diffusers needs scipy for beta
]


@pytest.mark.parametrize(("sampler", "schedule_type"), COMBINATIONS)
def test_each_schedule_is_that_of_diffusers_class(
    sampler: KnownSampler, schedule_type: str
) -> None:
    """Timesteps, noise levels and the noise to begin with, for the demo's folder.

    Four steps as Turbo, Lightning, LCM and Hyper take them.
    """
    config = loaded("demo").scheduler.config
    for steps in (4, 20):
        given = options(sampler, schedule_type)
        expected = class_of(sampler).from_config(config, **sampler.options, **given)
        expected.set_timesteps(steps)
        scheduler = build_sampler(sampler.name, schedule_type, steps, config).scheduler
        assert torch.equal(scheduler.timesteps, expected.timesteps)
        assert float(scheduler.init_noise_sigma) == float(expected.init_noise_sigma)
        none = torch.zeros(0)
        assert torch.equal(getattr(scheduler, "sigmas", none), getattr(expected, "sigmas", none))
