"""The layers that LoRAs adapt: which each family has, and what their authors call them.

Layers have diffusers' names with "_" for the dots. The authors of flow families name many of
theirs otherwise, and compute several of diffusers' in one: a LoRA for those holds the rows of
one after the other. The names are those of diffusers' loaders/lora_conversion_utils.py and
loaders/single_file_utils.py.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

# The denoiser is a UNet, or the transformer of a flow family.
Part = Literal["denoiser", "text_encoder", "text_encoder_2", "text_encoder_3"]


class LayerId(NamedTuple):
    """A part of the checkpoint, and a module in it by its flat name."""

    part: Part
    module: str


class Adapted(NamedTuple):
    """What one layer of a LoRA adapts: diffusers' layers, of whose outputs its outputs consist.

    `swapped`: the two halves of its outputs, scale and shift, are in the other order there.
    `swapped_alone`: they are if it has no other outputs.
    """

    layers: tuple[LayerId, ...]
    swapped: bool = False
    swapped_alone: bool = False


def adapted(layer: LayerId, family: str) -> Adapted:
    """A layer as a file names it, as diffusers has it; most are the same."""
    part, name = layer
    if part == "text_encoder_3":
        part = _T5_NUMBER.get(family, part)
    for pattern, targets in _AUTHORS_NAMES.get(family, ()) if part == "denoiser" else ():
        match = pattern.fullmatch(name)
        if match:
            layers = tuple(LayerId(part, match.expand(target)) for target in targets)
            return Adapted(layers, (family, name) in _SWAPPED, name.endswith(_SWAPPED_ALONE))
    return Adapted((LayerId(part, name),))


def has_layer(family: str, layer: LayerId) -> bool:
    """Whether models of this family have such a layer; of "", whether any family's have.

    Of families whose layers are not listed here it is assumed.
    """
    if family and family not in _LAYERS:
        return True
    tables = [_LAYERS[family]] if family else list(_LAYERS.values())
    patterns = [table[layer.part] for table in tables if layer.part in table]
    return any(pattern.fullmatch(layer.module) for pattern in patterns)


def _attention(depth: int) -> str:
    """The layers of a stack of up to ten transformer blocks."""
    return (
        rf"(proj_in|proj_out|transformer_blocks_[0-{depth - 1}]_"
        r"(attn[12]_to_(q|k|v|out_0)|ff_net_0_proj|ff_net_2))"
    )


def _clip(layers: str, beside: str = "") -> re.Pattern[str]:
    return re.compile(rf"encoder_layers_{layers}_(self_attn_(q|k|v|out)_proj|mlp_fc[12]){beside}")


_RESIDUAL = r"resnets_\d_(conv1|conv2|conv_shortcut|time_emb_proj)"
_OUTSIDE = r"conv_in|conv_out|time_embedding_linear_[12]"
_SD1_UNET = re.compile(
    rf"(mid_block|(down|up)_blocks_[0-3])_(attentions_\d_{_attention(1)}|{_RESIDUAL}"
    rf"|(down|up)samplers_0_conv)|{_OUTSIDE}"
)
_SDXL_UNET = re.compile(
    rf"(down_blocks_1_attentions_[01]|up_blocks_1_attentions_[0-2])_{_attention(2)}"
    rf"|(down_blocks_2_attentions_[01]|mid_block_attentions_0|up_blocks_0_attentions_[0-2])_"
    rf"{_attention(10)}"
    rf"|(mid_block|(down|up)_blocks_[0-2])_{_RESIDUAL}"
    rf"|(down_blocks_[01]_down|up_blocks_[01]_up)samplers_0_conv"
    rf"|add_embedding_linear_[12]|{_OUTSIDE}"
)
_CLIP_L = _clip(r"(\d|1[01])")
# OneTrainer also adapts what makes the summary.
_CLIP_G = _clip(r"([12]?\d|3[01])", "|text_projection")
_T5 = re.compile(r"encoder_block_\d+_layer_[01]_(SelfAttention_[qkvo]|DenseReluDense_(wi_[01]|wo))")
# Of a block that attends to the image and to the text.
_JOINT = r"attn_(to_[qkv]|to_out_0|add_[qkv]_proj|to_add_out)"
_QWEN_IMAGE = re.compile(
    rf"transformer_blocks_\d+_({_JOINT}|(img|txt)_mlp_net_(0_proj|2)|(img|txt)_mod_1)"
    r"|img_in|txt_in|proj_out|norm_out_linear|time_text_embed_timestep_embedder_linear_[12]"
)
_ERNIE_IMAGE = re.compile(
    r"layers_\d+_(self_attention_(to_[qkv]|to_out_0)|mlp_(gate_proj|up_proj|linear_fc2))"
    r"|x_embedder_proj|text_proj|time_embedding_linear_[12]|adaLN_modulation_1"
    r"|final_norm_linear|final_linear"
)

# kohya and ComfyUI number T5 as the third text encoder, as Stable Diffusion 3 has it.
_T5_NUMBER: dict[str, Part] = {"flux": "text_encoder_2", "chroma": "text_encoder"}
# Authors chunk these outputs as shift and scale, diffusers as scale and shift.
_SWAPPED = {(family, "final_layer_adaLN_modulation_1") for family in ("flux", "flux2", "sd3")}
_QKV = "to_{q,k,v}"
_ADDED_QKV = "add_{q,k,v}_proj"
# N is a number; a name in braces stands for several.
_FLUX_NAMES = {
    "double_blocks_N_img_attn_qkv": f"transformer_blocks_N_attn_{_QKV}",
    "double_blocks_N_img_attn_proj": "transformer_blocks_N_attn_to_out_0",
    "double_blocks_N_img_mlp_0": "transformer_blocks_N_ff_net_0_proj",
    "double_blocks_N_img_mlp_2": "transformer_blocks_N_ff_net_2",
    "double_blocks_N_img_mod_lin": "transformer_blocks_N_norm1_linear",
    "double_blocks_N_txt_attn_qkv": f"transformer_blocks_N_attn_{_ADDED_QKV}",
    "double_blocks_N_txt_attn_proj": "transformer_blocks_N_attn_to_add_out",
    "double_blocks_N_txt_mlp_0": "transformer_blocks_N_ff_context_net_0_proj",
    "double_blocks_N_txt_mlp_2": "transformer_blocks_N_ff_context_net_2",
    "double_blocks_N_txt_mod_lin": "transformer_blocks_N_norm1_context_linear",
    "single_blocks_N_linear1": "single_transformer_blocks_N_{attn_to_q,attn_to_k,attn_to_v,"
    "proj_mlp}",
    "single_blocks_N_linear2": "single_transformer_blocks_N_proj_out",
    "single_blocks_N_modulation_lin": "single_transformer_blocks_N_norm_linear",
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_text_embed_timestep_embedder_linear_1",
    "time_in_out_layer": "time_text_embed_timestep_embedder_linear_2",
    "guidance_in_in_layer": "time_text_embed_guidance_embedder_linear_1",
    "guidance_in_out_layer": "time_text_embed_guidance_embedder_linear_2",
    "vector_in_in_layer": "time_text_embed_text_embedder_linear_1",
    "vector_in_out_layer": "time_text_embed_text_embedder_linear_2",
    "final_layer_linear": "proj_out",
    "final_layer_adaLN_modulation_1": "norm_out_linear",
    # XLabs': 1 is the image's, 2 the text's.
    "double_blocks_N_qkv_lora1": f"transformer_blocks_N_attn_{_QKV}",
    "double_blocks_N_proj_lora1": "transformer_blocks_N_attn_to_out_0",
    "double_blocks_N_qkv_lora2": f"transformer_blocks_N_attn_{_ADDED_QKV}",
    "double_blocks_N_proj_lora2": "transformer_blocks_N_attn_to_add_out",
    "single_blocks_N_qkv": f"single_transformer_blocks_N_attn_{_QKV}",
    "single_blocks_N_proj": "single_transformer_blocks_N_proj_out",
}
_Z_IMAGE_NAMES = {
    f"{stack}_N_attention_{theirs}": f"{stack}_N_attention_{ours}"
    for stack in ("layers", "noise_refiner", "context_refiner")
    for theirs, ours in (("qkv", _QKV), ("out", "to_out_0"))
} | {
    "x_embedder": "all_x_embedder_2-1",
    "final_layer_linear": "all_final_layer_2-1_linear",
    "final_layer_adaLN_modulation_1": "all_final_layer_2-1_adaLN_modulation_1",
}
_Z_IMAGE_SAME = (
    r"(layers|noise_refiner|context_refiner)_\d+_(feed_forward_w[123]|adaLN_modulation_0)"
    r"|cap_embedder_1|t_embedder_mlp_[02]"
)
_FLUX2_NAMES = {
    theirs: ours
    for theirs, ours in _FLUX_NAMES.items()
    if not theirs.startswith(("single_blocks", "time_in", "guidance_in", "vector_in"))
    and not theirs.endswith(("_mlp_0", "_mlp_2", "_mod_lin", "_lora1", "_lora2"))
} | {
    "double_blocks_N_img_mlp_0": "transformer_blocks_N_ff_linear_in",
    "double_blocks_N_img_mlp_2": "transformer_blocks_N_ff_linear_out",
    "double_blocks_N_txt_mlp_0": "transformer_blocks_N_ff_context_linear_in",
    "double_blocks_N_txt_mlp_2": "transformer_blocks_N_ff_context_linear_out",
    "single_blocks_N_linear1": "single_transformer_blocks_N_attn_to_qkv_mlp_proj",
    "single_blocks_N_linear2": "single_transformer_blocks_N_attn_to_out",
    # diffusers' own name: elsewhere `to_out` stands for `to_out.0`.
    "single_transformer_blocks_N_attn_to_out_0": "single_transformer_blocks_N_attn_to_out",
    "single_stream_modulation_lin": "single_stream_modulation_linear",
    "double_stream_modulation_img_lin": "double_stream_modulation_img_linear",
    "double_stream_modulation_txt_lin": "double_stream_modulation_txt_linear",
    "time_in_in_layer": "time_guidance_embed_timestep_embedder_linear_1",
    "time_in_out_layer": "time_guidance_embed_timestep_embedder_linear_2",
    "guidance_in_in_layer": "time_guidance_embed_guidance_embedder_linear_1",
    "guidance_in_out_layer": "time_guidance_embed_guidance_embedder_linear_2",
}
# FLUX.1's, but for what modulates and embeds numbers: all of that is one part here.
_CHROMA_NAMES = {theirs: ours for theirs, ours in _FLUX_NAMES.items() if "_linear" not in ours} | {
    "distilled_guidance_layer_layers_N_in_layer": "distilled_guidance_layer_layers_N_linear_1",
    "distilled_guidance_layer_layers_N_out_layer": "distilled_guidance_layer_layers_N_linear_2",
}
_CHROMA_SAME = "distilled_guidance_layer_(in|out)_proj"
# The modulation of the text: in the last block it has but a scale and a shift.
_SWAPPED_ALONE = "_context_block_adaLN_modulation_1"
_SD3_NAMES = {
    "joint_blocks_N_x_block_attn_qkv": f"transformer_blocks_N_attn_{_QKV}",
    "joint_blocks_N_x_block_attn_proj": "transformer_blocks_N_attn_to_out_0",
    "joint_blocks_N_x_block_attn2_qkv": f"transformer_blocks_N_attn2_{_QKV}",
    "joint_blocks_N_x_block_attn2_proj": "transformer_blocks_N_attn2_to_out_0",
    "joint_blocks_N_x_block_mlp_fc1": "transformer_blocks_N_ff_net_0_proj",
    "joint_blocks_N_x_block_mlp_fc2": "transformer_blocks_N_ff_net_2",
    "joint_blocks_N_x_block_adaLN_modulation_1": "transformer_blocks_N_norm1_linear",
    "joint_blocks_N_context_block_adaLN_modulation_1": "transformer_blocks_N_norm1_context_linear",
    "joint_blocks_N_context_block_attn_qkv": f"transformer_blocks_N_attn_{_ADDED_QKV}",
    "joint_blocks_N_context_block_attn_proj": "transformer_blocks_N_attn_to_add_out",
    "joint_blocks_N_context_block_mlp_fc1": "transformer_blocks_N_ff_context_net_0_proj",
    "joint_blocks_N_context_block_mlp_fc2": "transformer_blocks_N_ff_context_net_2",
    "x_embedder_proj": "pos_embed_proj",
    "t_embedder_mlp_0": "time_text_embed_timestep_embedder_linear_1",
    "t_embedder_mlp_2": "time_text_embed_timestep_embedder_linear_2",
    "y_embedder_mlp_0": "time_text_embed_text_embedder_linear_1",
    "y_embedder_mlp_2": "time_text_embed_text_embedder_linear_2",
    "final_layer_linear": "proj_out",
    "final_layer_adaLN_modulation_1": "norm_out_linear",
}
_LUMINA2_NAMES = {
    f"{stack}_N_{theirs}": f"{stack}_N_{ours}"
    for stack in ("layers", "noise_refiner", "context_refiner")
    for theirs, ours in (
        ("attention_qkv", f"attn_{_QKV}"),
        ("attention_out", "attn_to_out_0"),
        *((f"feed_forward_w{number}", f"feed_forward_linear_{number}") for number in (1, 2, 3)),
        ("adaLN_modulation_1", "norm1_linear"),
    )
} | {
    "cap_embedder_1": "time_caption_embed_caption_embedder_1",
    "t_embedder_mlp_0": "time_caption_embed_timestep_embedder_linear_1",
    "t_embedder_mlp_2": "time_caption_embed_timestep_embedder_linear_2",
    "final_layer_adaLN_modulation_1": "norm_out_linear_1",
    "final_layer_linear": "norm_out_linear_2",
}
_KREA2_NAMES = {
    f"{theirs}_N_{layer}": f"{ours}_N_{name}"
    for theirs, ours in (
        ("blocks", "transformer_blocks"),
        ("txtfusion_layerwise_blocks", "text_fusion_layerwise_blocks"),
        ("txtfusion_refiner_blocks", "text_fusion_refiner_blocks"),
    )
    for layer, name in (
        *((f"attn_w{letter}", f"attn_to_{letter}") for letter in "qkv"),
        ("attn_wo", "attn_to_out_0"),
        ("attn_gate", "attn_to_gate"),
        *((f"mlp_{kind}", f"ff_{kind}") for kind in ("gate", "up", "down")),
    )
} | {
    "first": "img_in",
    "last_linear": "final_layer_linear",
    "tmlp_0": "time_embed_linear_1",
    "tmlp_2": "time_embed_linear_2",
    "tproj_1": "time_mod_proj",
    "txtmlp_1": "txt_in_linear_1",
    "txtmlp_3": "txt_in_linear_2",
    "txtfusion_projector": "text_fusion_projector",
}


def _compiled(names: dict[str, str]) -> tuple[tuple[re.Pattern[str], tuple[str, ...]], ...]:
    return tuple(
        (
            re.compile(theirs.replace("_N_", r"_(\d+)_")),
            tuple(one.replace("_N_", r"_\1_") for one in _expanded(ours)),
        )
        for theirs, ours in names.items()
    )


def _expanded(ours: str) -> Iterable[str]:
    """The names that one with braces stands for."""
    before, brace, rest = ours.partition("{")
    choices, _, after = rest.partition("}")
    return [before + choice + after for choice in choices.split(",")] if brace else [before]


_AUTHORS_NAMES = {
    "flux": _compiled(_FLUX_NAMES),
    "z_image": _compiled(_Z_IMAGE_NAMES),
    "flux2": _compiled(_FLUX2_NAMES),
    "chroma": _compiled(_CHROMA_NAMES),
    "sd3": _compiled(_SD3_NAMES),
    "lumina2": _compiled(_LUMINA2_NAMES),
    "krea2": _compiled(_KREA2_NAMES),
}


def _layers(names: dict[str, str], same: str = "") -> re.Pattern[str]:
    """The layers that the authors' names stand for; `same` are those that both call the same."""
    ours = (one.replace("_N_", r"_\d+_") for name in names.values() for one in _expanded(name))
    return re.compile("|".join(filter(None, [*dict.fromkeys(ours), same])))


