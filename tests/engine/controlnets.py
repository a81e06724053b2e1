"""ControlNets that act, with random weights: made from UNets, and stored in any layout."""

from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import load_file, save_file

from tests.engine.ldm import Tensors

ControlNet: Any = diffusers.ControlNetModel
Union: Any = diffusers.ControlNetUnionModel


@torch.no_grad()
def acting(model: Any, seed: int) -> Any:
    """What is zero before training gets random numbers, small enough to leave a picture."""
    source = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "controlnet_down_blocks" in name or "controlnet_mid" in name or "conv_out" in name:
            weight.copy_(torch.randn(weight.shape, generator=source) * 0.08)
    return model.eval()


def controlnet_of(unet: Any, seed: int = 1, **options: Any) -> Any:
    """One for this UNet; an inpainting UNet's has four inputs all the same."""
    torch.manual_seed(seed)
    model = ControlNet.from_unet(
        unet, load_weights_from_unet=unet.config.in_channels == 4, **options
    )
    if unet.config.in_channels != 4:
        model = ControlNet.from_config({**model.config, "in_channels": 4})
    return acting(model, seed)


def union_of(unet: Any, kinds: int = 6, seed: int = 1) -> Any:
    """xinsir's kind for this UNet."""
    torch.manual_seed(seed)
    made = Union.from_unet(unet, load_weights_from_unet=False)
    width = unet.config.block_out_channels[0]
    config = {name: value for name, value in made.config.items() if not name.startswith("_")}
    config["num_control_type"] = kinds
    config |= {"num_trans_channel": width, "num_proj_channel": width}
    return acting(Union.from_config(config), seed)


def save_single(model: Any, path: Path) -> None:
    """A file in diffusers' names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, path)


def save_folder(model: Any, folder: Path) -> None:
    """diffusers' folder."""
    model.save_pretrained(folder)


def save_original(model: Any, path: Path, prefix: str = "control_model.") -> None:
    """lllyasviel's names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"{prefix}{name}": t for name, t in _original(model).items()}
    save_file(tensors, path)


_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
    "controlnet_cond_embedding.conv_out": "input_hint_block.14",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "controlnet_mid_block": "middle_block_out.0",
}
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def _original(model: Any) -> Tensors:
    layers = model.config.layers_per_block
    places = dict(_ENDS)
    for level in range(len(model.config.block_out_channels)):
        for layer in range(layers):
            flat = level * (layers + 1) + layer + 1
            places[f"down_blocks.{level}.resnets.{layer}"] = f"input_blocks.{flat}.0"
            places[f"down_blocks.{level}.attentions.{layer}"] = f"input_blocks.{flat}.1"
        after = (level + 1) * (layers + 1)
        places[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{after}.0.op"
    for index in range(6):
        places[f"controlnet_cond_embedding.blocks.{index}"] = f"input_hint_block.{2 * index + 2}"
    for index in range(len(model.controlnet_down_blocks)):
        places[f"controlnet_down_blocks.{index}"] = f"zero_convs.{index}.0"
    renamed = {}
    for name, tensor in model.state_dict().items():
        modern = next(place for place in places if name.startswith(f"{place}."))
        rest = name.removeprefix(modern)
        if "resnets" in modern:
            for old, new in _RESIDUAL.items():
                rest = f".{new}.{rest.rpartition('.')[2]}" if rest.startswith(f".{old}.") else rest
        renamed[places[modern] + rest] = tensor.contiguous()
    return renamed


def tensors_of(path: Path) -> Tensors:
    """A file's."""
    return load_file(path)
