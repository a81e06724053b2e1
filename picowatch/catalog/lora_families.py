"""Which family a LoRA is for, by the names and widths of its layers.

The names are those of diffusers' loaders/lora_conversion_utils.py: its own, those of the models'
authors, and kohya's, which join either with "_".
"""

import re
from collections.abc import Mapping
from math import prod

from picowatch.catalog.families import FAMILY_OF_WIDTH, ONLY, UNETS
from picowatch.catalog.headers import Header
from picowatch.errors import ModelRefused

Shapes = Mapping[str, tuple[int, ...]]
_INPUTS = (".lora_down.", ".lora_A.", ".lora.down.", "_lora.down.")
_DOWN = re.compile(r"_lora_(down|A)_")
# What stands before the names of a denoiser's layers; `lora_transformer_` is OneTrainer's, and
# peft's alone before all names.
DENOISER = re.compile(
    r"^(?:base_model\.model\.|(?:lora_unet|lora_transformer|lycoris)_"
    r"|(?:model\.diffusion_model|diffusion_model|transformer|unet)\.)+"
)
# The UNets' blocks in diffusers' names and in SGM's.
_UNET_BLOCKS = (
    *("down_blocks_", "mid_block_", "up_blocks_"),
    *("input_blocks_", "middle_block_", "output_blocks_"),
)
# Deeper stacks of transformer blocks than other UNets have, and SGM's names: kohya's for SDXL.
_ONLY_SDXL = re.compile(
    r"(?:down|mid|up)_blocks?_\d?.*_transformer_blocks_[1-9]|(?:in|out)put_blocks_|middle_block_"
)
_TRANSFORMER_LAYERS = tuple(
    (re.compile(pattern), family)
    for pattern, family in (
        (r"joint_blocks_", "sd3"),
        (r"distilled_guidance_layer_", "chroma"),
        (r"early_stream_modulations_", "flux3"),
        (r"(double|single)_stream_modulation_", "flux2"),
        (r"single_transformer_blocks_\d+_attn_to_qkv_mlp_proj_", "flux2"),
        (r"txt_in_individual_token_refiner_", "hunyuan_video"),
        (r"txtfusion_|text_fusion_|blocks_\d+_attn_w[qkvo]_", "krea2"),
        (r"transformer_blocks_\d+_(attn_to_gate|ff_(gate|up|down))_", "krea2"),
        (
            r"layers_\d+_(self_attention_to_[qkvo]|mlp_(gate_proj|up_proj|linear_fc2))",
            "ernie_image",
        ),
        (r"llm_adapter_|blocks_\d+_(self|cross)_attn_\w+_proj_", "anima"),
        (r"blocks_\d+_((self|cross)_attn_[qkvo]|attn[12]_to_[qkv])_", "wan"),
        (r"transformer_blocks_\d+_(img|txt)_(mlp|mod)_", "qwen_image"),
        (r"double_layers_|single_layers_|joint_transformer_blocks_", "aura_flow"),
        (r"double_stream_blocks_|single_stream_blocks_", "hidream"),
    )
)
_TRANSFORMER_INPUT = re.compile(
    r"layers_\d+_(attention_(to_q|qkv)|feed_forward_w1)_|transformer_blocks_\d+_attn1?_to_q_"
)
_FAMILY_OF_INPUTS = {
    1536: "sd3",
    2432: "sd3",
    3072: "qwen_image",
    2304: "lumina2",
    2240: "sana",
    6144: "krea2",
    3840: "z_image",
}
# FLUX.1 and those whose layers have the same names: widths tell FLUX.2 (klein 9B's and dev's), the
# trainer's word others.
_FLUX_BLOCK = re.compile(r"(double|single)_blocks_|single_transformer_blocks_")
# Qwen-Image's attention has the same names and widths.
_FLUX_FEED_FORWARD = re.compile(r"transformer_blocks_\d+_ff(_context)?_net_0_proj_lora_(down|A)_")
_FLUX_WIDTH = 3072
_FLUX_INPUT = re.compile(
    r"double_blocks_\d+_img_attn_qkv_|single_blocks_\d+_linear1_|single_transformer_blocks_\d+_attn_to_q_"
)
_FLUX2_WIDTHS = (4096, 6144)
_FLUX_GATED = re.compile(r"single_blocks_\d+_linear1_lora_(up|B)_")
_FLUX2_GATED_WIDTH = 27648  # klein 4B's, as wide as FLUX.1 otherwise
_LIKE_FLUX = ("flux2", "chroma", "hunyuan_video", "ovis")
# Parts of what trainers write: kohya's, ModelSpec's, ai-toolkit's.
_BASES = (
    *(("sdxl", "sdxl"), ("stable-diffusion-xl", "sdxl")),
    *(("sd_v1", "sd1"), ("stable-diffusion-v1", "sd1"), ("sd-v1", "sd1")),
    *(("sd_v2", "sd2"), ("stable-diffusion-v2", "sd2")),
    *(("sd3", "sd3"), ("stable-diffusion-3", "sd3"), ("chroma", "chroma")),
    *(("ovis", "ovis"), ("ernie", "ernie_image"), ("auraflow", "aura_flow")),
    *(
        ("krea2", "krea2"),
        ("krea-2", "krea2"),
        ("sana", "sana"),
        ("pixart", "pixart"),
        ("cogview4", "cogview4"),
    ),
    *(("flux2", "flux2"), ("flux.2", "flux2"), ("flux-2", "flux2"), ("flux", "flux")),
    *(("zimage", "z_image"), ("z-image", "z_image"), ("qwen", "qwen_image")),
    *(("lumina", "lumina2"), ("hunyuan-video", "hunyuan_video"), ("anima", "anima")),
)


