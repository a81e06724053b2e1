"""img2img and inpainting with the demo model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline
from PIL import Image, ImageDraw

from picowatch.catalog import Catalog
from picowatch.engine import latents as vaes
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.engine.samplers import build_sampler
from picowatch.errors import RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.samplers import SAMPLERS
from tests.engine.demo import CPU, demo
from tests.engine.pictures import (
    BLUE,
    GREEN,
    RED,
    as_mask,
    as_pixels,
    away_from,
    background,
    circle,
    right_half,
    start,
)
from tests.engine.requests import difference, ignore_steps, pixels, request
from tests.kinds import SAMPLERS_IN_EACH_RUN, one_of_each_kind

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

EVERY_SAMPLER = one_of_each_kind(
    [sampler.name for sampler in SAMPLERS if sampler.name != "LCM"], SAMPLERS_IN_EACH_RUN
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of start images."""
    return tmp_path_factory.mktemp("start-images")


@pytest.fixture(scope="module")
def engine(kept: Path) -> Renderer:
    """In this process, on one thread."""
    options = EngineOptions(models=Path("nowhere"), device="cpu", threads=1, start_images=kept)
    return Renderer(options)


def draw(engine: Renderer, prompt: str = "a red circle on a blue background", **v: Any) -> Any:
    (image,) = engine.render([request(prompt, **v)], ignore_steps)
    return image


def test_a_weak_change_keeps_the_layout_and_a_strong_one_follows_the_prompt(
    engine: Renderer, kept: Path
) -> None:
    """0.3 against 0.9, for a picture that the prompt does not describe."""
    requested = "a green star on a white background"
    weak, strong = (
        draw(engine, requested, **start(kept, strength), steps=14) for strength in (0.3, 0.9)
    )
    assert away_from(weak, circle()) < away_from(strong, circle())
    assert np.abs(background(weak) - BLUE).max() < 60
    assert background(strong).min() > 200
    assert pixels(strong)[:12].mean() > 200
    middle = pixels(strong)[52:76, 52:76].mean((0, 1))
    assert middle[1] == max(middle)


def test_strength_0_gives_the_start_image_as_the_vae_sees_it(engine: Renderer, kept: Path) -> None:
    """Whatever the prompt says; not one step is taken."""
    steps: list[int] = []
    requested = request("a corgi", **start(kept, 0.0))
    (image,) = engine.render([requested], lambda done, total: steps.append(total))
    assert away_from(image, circle()) < 6
    assert not steps


@pytest.mark.parametrize(("strength", "taken"), [(0.01, 1), (0.3, 3), (0.29, 2), (1.0, 10)])
def test_the_share_of_steps_is_the_strength(
    engine: Renderer, kept: Path, strength: float, taken: int
) -> None:
    """As in diffusers and A1111; one step at least."""
    steps: list[tuple[int, int]] = []
    requested = request(**start(kept, strength), steps=10)
    engine.render([requested], lambda done, total: steps.append((done, total)))
    assert steps == [(done, taken) for done in range(1, taken + 1)]


@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_every_sampler_starts_in_the_middle(engine: Renderer, kept: Path, sampler: str) -> None:
    """With the noise its own schedule has there: a wrong amount would show as grain or grey."""
    found = next(s for s in SAMPLERS if s.name == sampler)
    image = draw(
        engine,
        **start(kept, 0.4),
        steps=8,
        sampler=sampler,
        schedule_type=found.automatic,
    )
    assert away_from(image, circle()) < 16


