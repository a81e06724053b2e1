"""Writes a diffusers folder as a single file in the original (LDM) layout."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]

_UNET_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_VAE_PARTS = {
    "conv_shortcut": "nin_shortcut",
    "conv_norm_out": "norm_out",
    "mid_block.resnets.0": "mid.block_1",
    "mid_block.resnets.1": "mid.block_2",
    "mid_block.attentions.0": "mid.attn_1",
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_OPEN_CLIP = {
    "encoder.layers": "transformer.resblocks",
    "self_attn": "attn",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "embeddings.token_embedding": "token_embedding",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
}


def write_single_file(
    folder: Path,
    path: Path,
    dtype: torch.dtype = torch.float16,
    marks: Tensors | None = None,
) -> None:
    """Write all parts, with the other tensors of real checkpoints, and `marks`."""
    config = json.loads((folder / "unet/config.json").read_text())
    unet = unet_names(weights(folder / "unet"), config, {})
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in unet.items()}
    tensors |= {f"first_stage_model.{name}": t for name, t in ldm_vae(folder / "vae").items()}
    is_sdxl = (folder / "text_encoder_2").is_dir()
    is_sd2 = not is_sdxl and '"gelu"' in (folder / "text_encoder/config.json").read_text()
    place = "conditioner.embedders.0" if is_sdxl else "cond_stage_model"
    text = f"{place}.transformer.text_model."
    if is_sd2:
        only = open_clip(weights(folder / "text_encoder"))
        tensors |= {f"cond_stage_model.model.{name}": tensor for name, tensor in only.items()}
    else:
        tensors |= {
            text + name.removeprefix("text_model."): tensor
            for name, tensor in weights(folder / "text_encoder").items()
        }
    if is_sdxl:
        second = open_clip(weights(folder / "text_encoder_2"))
        tensors |= {f"conditioner.embedders.1.model.{name}": t for name, t in second.items()}
    tensors = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    if not is_sd2:
        tensors[f"{text}embeddings.position_ids"] = torch.arange(77)[None]
    tensors |= marks or {}
    tensors["model_ema.decay"] = torch.tensor(0.999)
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def weights(part: Path) -> Tensors:
    """The tensors of one part of a diffusers folder."""
    (file,) = part.glob("*.safetensors")
    return load_file(file)


def ldm_vae(part: Path) -> Tensors:
    """A VAE's tensors under their original names."""
    levels = len(json.loads((part / "config.json").read_text())["block_out_channels"])
    renamed = {}
    for name, tensor in weights(part).items():
        new = name
        for modern, original in _VAE_PARTS.items():
            new = new.replace(modern, original)
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(
            r"up_blocks\.(\d)\.(resnets|upsamplers\.0)",
            lambda found: (
                f"up.{levels - 1 - int(found[1])}."
                + {"resnets": "block", "upsamplers.0": "upsample"}[found[2]]
            ),
            new,
        )
        square = "attn_1" in new and tensor.ndim == 2
        renamed[new] = tensor[:, :, None, None] if square else tensor
    return renamed


def open_clip(tensors: Tensors) -> Tensors:
    """A CLIPTextModelWithProjection's tensors under OpenCLIP's names; q, k and v are one matrix."""
    bare = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    renamed = {}
    for name, tensor in bare.items():
        for old, new in _OPEN_CLIP.items():
            name = name.replace(old, new)
        if ".attn.v_proj." in name or ".attn.k_proj." in name:
            continue
        if ".attn.q_proj." in name:
            layer, kind = re.findall(r"resblocks\.(\d+)\..*\.(weight|bias)", name)[0]
            attention = f"encoder.layers.{layer}.self_attn"
            tensor = torch.cat([bare[f"{attention}.{one}_proj.{kind}"] for one in "qkv"])
            name = f"transformer.resblocks.{layer}.attn.in_proj_{kind}"
        renamed[name] = tensor.T if name == "text_projection" else tensor
    return renamed


def unet_names(tensors: Tensors, config: dict[str, Any], more: dict[str, str]) -> Tensors:
    """The tensors of a UNet, or of a ControlNet with `more` parts, under their original names."""
    locations = more | _UNET_ENDS | _unet_blocks(config)
    renamed = {}
    for name, tensor in tensors.items():
        modern = next(location for location in locations if name.startswith(f"{location}."))
        rest = name.removeprefix(modern)
        for old, new in _UNET_RESIDUAL.items():
            if "resnets" in modern:
                rest = re.sub(rf"^\.{old}\.", f".{new}.", rest)
        renamed[locations[modern] + rest] = tensor
    return renamed


def _unet_blocks(config: dict[str, Any]) -> dict[str, str]:
    """Yield the place of each block of the UNet in the original's flat lists."""
    layers, locations = config["layers_per_block"], {}
    for level, kind in enumerate(config["up_block_types"]):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        for layer in range(layers + 1):
            flat = level * (layers + 1) + layer
            locations[f"{down}.resnets.{layer}"] = f"input_blocks.{flat + 1}.0"
            locations[f"{down}.attentions.{layer}"] = f"input_blocks.{flat + 1}.1"
            locations[f"{up}.resnets.{layer}"] = f"output_blocks.{flat}.0"
            locations[f"{up}.attentions.{layer}"] = f"output_blocks.{flat}.1"
        last = (level + 1) * (layers + 1)
        locations[f"{down}.downsamplers.0.conv"] = f"input_blocks.{last}.0.op"
        behind = 2 if "CrossAttn" in kind else 1
        locations[f"{up}.upsamplers.0"] = f"output_blocks.{last - 1}.{behind}"
    return locations
