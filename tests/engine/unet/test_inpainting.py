"""Checkpoints whose UNet looks at mask and start image: nine input channels."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, StableDiffusionXLInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from safetensors.torch import save_file

from picowatch.catalog import Catalog
from picowatch.engine.latents import LATENT_FACTOR
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ImageRequest
from tests.engine.demo import DEMO, checkpoints, named
from tests.engine.ldm import weights, write_single_file
from tests.engine.pictures import as_pixels, circle, right_half, start
from tests.engine.requests import difference, ignore_steps, pixels, request
from tests.engine.tiny_models import tiny_sd2, tiny_sdxl

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


def inpainting_demo(models: Path) -> Path:
    """The demo with five more inputs, to which it is blind."""
    folder = models / "checkpoints/inpaint"
    shutil.copytree(DEMO, folder)
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"in_channels": 9}))
    tensors = weights(folder / "unet")
    blind = torch.zeros(64, 5, 3, 3, dtype=tensors["conv_in.weight"].dtype)
    tensors["conv_in.weight"] = torch.cat([tensors["conv_in.weight"], blind], dim=1)
    save_file(tensors, folder / "unet/diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def engine(models: Path, tmp_path: Path) -> Renderer:
    inpainting_demo(models)
    options = EngineOptions(models=models, device="cpu", threads=1, start_images=tmp_path)
    return Renderer(options)


def requested(models: Path, **values: Any) -> ImageRequest:
    one: ImageRequest = named(models, checkpoint="inpaint", **values)
    return one


def seen_by_the_unet(engine: Renderer, one: ImageRequest) -> torch.Tensor:
    """The five channels beside the latents, at the first step."""
    seen: list[torch.Tensor] = []
    unet = engine._checkpoints.load(one).unet
    handle = unet.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][:1, 4:]))
    engine.render([one], ignore_steps)
    handle.remove()
    return seen[0]


def test_text_alone_makes_the_picture_that_the_plain_checkpoint_makes(
    engine: Renderer, models: Path
) -> None:
    """All of it is to be redrawn, of nothing but grey."""
    one = requested(models)
    plain = engine.render([request()], ignore_steps)[0]
    assert difference(engine.render([one], ignore_steps)[0], plain) <= 2
    seen = seen_by_the_unet(engine, one)
    assert (seen[0, 0] == 1).all()


def test_the_unet_sees_the_mask_and_what_it_leaves(
    engine: Renderer, models: Path, tmp_path: Path
) -> None:
    """The left half of the circle's latents, and grey on the right."""
    one = requested(models, **start(tmp_path, 0.8), **right_half(tmp_path))
    seen = seen_by_the_unet(engine, one)
    half = 64 // LATENT_FACTOR
    assert (seen[0, 0, :, :half] == 0).all() and (seen[0, 0, :, half:] == 1).all()
    whole = requested(models, **start(tmp_path, 0.8))
    grey = seen_by_the_unet(engine, whole)[0, 1:]
    apart = (seen[0, 1:] - grey).abs().mean((0, 1))
    assert float(apart[half + 2 :].mean()) < 0.5 * float(apart[: half - 2].mean())


def test_outside_the_mask_nothing_changes(engine: Renderer, models: Path, tmp_path: Path) -> None:
    """As with every checkpoint."""
    one = requested(models, **start(tmp_path, 1.0), **right_half(tmp_path))
    (image,) = engine.render([one], ignore_steps)
    assert np.array_equal(pixels(image)[:, :64], as_pixels(circle())[:, :64])


def test_a_single_inpainting_file_is_loaded(models: Path) -> None:
    """The shipped configs say four channels; the file's header says nine."""
    folder = inpainting_demo(models)
    write_single_file(folder, models / "checkpoints/single.safetensors")
    assert Catalog(models).find("checkpoint", "single").in_channels == 9
    loaded = checkpoints(models).load(named(models, checkpoint="single"))
    assert loaded.inpaints
    assert loaded.unet.conv_in.weight.shape[1] == 9


@pytest.mark.parametrize("inpaints", [True, False], ids=["inpainting", "ordinary"])
@pytest.mark.parametrize(
    ("folder", "pipeline"),
    [
        pytest.param(tiny_sdxl, StableDiffusionXLInpaintPipeline, marks=pytest.mark.heavy),
        (tiny_sd2, StableDiffusionInpaintPipeline),
    ],
    ids=["sdxl", "sd2"],
)
def test_what_is_redrawn_is_diffusers_picture(
    folder: Any,
    pipeline: Any,
    inpaints: bool,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If both encode the start image to the mode of the VAE's distribution.

    An ordinary checkpoint gets the rest back after each step.
    """
    (models / "checkpoints").mkdir(parents=True)
    (models / "checkpoints/tiny").symlink_to(folder(inpaints=inpaints))
    options = EngineOptions(models=models, device="cpu", threads=1, start_images=tmp_path)
    ours = Renderer(options)
    theirs = pipeline.from_pretrained(
        folder(inpaints=inpaints), dtype=torch.float32, local_files_only=True
    )
    theirs.set_progress_bar_config(disable=True)
    monkeypatch.setattr(
        DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode()
    )
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    for strength in (0.6, 1.0):
        one: ImageRequest = named(
            models,
            prompt="a corgi",
            negative_prompt="a cat",
            checkpoint="tiny",
            sampler="Euler",
            schedule_type="leading",
            steps=5,
            exact=True,
            **start(tmp_path, strength),
            **right_half(tmp_path),
        )
        (image,) = ours.render([one], ignore_steps)
        found = theirs(
            one.prompt,
            negative_prompt=one.negative_prompt,
            image=circle(),
            mask_image=mask,
            strength=strength,
            num_inference_steps=one.steps,
            guidance_scale=one.cfg_scale,
            width=128,
            height=128,
            generator=[torch.Generator("cpu").manual_seed(one.seed)],
            output_type="np",
        ).images[0]
        expected = (found * 255).round()
        picture = pixels(image)
        assert np.abs(picture - expected)[:, 64:].max() <= 1, strength
        assert np.abs(picture - as_pixels(circle()))[:, 64:].max() > 5
        assert np.array_equal(picture[:, :64], as_pixels(circle())[:, :64])