@pytest.mark.parametrize(
    ("sampler", "schedule_type"),
    [("DPM++ 2M", "karras"), ("Euler a", "uniform"), ("Heun", "uniform"), ("DDIM", "uniform")],
)
def test_img2img_gives_what_diffusers_pipeline_gives(
    engine: Renderer, kept: Path, sampler: str, schedule_type: str
) -> None:
    """From the same latents; at most rounding differs."""
    pipeline: Any = StableDiffusionImg2ImgPipeline.from_pretrained(
        Catalog(Path("nowhere")).demo.path, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    values: dict[str, Any] = {"sampler": sampler, "schedule_type": schedule_type, "steps": 5}
    image = draw(engine, "a corgi", **start(kept, 0.6), **values)
    schedule = demo().schedule
    pipeline.scheduler = build_sampler(sampler, schedule_type, 5, schedule).scheduler
    with torch.inference_mode():
        latents = vaes.encode(demo().vae, np.asarray(circle()), CPU.device)
    expected = pipeline(
        "a corgi",
        image=latents,
        strength=0.6,
        negative_prompt="",
        generator=[torch.Generator().manual_seed(1)],
        guidance_scale=5.0,
        num_inference_steps=5,
        output_type="np",
    ).images[0]
    assert np.abs(pixels(image) - (expected * 255).round()).max() <= 1


def test_a_mask_changes_only_its_inside(engine: Renderer, kept: Path) -> None:
    """Byte for byte; and the inside follows the prompt."""
    image = draw(
        engine,
        "a yellow star on the right on a blue background",
        **start(kept, 0.9),
        **right_half(kept),
        steps=10,
    )
    assert np.array_equal(pixels(image)[:, :64], as_pixels(circle())[:, :64])
    red, green, blue = np.moveaxis(pixels(image)[:, 72:], -1, 0)
    assert ((red > 160) & (green > 140) & (blue < 120)).sum() > 200


@pytest.mark.parametrize("sampler", EVERY_SAMPLER)
def test_masks_work_with_every_sampler(engine: Renderer, kept: Path, sampler: str) -> None:
    """What is redrawn fits what is kept: a wrong amount of noise would break it."""
    found = next(s for s in SAMPLERS if s.name == sampler)
    image = draw(
        engine,
        **start(kept, 0.7),
        **right_half(kept),
        steps=8,
        sampler=sampler,
        schedule_type=found.automatic,
    )
    assert np.array_equal(pixels(image)[:, :64], as_pixels(circle())[:, :64])
    blue = pixels(image)[100:, 70:].mean((0, 1))
    assert blue[2] > 150 > blue[0]


def test_mask_invert_redraws_the_black_part(engine: Renderer, kept: Path) -> None:
    """And keeps the white."""
    mask = right_half(kept, invert=True)
    image = draw(engine, "a green background", **start(kept, 0.9), **mask)
    assert np.array_equal(pixels(image)[:, 64:], as_pixels(circle())[:, 64:])
    assert not np.array_equal(pixels(image)[:, :64], as_pixels(circle())[:, :64])


def test_mask_blur_blends_around_the_edge(engine: Renderer, kept: Path) -> None:
    """Far from it the start image comes back unchanged all the same."""
    values = {**start(kept, 0.9), "steps": 6}
    hard, soft = (
        draw(engine, "a green background", **right_half(kept, blur=blur), **values)
        for blur in (0, 4)
    )
    assert np.array_equal(pixels(soft)[:, :40], as_pixels(circle())[:, :40])
    assert not np.array_equal(pixels(soft)[:, 56:64], as_pixels(circle())[:, 56:64])
    assert np.array_equal(pixels(soft)[:, 88:], pixels(hard)[:, 88:])


def test_a_thin_white_line_is_redrawn(engine: Renderer, kept: Path) -> None:
    """Although it is thinner than a latent."""
    mask = Image.new("L", (128, 128))
    mask.paste(255, (100, 0, 102, 128))
    line = as_mask(kept, mask, 0, False)
    image = draw(engine, "a white background", **start(kept, 1.0), **line)
    changed = np.abs(pixels(image) - as_pixels(circle())).max((0, 2)) > 0
    assert list(np.flatnonzero(changed)) == [100, 101]


def test_images_with_start_images_do_not_depend_on_their_neighbours(
    engine: Renderer, kept: Path
) -> None:
    """Other start images, masks and seeds in one batch."""
    values: dict[str, Any] = {"sampler": "DPM++ 2M SDE", "schedule_type": "karras", "steps": 4}
    other = Image.new("RGB", (300, 200), GREEN)
    requested = [
        request(seed=1, **start(kept, 0.5), **right_half(kept), **values),
        request(seed=2, **start(kept, 0.5, other), **right_half(kept, invert=True)),
    ]
    requested[1] = replace(requested[1], **values)
    together = engine.render(requested, ignore_steps)
    for image, one in zip(together, requested, strict=True):
        assert difference(image, engine.render([one], ignore_steps)[0]) <= 2


def test_hires_keeps_the_outside_of_a_mask_at_the_larger_size(engine: Renderer, kept: Path) -> None:
    """Both passes start from the start image, fitted to their own size."""
    sharp = circle(256)
    image = draw(
        engine,
        **start(kept, 0.8, sharp),
        **right_half(kept),
        hires=Hires(2.0, 2, 0.5, "Latent"),
        steps=4,
    )
    assert (image.width, image.height) == (256, 256)
    assert np.array_equal(pixels(image)[:, :120], as_pixels(sharp)[:, :120])
    assert not np.array_equal(pixels(image)[:, 136:], as_pixels(sharp)[:, 136:])


def test_start_images_of_other_sizes_are_fitted(engine: Renderer, kept: Path) -> None:
    """crop, fit and stretch differ, and each gives the requested size."""
    wide = Image.new("RGB", (400, 100), BLUE)
    ImageDraw.Draw(wide).rectangle((0, 0, 60, 100), fill=RED)
    drawn = {}
    for resize in ("crop", "fit", "stretch"):
        given = start(kept, 0.0, wide) | {"resize": resize}
        drawn[resize] = pixels(draw(engine, **given))
    left = {resize: drawn[resize][64, 4] for resize in drawn}
    assert left["crop"][2] > 150 > left["crop"][0]
    assert left["fit"][0] > 150 > left["fit"][2]
    assert left["stretch"][0] > 150 > left["stretch"][2]
    assert (drawn["fit"][4, 8][0] > 150) and (drawn["stretch"][4, 17][0] > 150)


def test_a_lost_copy_is_explained(engine: Renderer, kept: Path) -> None:
    """It was kept when the save was accepted; somebody has taken it away."""
    with pytest.raises(RenderFailed, match=r"copy of 'a\.png' is missing"):
        draw(engine, image="a.png", image_hash="0" * 64, denoising_strength=0.5)