def family_of_lora(header: Header) -> str:
    """By the names and widths of its layers, else by what its trainer wrote; "" if neither says.

    ModelRefused for a transformer's of an unknown family.
    `lora_te1_` says nothing: diffusers' export to kohya's names has it for every family.
    """
    said = _said(header)
    header = Header(header.shapes | _halves(header.shapes), header.metadata)
    names = {
        DENOISER.sub("", name).replace(".", "_"): shape for name, shape in header.shapes.items()
    }
    if not any(name.startswith(_UNET_BLOCKS) for name in names):
        family = _transformer_family(names)
        if family == "flux" and said in _LIKE_FLUX:
            return said
        if family:
            return family
        if said and said not in UNETS:
            return said
        if header.has("transformer.") or header.has("diffusion_model."):
            raise ModelRefused(f"is a LoRA for a transformer of an unknown family: {ONLY}")
    for name in header.shapes:
        if "attn2" in name and "to_k" in name and any(mark in name for mark in _INPUTS):
            family = FAMILY_OF_WIDTH.get(header.inputs(name), "")
            if family:
                return family
    if header.has("lora_te2_") or any("text_encoder_2." in name for name in header.shapes):
        return "sdxl"
    if any(map(_ONLY_SDXL.search, names)):
        return "sdxl"
    return said


def _halves(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    """The sides of layers that are changed otherwise, as a LoRA's halves would show them."""
    found: dict[str, tuple[int, ...]] = {}
    for layer, kind in {name.rpartition(".")[::2] for name in shapes}:
        if kind.startswith(("hada_w1", "lokr_w1")):
            factors = ("hada_w1",) if kind.startswith("hada") else ("lokr_w1", "lokr_w2")
            sides = [_sides(shapes, f"{layer}.{factor}") for factor in factors]
            found[f"{layer}.lora_down.weight"] = (1, prod(columns for _, columns in sides))
            found[f"{layer}.lora_up.weight"] = (prod(rows for rows, _ in sides), 1)
        elif kind == "diff":
            found[f"{layer}.lora_down.weight"] = (1, *shapes[f"{layer}.diff"][1:])
            found[f"{layer}.lora_up.weight"] = (*shapes[f"{layer}.diff"][:1], 1)
    return found


def _sides(shapes: Shapes, factor: str) -> tuple[int, int]:
    """The rows and columns of a factor, which is whole or of two matrices."""
    left, right = (shapes.get(factor) or shapes.get(f"{factor}_{half}", ()) for half in "ab")
    return (*left, 1)[0], (*right, 1, 1)[1]


def _transformer_family(names: dict[str, tuple[int, ...]]) -> str:
    """The family of a LoRA for a transformer, by its layers' flat names; "" for anything else."""
    for pattern, family in _TRANSFORMER_LAYERS:
        if any(map(pattern.match, names)):
            return family
    flux = any(
        _FLUX_BLOCK.match(name)
        or (_FLUX_FEED_FORWARD.match(name) and (*shape, 0, 0)[1] == _FLUX_WIDTH)
        for name, shape in names.items()
    )
    for name, shape in names.items():
        inputs = (*shape, 0, 0)[1] if _DOWN.search(name) else 0
        if not flux and inputs in _FAMILY_OF_INPUTS and _TRANSFORMER_INPUT.match(name):
            return _FAMILY_OF_INPUTS[inputs]
        if flux and inputs in _FLUX2_WIDTHS and _FLUX_INPUT.match(name):
            return "flux2"
        if flux and shape[:1] == (_FLUX2_GATED_WIDTH,) and _FLUX_GATED.match(name):
            return "flux2"
    return "flux" if flux else ""


def _said(header: Header) -> str:
    """The family that the trainer wrote: kohya's base version, or Stability's architecture."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        base = header.metadata.get(key, "").lower()
        for mark, family in _BASES:
            if mark in base:
                return family
    return ""
