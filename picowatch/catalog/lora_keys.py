"""Which layer of the model each tensor of a LoRA file belongs to, whoever wrote the file.

Kohya's names are the modules' names joined with "_" (`lora_unet_down_blocks_0_…_to_q`), those
of diffusers and peft have dots. Both are compared as one flat text, so they fit every model
whose modules are named as Stable Diffusion 1.x's are.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

Part = Literal["unet", "text_encoder"]
Role = Literal["down", "up", "mid", "alpha"]


class LayerId(NamedTuple):
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
    ("lora_te1_", "text_encoder"),
    ("base_model.model.unet.", "unet"),
    ("base_model.model.text_encoder.", "text_encoder"),
    ("base_model.model.", "unet"),
    ("unet.", "unet"),
    ("text_encoder.", "text_encoder"),
)


def layer_of(key: str) -> tuple[LayerId, Role] | None:
    """The layer and role of a tensor; None for a name that is no LoRA's."""
    for pattern, role in _ROLES:
        if pattern.search(key):
            return _layer_id(pattern.sub("", key)), role
    return None


def _layer_id(name: str) -> LayerId:
    """Names without a part are the UNet's, as diffusers first wrote them."""
    part: Part = "unet"
    for prefix, found in _PARTS:
        if name.startswith(prefix):
            name, part = name.removeprefix(prefix), found
            break
    flat = name.replace(".", "_").replace("_processor_", "_")
    return LayerId(part, re.sub(r"_to_out$", "_to_out_0", flat.removeprefix("text_model_")))


_ATTENTION = (
    r"attentions_\d_(proj_in|proj_out|transformer_blocks_0_"
    r"(attn[12]_to_(q|k|v|out_0)|ff_net_0_proj|ff_net_2))"
)
_RESIDUAL = r"resnets_\d_(conv1|conv2|conv_shortcut|time_emb_proj)"
# The linear layers and convolutions of Stable Diffusion 1.x, as diffusers names its modules.
_SD1_LAYERS: dict[Part, re.Pattern[str]] = {
    "unet": re.compile(
        rf"(mid_block|(down|up)_blocks_[0-3])_({_ATTENTION}|{_RESIDUAL}|(down|up)samplers_0_conv)"
        r"|conv_in|conv_out|time_embedding_linear_[12]"
    ),
    "text_encoder": re.compile(r"encoder_layers_\d+_(self_attn_(q|k|v|out)_proj|mlp_fc[12])"),
}


def is_sd1_layer(layer_id: LayerId) -> bool:
    """Whether Stable Diffusion 1.x has such a layer."""
    return _SD1_LAYERS[layer_id.part].fullmatch(layer_id.module) is not None


def misfits(keys: Iterable[str]) -> str:
    """What of a LoRA does nothing, in a sentence; "" if the model has all of its layers."""
    fitting: set[LayerId] = set()
    strange: dict[str, str] = {}  # layers, each with the first key it was seen in
    for key in keys:
        known = layer_of(key)
        if known is not None and is_sd1_layer(known[0]):
            fitting.add(known[0])
        else:
            strange.setdefault(str(known[0]) if known else key, key)
    if not strange:
        return ""
    example = f"such as {next(iter(strange.values()))[:80]}"
    if not fitting:
        return f"does nothing: Stable Diffusion 1.x has none of its layers, {example}"
    every = len(fitting) + len(strange)
    return f"{len(strange)} of its {every} layers do nothing: the model has none {example}"
