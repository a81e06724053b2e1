"""ControlNets: their layouts; the stored pictures tell what they do besides."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from picowatch.catalog.models import Model
from picowatch.engine.control import load_controlnet
from picowatch.engine.renderer import Renderer
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
from tests.engine.requests import difference, draw
from tests.engine.tiny_flows import tiny_unet


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


def read(path: Path, unet: Any) -> Any:
    model = Model("controlnet", "sd1", name=path.stem, layout="file", path=path, bytes=0)
    return load_controlnet(model, unet, CPU, CPU.device)


def test_an_inpainting_unet_is_controlled_by_four_channels(models: Models) -> None:
    """The masked start image may be what it follows."""
    renderer = Renderer(models.options)
    follows = {"image": "circle", "model": "random", "preprocess": "inpaint", "preview": True}
    values: dict[str, Any] = {"image": "circle", "mask": "half", "mask_blur": 0, "steps": 2}
    values |= {"checkpoint": "demo-inpaint", "denoising_strength": 1.0}
    (found,) = draw(renderer, models.request({**values, "control": [follows]}))
    (plain,) = draw(renderer, models.request(values))
    assert difference(found, plain) > 5
    shown = np.frombuffer(found.control_maps[0].pixels, np.uint8).reshape(128, 128, 3)
    assert (shown[:, 64:] == 0).all() and (shown[:, :64] > 0).any()
