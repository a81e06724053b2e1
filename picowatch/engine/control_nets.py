"""Reads a ControlNet for a checkpoint: a file in any layout, or a diffusers folder.

A ControlNet copies one half of a UNet, so what it consists of is in the UNet's config; the rest
(fewer layers, a union's tasks, how its map is read) is in its own tensors.
"""

import re
from typing import Any

import diffusers
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

from picowatch.catalog import Model, read_config, weight_files
from picowatch.catalog.controlnets import ORIGINAL
from picowatch.catalog.headers import read_header
from picowatch.engine.devices import Target
from picowatch.engine.gguf_fp8 import Tensors, read_tensors
from picowatch.engine.part_files import diffusers_model, laid_out

# What only a folder's own config says.
_OWN = ("global_pool_conditions", "controlnet_conditioning_channel_order")
_POOLED = "shuffle"  # only the name of a file tells that it was trained so
# diffusers' conversion leaves these out, which SDXL's has.
_ADDED = {"label_emb.0.0.": "add_embedding.linear_1.", "label_emb.0.2.": "add_embedding.linear_2."}
_HINT = "controlnet_cond_embedding."
_CHANNELS = 4
_TASKS = "task_embedding"


def load_controlnet(model: Model, unet: Any, target: Target, device: torch.device) -> Any:
    """The ControlNet, on `device`, to compute beside this UNet in the type of `target`."""
    own: dict[str, Any] = {}
    if model.layout == "folder":
        config = read_config(model.path / "config.json")
        own = {key: config[key] for key in _OWN if key in config}
        files = weight_files(model.path)
    else:
        own["global_pool_conditions"] = _POOLED in model.path.stem.casefold()
        files = [model.path]
    tensors: Tensors = {}
    for file in files:
        # The first files also have the checkpoint that they were trained for.
        prefix = ORIGINAL if read_header(file).has(ORIGINAL) else ""
        tensors |= read_tensors(file, lambda _: target.dtype, device, prefix)
    tensors = _modern_names(tensors, unet.config)
    kind = "ControlNetUnionModel" if _TASKS in tensors else "ControlNetModel"
    with torch.device("meta"):
        like: Any = getattr(diffusers, kind).from_unet(unet, load_weights_from_unet=False)
    config = {key: value for key, value in like.config.items() if not key.startswith("_")}
    # The latents of an inpainting UNet have more channels.
    config |= {"in_channels": _CHANNELS, **_layers(tensors, unet.config), **own}
    if _TASKS in tensors:
        config |= _union(tensors)
    what = f"ControlNet {model.name!r}"
    return laid_out(diffusers_model(kind, config, tensors, what, target.dtype))


def _modern_names(tensors: Tensors, unet: Any) -> Tensors:
    """diffusers' names."""
    if f"{_HINT}conv_in.weight" in tensors:
        return tensors
    converted: Tensors = convert_controlnet_checkpoint(tensors, unet)
    for name, tensor in tensors.items():
        for old, new in _ADDED.items():
            if name.startswith(old):
                converted[new + name.removeprefix(old)] = tensor
    return converted


def _layers(tensors: Tensors, unet: Any) -> dict[str, Any]:
    """The blocks of this ControlNet: the small ones for SDXL have less attention, or none."""
    levels = range(len(unet["block_out_channels"]))
    depths = [_depth(tensors, f"down_blocks.{level}.") for level in levels]
    middle = _depth(tensors, "mid_block.")
    hints = sorted(
        (int(found[1]), len(tensor))
        for name, tensor in tensors.items()
        if (found := re.fullmatch(rf"{_HINT}blocks\.(\d+)\.weight", name))
    )
    return {
        "down_block_types": [
            "CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in depths
        ],
        "mid_block_type": "UNetMidBlock2DCrossAttn" if middle else "UNetMidBlock2D",
        # The last number is the middle's, too; where the last level has none, only the middle's.
        "transformer_layers_per_block": [depth or middle or 1 for depth in depths],
        "conditioning_embedding_out_channels": [
            len(tensors[f"{_HINT}conv_in.weight"]),
            *(channels for index, channels in hints if index % 2),
        ],
    }


def _depth(tensors: Tensors, block: str) -> int:
    """How many transformer blocks each attention of a block has."""
    pattern = re.compile(rf"{re.escape(block)}attentions\.0\.transformer_blocks\.(\d+)\.")
    found = (pattern.match(name) for name in tensors)
    return max((int(one[1]) + 1 for one in found if one), default=0)


def _union(tensors: Tensors) -> dict[str, Any]:
    """What a union has besides: its tasks, and the transformer that joins their maps."""
    layers = {name.split(".")[1] for name in tensors if name.startswith("transformer_layes.")}
    return {
        "num_control_type": tensors[_TASKS].shape[0],
        "num_trans_channel": tensors[_TASKS].shape[1],
        "num_trans_layer": len(layers),
        "num_proj_channel": len(tensors["spatial_ch_projs.weight"]),
    }
