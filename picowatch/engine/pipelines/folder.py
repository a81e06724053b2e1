"""Reads a pipeline's parts from a diffusers folder: allowed classes, safetensors, no network."""

from typing import Any

import diffusers
import torch
import transformers

from picowatch.catalog import weight_files
from picowatch.catalog.models import Part
from picowatch.engine.pipelines.samplers import scheduler_of
from picowatch.errors import RenderFailed

_OFFLINE: dict[str, Any] = {"local_files_only": True}


def read_part(part: Part, dtype: torch.dtype, device: torch.device) -> Any:
    """One part with the weights in its folder, on `device` in the type `dtype`."""
    found = open_part(part, dtype)
    if not isinstance(found, torch.nn.Module):
        return found
    return _with_weights_of_its_own(found.to(device))


def open_part(part: Part, dtype: torch.dtype) -> Any:
    """The same, but its weights may be parts of files that are mapped into memory."""
    folder, name = part.folder, part.class_name
    if part.name.startswith("tokenizer"):
        return getattr(transformers, name).from_pretrained(folder, **_padding(part), **_OFFLINE)
    if part.name == "scheduler":
        kind = getattr(diffusers, name)
        return scheduler_of(kind, kind.load_config(folder, **_OFFLINE))
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
    return model.eval().requires_grad_(False)


def _padding(part: Part) -> dict[str, str]:
    """OpenCLIP's G pads with "!", unlike CLIP's L; the package has one vocabulary for both."""
    second = part.name == "tokenizer_2" and part.class_name.startswith("CLIP")
    return {"pad_token": "!"} if second else {}


def _with_weights_of_its_own(model: Any) -> Any:
    """Copies, because safetensors maps files into memory; see `read_tensors` in weights.py."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()
    return model
