"""Which layer of the model each tensor of a LoRA file belongs to, whoever wrote the file.

Kohya's names are the modules' names joined with "_" (`lora_unet_down_blocks_0_…_to_q`), those
of diffusers and peft have dots. Both are compared as one flat text, so they fit every model
whose modules are named as Stable Diffusion 1.x's are.
"""

import re
from typing import Any, Literal, NamedTuple

from torch import nn

Part = Literal["unet", "text_encoder"]
Role = Literal["down", "up", "mid", "alpha"]


class Place(NamedTuple):
    """A part of the checkpoint, and a module in it by its flat name."""

    part: Part
    module: str


_ROLES: tuple[tuple[re.Pattern[str], Role], ...] = (
    (re.compile(r"\.lora_(?:down|A)(?:\.\w+)?\.weight$"), "down"),
    (re.compile(r"\.lora_(?:up|B)(?:\.\w+)?\.weight$"), "up"),
    (re.compile(r"\.lora_mid\.weight$"), "mid"),
    # diffusers before it used peft: `to_q_lora.down`, `to_q.lora.down`, `lora_linear_layer.down`.
    (re.compile(r"(?:_lora|\.lora|\.lora_linear_layer)\.down\.weight$"), "down"),
    (re.compile(r"(?:_lora|\.lora|\.lora_linear_layer)\.up\.weight$"), "up"),
    (re.compile(r"(?:_lora|\.lora|\.lora_linear_layer)?\.alpha$"), "alpha"),
)
_PARTS: tuple[tuple[str, Part], ...] = (
    ("lora_unet_", "unet"),
    ("lora_te_", "text_encoder"),
    ("base_model.model.unet.", "unet"),
    ("base_model.model.text_encoder.", "text_encoder"),
    ("base_model.model.", "unet"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
)


def place_of(key: str) -> tuple[Place, Role] | None:
    """The place and role of a tensor; None for a name that is no LoRA's."""
    for pattern, role in _ROLES:
        if pattern.search(key):
            return _place(pattern.sub("", key)), role
    return None


def _place(name: str) -> Place:
    """Names without a part are the UNet's, as diffusers first wrote them."""
    part: Part = "unet"
    for prefix, found in _PARTS:
        if name.startswith(prefix):
            name, part = name.removeprefix(prefix), found
            break
    flat = name.replace(".", "_").replace("_processor_", "_")
    return Place(part, re.sub(r"_to_out$", "_to_out_0", flat.removeprefix("text_model_")))


def modules_by_place(unet: Any, text_encoder: Any) -> dict[Place, nn.Module]:
    """The layers a LoRA may add to: linear ones and convolutions."""
    parts: tuple[tuple[Part, Any], ...] = (("unet", unet), ("text_encoder", text_encoder))
    return {
        Place(part, name.replace(".", "_").removeprefix("text_model_")): module
        for part, model in parts
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
