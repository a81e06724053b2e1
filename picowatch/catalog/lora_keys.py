"""Which layer of the model each tensor of a LoRA file belongs to, whatever format it has.

Kohya's names are the modules' names joined with "_" (`lora_unet_down_blocks_0_…_to_q`), those
of diffusers and peft have dots. Both are compared as one flat text. For Stable Diffusion XL, kohya
names the UNet's modules as Stability's generative-models (SGM) does, `input_blocks_4_1_…`: these
become diffusers' names, as in its `_maybe_map_sgm_blocks_to_diffusers`.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from picowatch.catalog.headers import MAX_TENSORS
from picowatch.catalog.lora_families import DENOISER
from picowatch.catalog.lora_layers import LayerId, Part, adapted, has_layer
from picowatch.families import FAMILIES

# "down", "up", "mid", "alpha", "bias", or what LyCORIS or peft call a factor or a DoRA's lengths.
Role = str

_ROLES: tuple[tuple[re.Pattern[str], Role], ...] = (
    (re.compile(r"\.lora_(?:down|A)(?:\.\w+)?\.weight$"), "down"),
    (re.compile(r"\.lora_(?:up|B)(?:\.\w+)?\.weight$"), "up"),
    (re.compile(r"\.lora_mid\.weight$"), "mid"),
    # diffusers before it used peft: `to_q_lora.down`, `to_q.lora.down`, `lora_linear_layer.down`.
    (re.compile(r"(?:_lora|\.lora|\.lora_linear_layer)\.down\.weight$"), "down"),
    (re.compile(r"(?:_lora|\.lora|\.lora_linear_layer)\.up\.weight$"), "up"),
    # XLabs' for FLUX.1: `qkv_lora1.down`, where the number is part of the layer's name.
    (re.compile(r"(?<=_lora[12])\.down\.weight$"), "down"),
    (re.compile(r"(?<=_lora[12])\.up\.weight$"), "up"),
    (re.compile(r"(?:_lora|\.lora|\.lora_linear_layer)?\.alpha$"), "alpha"),
    (re.compile(r"\.diff_b$"), "bias"),
)
# Of LoHa and LoKr, whole differences, and DoRA.
_NAMED_ROLE = re.compile(
    r"\.((?:hada|lokr)_(?:w[12](?:_[ab])?|t[12])|diff|dora_scale|lora_magnitude_vector)"
    r"(?:\.weight)?$"
)
_TEXT_ENCODERS: tuple[tuple[str, Part], ...] = (
    ("lora_te_", "text_encoder"),
    ("lora_te1_", "text_encoder"),
    ("lora_te2_", "text_encoder_2"),
    ("lora_te3_", "text_encoder_3"),
    ("text_encoder.", "text_encoder"),
    ("text_encoder_2.", "text_encoder_2"),
    ("text_encoder_3.", "text_encoder_3"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_h.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3"),
)


def layer_of(key: str) -> tuple[LayerId, Role] | None:
    """The layer and role of a tensor; None for a name that is no LoRA's."""
    if named := _NAMED_ROLE.search(key):
        return _layer_id(key[: named.start()]), named[1]
    for pattern, role in _ROLES:
        if pattern.search(key):
            return _layer_id(pattern.sub("", key)), role
    return None


def _layer_id(name: str) -> LayerId:
    """Names without a part are the denoiser's, as diffusers first wrote them."""
    part: Part = "denoiser"
    name = DENOISER.sub("", name)
    for prefix, found in _TEXT_ENCODERS:
        if name.startswith(prefix):
            name, part = name.removeprefix(prefix), found
            break
    flat = name.replace(".", "_").replace("_processor_", "_")
    flat = re.sub(r"_to_out$", "_to_out_0", flat.removeprefix("text_model_"))
    if part == "denoiser":
        return LayerId(part, _from_sgm(flat))
    # diffusers 0.16 called CLIP's layers as it calls the UNet's.
    return LayerId(part, re.sub(r"_self_attn_to_(q|k|v|out)(_0)?$", r"_self_attn_\1_proj", flat))


_SGM_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)_(\d+)_(?:(\d+)_)?(.+)")
_SGM_OUTSIDE = {
    "input_blocks_0_0": "conv_in",
    "out_2": "conv_out",
    "time_embed_0": "time_embedding_linear_1",
    "time_embed_2": "time_embedding_linear_2",
    "label_emb_0_0": "add_embedding_linear_1",
    "label_emb_0_2": "add_embedding_linear_2",
}
_SGM_RESIDUAL = {
    "in_layers_2": "conv1",
    "emb_layers_1": "time_emb_proj",
    "out_layers_3": "conv2",
    "skip_connection": "conv_shortcut",
}
# The blocks of one level: two of residual and attention, and one that halves the size; in the
# second half of the UNet three, of which the last also doubles the size.
_SGM_LEVEL = 3


def _from_sgm(module: str) -> str:
    """A UNet's module by diffusers' name, in flat text; other names stay as they are."""
    match = _SGM_BLOCK.fullmatch(module)
    if match is None or module in _SGM_OUTSIDE:
        return _SGM_OUTSIDE.get(module, module)
    half, block, rest = match[1], int(match[2]), _SGM_RESIDUAL.get(match[4], match[4])
    if half == "middle_block":
        inner = "attentions_0" if block == 1 else f"resnets_{block // 2}"
        return f"mid_block_{inner}_{rest}"
    inner = "attentions" if match[3] == "1" else "resnets"
    if half == "input_blocks":
        level, index = divmod(block - 1, _SGM_LEVEL)
        if rest == "op":
            return f"down_blocks_{level}_downsamplers_0_conv"
        return f"down_blocks_{level}_{inner}_{index}_{rest}"
    level, index = divmod(block, _SGM_LEVEL)
    if rest == "conv":
        return f"up_blocks_{level}_upsamplers_0_conv"
    return f"up_blocks_{level}_{inner}_{index}_{rest}"


def misfits(keys: Iterable[str], family: str) -> str:
    """What of a LoRA does nothing, in a sentence; "" if its family has all of its layers.

    `family` is the LoRA's, "" where nothing tells it.
    """
    fitting: set[LayerId] = set()
    strange: dict[str, str] = {}  # layers, each with the first key it was seen in
    for key in keys:
        layer, fits = _fit(key, family)
        if layer is not None and fits:
            fitting.add(layer)
        else:
            strange.setdefault(str(layer or key), key)
    if not strange:
        return ""
    example = f"such as {next(iter(strange.values()))[:80]}"
    if not fitting and not family:
        return f"does nothing: no model that picowatch supports has any of its layers, {example}"
    if not fitting:
        return f"does nothing: {FAMILIES[family].name} has none of its layers, {example}"
    every = len(fitting) + len(strange)
    return f"{len(strange)} of its {every} layers do nothing: the model has none {example}"


@lru_cache(MAX_TENSORS)  # thousands of LoRAs have the same names
def _fit(key: str, family: str) -> tuple[LayerId | None, bool]:
    """The layer of a tensor, and whether the family has what it adapts."""
    known = layer_of(key)
    if known is None:
        return None, False
    layers = adapted(known[0], family).layers
    return known[0], all(has_layer(family, one) for one in layers)
