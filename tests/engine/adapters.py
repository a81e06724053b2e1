"""LoRAs and embeddings for tests: random layers under the names that trainers write."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from picowatch.engine.verify import Verified, verified

Tensors = dict[str, torch.Tensor]
RANK = 4


def adapted_layers(model: Any) -> dict[str, nn.Module]:
    """Return the layers that trainers adapt: attention, feed-forward, the summary's projection."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and any(mark in name for mark in ("attentions.", "self_attn.", "mlp.", "text_projection"))
    }


def random_layer(module: Any, seed: int, size: float = 0.3) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both matrices for one module; kernels are in `down`."""
    generator = torch.Generator().manual_seed(seed)
    outputs, inputs, *kernel = module.weight.shape
    down = torch.randn(RANK, inputs, *kernel, generator=generator) * size / inputs**0.5
    up = torch.randn(outputs, RANK, *[1 for _ in kernel], generator=generator) * size
    return down, up


def kohya_lora(unet: Any, *text_encoders: Any, seed: int = 0, alpha: float = 2.0) -> Tensors:
    """Every attention and feed-forward layer, as sd-scripts names them."""
    tensors: Tensors = {}
    one = len(text_encoders) == 1
    texts = ("lora_te_text_model_",) if one else ("lora_te1_text_model_", "lora_te2_text_model_")
    for prefix, model in (("lora_unet_", unet), *zip(texts, text_encoders, strict=True)):
        for number, (name, module) in enumerate(adapted_layers(model).items()):
            down, up = random_layer(module, seed * 1000 + number)
            flat = prefix + name.removeprefix("text_model.").replace(".", "_")
            tensors[f"{flat}.lora_down.weight"] = down
            tensors[f"{flat}.lora_up.weight"] = up
            tensors[f"{flat}.alpha"] = torch.tensor(alpha)
    return tensors


def write(
    path: Path, tensors: Tensors, metadata: dict[str, str] | None = None, *, prefix: str = ""
) -> Path:
    """A safetensors file, whose names begin with a prefix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = {f"{prefix}{name}": tensor.contiguous() for name, tensor in tensors.items()}
    save_file(named, path, metadata)
    return path


def files_in(folder: Path) -> Verified:
    """Return the opener of a folder's files, whose hashes are their names."""
    catalog: Any = SimpleNamespace(
        find=lambda _, name: SimpleNamespace(path=folder / f"{name}.safetensors"),
        sha256=lambda model: model.path.stem,
    )
    return partial(verified, catalog)
