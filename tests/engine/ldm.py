"""Writes a diffusers folder of a UNet family as a single file in the original (LDM) layout."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.engine.original_names import Tensors, ldm_vae_names, open_clip_names, unet_names


def write_single_file(
    folder: Path, path: Path, dtype: torch.dtype = torch.float16, marks: Tensors | None = None
) -> None:
    """Write all parts, with the other tensors of real checkpoints, and `marks`."""
    config = json.loads((folder / "unet/config.json").read_text())
    parts = {
        "model.diffusion_model.": unet_names(weights(folder / "unet"), config),
        "first_stage_model.": ldm_vae_names(weights(folder / "vae")),
    }
    text, positions = weights(folder / "text_encoder"), {}
    is_sdxl = (folder / "text_encoder_2").is_dir()
    if not is_sdxl and '"gelu"' in (folder / "text_encoder/config.json").read_text():
        parts["cond_stage_model.model."] = open_clip_names(text)
    else:
        place = "conditioner.embedders.0" if is_sdxl else "cond_stage_model"
        bare = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
        parts[f"{place}.transformer.text_model."] = bare
        name = f"{place}.transformer.text_model.embeddings.position_ids"
        positions = {name: torch.arange(77)[None]}
    if is_sdxl:
        second = open_clip_names(weights(folder / "text_encoder_2"))
        parts["conditioner.embedders.1.model."] = second
    tensors = {
        f"{prefix}{name}": tensor.to(dtype).contiguous()
        for prefix, part in parts.items()
        for name, tensor in part.items()
    }
    tensors |= positions | (marks or {})
    tensors["model_ema.decay"] = torch.tensor(0.999)
    tensors["alphas_cumprod"] = torch.linspace(1, 0, 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def weights(part: Path) -> Tensors:
    (file,) = part.glob("*.safetensors")
    return load_file(file)
