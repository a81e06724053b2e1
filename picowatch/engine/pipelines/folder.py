"""Reads a pipeline's parts from a diffusers folder: allowed classes, safetensors, no network."""

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from picowatch.catalog import weight_files
from picowatch.catalog.pipelines import classes_of
from picowatch.errors import RenderFailed

_OFFLINE: dict[str, Any] = {"local_files_only": True}


def read_parts(folder: Path, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """All parts by their names but the VAE, the weights on `device` in the type `dtype`."""
    return {
        part: read_part(folder / part, name, dtype, device)
        for part, name in classes_of(folder).items()
        if part != "vae"
    }


def read_part(folder: Path, name: str, dtype: torch.dtype, device: torch.device) -> Any:
    """One part; `name` is its class in diffusers or transformers, from the allowlist."""
    if folder.name.startswith("tokenizer"):
        return getattr(transformers, name).from_pretrained(folder, **_OFFLINE)
    if folder.name == "scheduler":
        return getattr(diffusers, name).from_pretrained(folder, **_OFFLINE)
    kind = getattr(transformers, name, None) or getattr(diffusers, name)
    model, info = kind.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        variant="fp16" if ".fp16" in weight_files(folder)[0].name else None,
        output_loading_info=True,
        **_OFFLINE,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise RenderFailed(
            f"{folder.name}/ is incomplete: {len(missing)} weights are missing, starting with "
            f"{missing[0]}.",
            "Get the folder again.",
        )
    return _with_weights_of_its_own(model.eval().requires_grad_(False).to(device))


def _with_weights_of_its_own(model: Any) -> Any:
    """Copies, because safetensors maps files into memory; see `read_tensors` in weights.py."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model
