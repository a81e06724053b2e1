"""LoRA layers that train beside frozen ones, and the file kohya's sd-scripts would write.

LoRA: https://arxiv.org/abs/2106.09685. Layers are hooks: the model's own weights never change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

RANK = 4
PREFIX = "lora_unet_"


class Adapter(nn.Module):
    """What is added to one layer: up(down(x)); at first nothing, since `up` starts at zero."""

    def __init__(self, layer: nn.Linear | nn.Conv2d) -> None:
        super().__init__()
        outputs, inputs, *kernel = layer.weight.shape
        self.down = nn.Parameter(torch.empty(RANK, inputs, *kernel))
        self.up = nn.Parameter(torch.zeros(outputs, RANK, *[1 for _ in kernel]))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)
        layer.register_forward_hook(self.added)

    def added(self, layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The layer's output with the adapter's; a convolution's kernel lies in `down`."""
        if isinstance(layer, nn.Conv2d):
            narrow = functional.conv2d(inputs[0], self.down, None, layer.stride, layer.padding)
            return output + functional.conv2d(narrow, self.up)
        return output + functional.linear(functional.linear(inputs[0], self.down), self.up)


def adapters_for(unet: Any) -> dict[str, Adapter]:
    """An adapter on attention and convolutions on the way up, by the layer's name.

    What is drawn is decided on the way down, how it is drawn on the way up; and a file for all
    of the UNet would be twice as large.
    """
    layers = {
        name: layer
        for name, layer in unet.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
        and name.startswith("up_blocks.")
        and ".ff." not in name
        and "time_emb" not in name
    }
    return {name: Adapter(layer) for name, layer in layers.items()}


def parameters_of(adapters: Mapping[str, Adapter]) -> list[nn.Parameter]:
    """All that is trained."""
    return [parameter for adapter in adapters.values() for parameter in adapter.parameters()]


def write_lora(path: Path, adapters: Mapping[str, Adapter], metadata: dict[str, str]) -> None:
    """The adapters in half precision; alpha is the rank, so that weight 1 is what was trained."""
    tensors: dict[str, Tensor] = {}
    for name, adapter in adapters.items():
        key = PREFIX + name.replace(".", "_")
        tensors[f"{key}.lora_down.weight"] = adapter.down.detach().half().contiguous()
        tensors[f"{key}.lora_up.weight"] = adapter.up.detach().half().contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(float(RANK)).half()
    save_file(tensors, path, metadata)


def kohya_metadata(title: str, tags: Mapping[str, int], steps: int, batch: int) -> dict[str, str]:
    """The fields that other programs look at, all of them texts.

    Names: library/train_util.py and library/sai_model_spec.py in kohya-ss/sd-scripts.
    """
    return {
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(RANK),
        "ss_network_alpha": str(float(RANK)),
        "ss_network_args": json.dumps({"conv_dim": str(RANK), "conv_alpha": str(float(RANK))}),
        "ss_output_name": title,
        "ss_resolution": "(128, 128)",
        "ss_steps": str(steps),
        "ss_total_batch_size": str(batch),
        "ss_tag_frequency": json.dumps({f"1_{title}": dict(tags)}),
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": title,
        "modelspec.prediction_type": "epsilon",
        "modelspec.resolution": "128x128",
    }
