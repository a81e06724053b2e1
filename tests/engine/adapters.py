"""LoRAs and ControlNets with random weights, in the names and layouts of trainers."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import nn

from picowatch.engine.model.verify import Verified, verified
from tests.engine.original_names import Rules, unet_names

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


def kohya_lora(unet: Any, *text_encoders: Any, seed: int = 0) -> Tensors:
    """Every attention and feed-forward layer, as sd-scripts names them."""
    tensors: Tensors = {}
    is_one = len(text_encoders) == 1
    texts = ("lora_te_text_model_",) if is_one else ("lora_te1_text_model_", "lora_te2_text_model_")
    for prefix, model in (("lora_unet_", unet), *zip(texts, text_encoders, strict=True)):
        for number, (name, module) in enumerate(adapted_layers(model).items()):
            down, up = random_layer(module, seed * 1000 + number)
            flat = prefix + name.removeprefix("text_model.").replace(".", "_")
            tensors[f"{flat}.lora_down.weight"] = down
            tensors[f"{flat}.lora_up.weight"] = up
            tensors[f"{flat}.alpha"] = torch.tensor(2.0)
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


ControlNet: Any = diffusers.ControlNetModel
Union: Any = diffusers.ControlNetUnionModel


@torch.no_grad()
def acting(model: Any, seed: int) -> Any:
    """Replace weights that are zero before training by small random numbers."""
    source = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "controlnet_down_blocks" in name or "controlnet_mid" in name or "conv_out" in name:
            weight.copy_(torch.randn(weight.shape, generator=source) * 0.08)
    return model.eval()


def controlnet_of(unet: Any, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return acting(ControlNet.from_unet(unet), seed)


def union_of(unet: Any) -> Any:
    """Return a union ControlNet like xinsir's for this UNet."""
    torch.manual_seed(1)
    made = Union.from_unet(unet, load_weights_from_unet=False)
    width = unet.config.block_out_channels[0]
    config = {name: value for name, value in made.config.items() if not name.startswith("_")}
    config |= {"num_control_type": 6, "num_trans_channel": width, "num_proj_channel": width}
    return acting(Union.from_config(config), 1)


def save_original(model: Any, path: Path, prefix: str = "control_model.") -> None:
    write(path, unet_names(dict(model.state_dict()), model.config, *_PARTS), prefix=prefix)


# Besides those of a UNet.
_PARTS: Rules = (
    (r"controlnet_cond_embedding\.conv_in", "input_hint_block.0"),
    (
        r"controlnet_cond_embedding\.blocks\.(\d)",
        lambda found: f"input_hint_block.{2 * int(found[1]) + 2}",
    ),
    (r"controlnet_cond_embedding\.conv_out", "input_hint_block.14"),
    (r"controlnet_down_blocks\.(\d+)", r"zero_convs.\1.0"),
    (r"controlnet_mid_block", "middle_block_out.0"),
)
