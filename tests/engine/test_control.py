"""ControlNets: their layouts and modes; the stored pictures tell what they do besides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from picowatch.catalog.models import Model
from picowatch.engine.control import Hint, load_controlnet
from picowatch.engine.renderer import Renderer
from picowatch.families import DEMO_WIDTH
from picowatch.recipe.request import ControlUse
from tests.engine.controlnets import (
    DEMO,
    ControlNet,
    acting,
    controlnet_of,
    save_original,
    save_single,
    unet_of,
)
from tests.engine.demo import CPU, assert_equal
from tests.engine.ldm import write_single_file
from tests.engine.reference.models import Models
from tests.engine.requests import NUMPY_WARNINGS, difference, draw
from tests.engine.tiny_flows import tiny_unet

pytestmark = NUMPY_WARNINGS


def small(unet: Any) -> Any:
    """Return a ControlNet without attention, like the small ones for SDXL."""
    like = ControlNet.from_unet(unet, load_weights_from_unet=False).config
    config = {name: value for name, value in like.items() if not name.startswith("_")}
    config["down_block_types"] = ("DownBlock2D",) * len(unet.config.block_out_channels)
    config |= {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": 1}
    config["conditioning_embedding_out_channels"] = (8, 8, 16, 16)
    torch.manual_seed(4)
    return acting(ControlNet(**config), 4)


@pytest.mark.parametrize("layout", ["original", "whole", "bare", "small"])
def test_every_layout_holds_the_same_weights(tmp_path: Path, layout: str) -> None:
    """What a ControlNet consists of is read from its tensors and its UNet's config."""
    folder = DEMO if layout in ("whole", "bare") else tiny_unet("sdxl")
    unet = unet_of(folder)
    model = small(unet) if layout == "small" else controlnet_of(unet)
    path = tmp_path / "it.safetensors"
    if layout == "small":
        save_single(model, path)
    else:
        save_original(model, path, prefix="" if layout == "bare" else "control_model.")
    if layout == "whole":
        checkpoint = tmp_path / "checkpoint.safetensors"
        write_single_file(folder, checkpoint)
        save_file(load_file(path) | load_file(checkpoint), path)
    found = read(path, unet)
    assert_equal(found, model)
    assert not found.config.global_pool_conditions


def test_a_shuffle_file_is_known_by_its_name(tmp_path: Path) -> None:
    """It adds the mean over the whole picture."""
    path = tmp_path / "control_v11e_sd15_shuffle.safetensors"
    save_single(controlnet_of(unet_of(DEMO)), path)
    model = read(path, unet_of(DEMO))
    found = hint(model).residuals(*inputs())
    assert {one.shape[2:] for one in found} == {(1, 1)}
    assert all(float(one[0].abs().max()) == 0 < float(one[1].abs().max()) for one in found)


def read(path: Path, unet: Any) -> Any:
    model = Model("controlnet", "sd1", name=path.stem, layout="file", path=path, bytes=0)
    return load_controlnet(model, unet, CPU, CPU.device)


def hint(model: Any, **values: Any) -> Hint:
    values = {"image": "a.png", "model": "it", **values}
    maps = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    return Hint(model, ControlUse(**values), maps, soft=False)


def inputs() -> Any:
    source = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, 8, 8, generator=source)
    states = torch.randn(2, 77, DEMO_WIDTH, generator=source)
    return torch.cat([latents] * 2), torch.tensor(500), states, None


@pytest.mark.parametrize("mode", ["prompt", "control"])
def test_modes_weigh_the_layers_as_a1111_does(mode: str) -> None:
    """0.825 to the power of 12 - i; "control" acts only where the prompt is, too."""
    model = controlnet_of(unet_of(DEMO))
    plain = hint(model).residuals(*inputs())
    found = hint(model, mode=mode).residuals(*inputs())
    for index, (one, other) in enumerate(zip(found, plain, strict=True)):
        expected = other * 0.825 ** (12 - index)
        if mode == "control":
            expected[0] = 0
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-6)


def test_an_inpainting_unet_is_controlled_by_four_channels(tmp_path: Path) -> None:
    """The masked start image may be what it follows."""
    models = Models(tmp_path / "models")
    renderer = Renderer(models.options)
    follows = {"image": "circle", "model": "random", "preprocess": "inpaint", "preview": True}
    values: dict[str, Any] = {"image": "circle", "mask": "half", "mask_blur": 0, "steps": 2}
    values |= {"checkpoint": "demo-inpaint", "denoising_strength": 1.0}
    (found,) = draw(renderer, models.request({**values, "control": [follows]}))
    (plain,) = draw(renderer, models.request(values))
    assert difference(found, plain) > 5
    shown = np.frombuffer(found.control_maps[0].pixels, np.uint8).reshape(128, 128, 3)
    assert (shown[:, 64:] == 0).all() and (shown[:, :64] > 0).any()