# The linear layers and convolutions of each family.
_LAYERS: dict[str, dict[Part, re.Pattern[str]]] = {
    "sd1": {"denoiser": _SD1_UNET, "text_encoder": _clip(r"\d+")},
    "sdxl": {
        "denoiser": _SDXL_UNET,
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_G,
    },
    "flux": {"denoiser": _layers(_FLUX_NAMES), "text_encoder": _CLIP_L, "text_encoder_2": _T5},
    "z_image": {"denoiser": _layers(_Z_IMAGE_NAMES, _Z_IMAGE_SAME)},
    "flux2": {"denoiser": _layers(_FLUX2_NAMES)},
    "qwen_image": {"denoiser": _QWEN_IMAGE},
    "sd3": {
        "denoiser": _layers(_SD3_NAMES, "context_embedder"),
        "text_encoder": _CLIP_L,
        "text_encoder_2": _CLIP_G,
        "text_encoder_3": _T5,
    },
    "chroma": {"denoiser": _layers(_CHROMA_NAMES, _CHROMA_SAME), "text_encoder": _T5},
    "lumina2": {"denoiser": _layers(_LUMINA2_NAMES, "x_embedder")},
    "krea2": {"denoiser": _layers(_KREA2_NAMES)},
    "ernie_image": {"denoiser": _ERNIE_IMAGE},
}
_LAYERS["demo"] = _LAYERS["sd2"] = _LAYERS["sd1"]
