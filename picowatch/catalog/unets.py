"""Recognises Stable Diffusion by its UNet: whole checkpoints, and ControlNets.

Key names: CompVis' latent-diffusion layout (`model.diffusion_model.`, `first_stage_model.`,
`cond_stage_model.`) and Stability's for SDXL (`conditioner.embedders.`). ControlNets are
lllyasviel's (`input_hint_block.`) or diffusers' (`controlnet_cond_embedding.`).
"""

import re

from picowatch.catalog.headers import Header
from picowatch.catalog.models import Recognised
from picowatch.catalog.storage import stored
from picowatch.errors import ModelRefused
from picowatch.families import DEMO, DEMO_WIDTH, FAMILIES, FAMILY_OF_WIDTH

UNET = "model.diffusion_model."
ORIGINAL = "control_model."  # before a ControlNet's names, as its authors first shared it
# How many kinds of maps a union takes: xinsir's first one, and its ProMax with tile and inpaint.
UNIONS = {"union": 6, "union ProMax": 8}
USABLE_INPUTS = (4, 9)  # 9 are an inpainting checkpoint's
POOLED = {"sdxl": 2816}  # the width of what a UNet is told beside the text
_FIRST = "input_blocks.0.0.weight"
_HINT, _DIFFUSERS_HINT = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
_LATENTS, _COLOURS = 4, 3  # inputs of a ControlNet, and channels of its map
_UNION = "task_embedding"
# The published UNets are so wide. Narrower ones, with any width of text, are people's own.
_CHANNELS = 320
_DEMO_CONTROLNET_CHANNELS = 64
# How many transformer blocks each attention of the UNet's first half has in SDXL.
_SDXL_DEPTHS = [2, 2, 10, 10]
# SDXL's deepest attentions have ten transformer blocks, of its mid ControlNets one.
_FULL_DEPTH = 10
_BLOCK = re.compile(r"(input_blocks\.\d+\.1|attentions\.\d+)\.transformer_blocks\.(\d+)\.")
# Parts of names in UNets with a noise schedule of their own, or for videos.
_OTHER_UNETS = ("edm_", ".time_stack.")


def unet(header: Header) -> Recognised | None:
    """A checkpoint in the original layout: a UNet, and with it text encoders and VAE."""
    prefix = UNET if f"{UNET}{_FIRST}" in header.shapes else ""
    family = _unet_family(header, prefix)
    if not family:
        return None
    if stored(header) == "scaled fp8":
        raise ModelRefused("is quantised (scaled fp8): get it in float16, bfloat16 or plain fp8.")
    row = FAMILIES[family]
    if lacks := _lacks(header, family):
        raise ModelRefused(
            f"is a checkpoint of {row.name} without its {lacks}: a complete checkpoint is needed."
        )
    inputs, prediction = header.inputs(f"{prefix}{_FIRST}"), _prediction(header)
    small = family == "sd2" and (prediction == "epsilon" or inputs != _LATENTS)
    return Recognised(
        "checkpoint",
        family,
        512 if small else row.native_size,
        inputs,
        row.text_layers,
        prediction,
        "ztsnr" in header.shapes,
        text_width=text_width(header, prefix),
    )


def _unet_family(header: Header, prefix: str) -> str:
    """The family of a UNet with its layers, told by its text encoders or its text; else ""."""
    first = header.shapes.get(f"{prefix}{_FIRST}", ())
    if len(first) != 4 or first[1] not in USABLE_INPUTS or _HINT in header.shapes:
        return ""
    if any(mark in name for name in header.shapes for mark in _OTHER_UNETS):
        return ""
    width, pooled = text_width(header, prefix), header.inputs(f"{prefix}label_emb.0.0.weight")
    family = FAMILY_OF_WIDTH.get(width, "sdxl" if pooled else "sd1")
    for key in ("sdxl", "sd2"):
        if header.has(FAMILIES[key].text_prefixes):
            family = key
            break
    if family == DEMO:  # a Stable Diffusion 1.x of another width
        family = "sd1"
    if first[0] < _CHANNELS:
        return family
    if (width, pooled) != (FAMILIES[family].text_width, POOLED.get(family, 0)):
        return ""
    return "" if family == "sdxl" and _depths(header, prefix) != _SDXL_DEPTHS else family


def _lacks(header: Header, family: str) -> str:
    """The first part that a whole checkpoint of this family has and the file lacks; else ""."""
    starts = FAMILIES[family].text_prefixes
    absent = [start for start in starts if not header.has(start)]
    if absent and (family == "sdxl" or len(absent) == len(starts)):  # of 2.x has one of two names
        return f"text encoder ({absent[0]}…)"
    return "" if header.has("first_stage_model.decoder.") else "VAE"


def text_width(header: Header, prefix: str) -> int:
    """The width of the text that the UNet's cross-attention looks at; 0 without cross-attention."""
    end = ".attn2.to_k.weight"
    names = (name for name in header.shapes if name.startswith(prefix) and name.endswith(end))
    return max(map(header.inputs, names), default=0)


def _depths(header: Header, prefix: str) -> list[int]:
    """The numbers of transformer blocks of the attentions of a UNet's first half."""
    blocks: dict[str, set[str]] = {}
    for name in header.shapes:
        match = _BLOCK.match(name, len(prefix)) if name.startswith(prefix) else None
        if match:
            blocks.setdefault(match[1], set()).add(match[2])
    return [len(blocks[layer]) for layer in sorted(blocks, key=lambda one: int(one.split(".")[1]))]


def _prediction(header: Header) -> str:
    """Read what it predicts, which a tensor (NoobAI) or metadata (kohya, ComfyUI) says."""
    if "v_pred" in header.shapes:
        return "v_prediction"
    for key in ("modelspec.prediction_type", "modelspec.predict_key"):
        said = header.metadata.get(key, "")
        if said in ("v", "epsilon"):
            return "v_prediction" if said == "v" else said
    return ""


def controlnet(header: Header) -> Recognised | None:
    """A ControlNet: a copy of half a UNet with an entry for its map."""
    original = [one for one in (ORIGINAL, "") if f"{one}{_HINT}" in header.shapes]
    prefix = original[0] if original else ""
    hint, first = (_HINT, _FIRST) if original else (_DIFFUSERS_HINT, "conv_in.weight")
    channels = header.inputs(f"{prefix}{hint}"), header.inputs(f"{prefix}{first}")
    # Others have only the difference of their layers from a UNet's, or a LoRA of it.
    if channels != (_COLOURS, _LATENTS) or header.has(("lora_controlnet", f"{prefix}difference")):
        return None
    width = text_width(header, prefix)
    family = FAMILY_OF_WIDTH.get(width, "")
    if header.has(("add_embedding.", f"{prefix}label_emb.")):
        family = "sdxl"  # it is told the picture's size
    elif not width and header.shapes[f"{prefix}{first}"][0] == _DEMO_CONTROLNET_CHANNELS:
        family, width = DEMO, DEMO_WIDTH
    variant = _controlnet_variant(header, family)
    if not family or variant is None:
        return None
    return Recognised("controlnet", family, variant=variant, text_width=width)


def _controlnet_variant(header: Header, family: str) -> str | None:
    """The variant; None for a union of unknown kinds of maps."""
    if _UNION in header.shapes:
        kinds = header.shapes[_UNION][0]
        return next((name for name, known in UNIONS.items() if kinds == known), None)
    matches = filter(None, map(_BLOCK.search, header.shapes))
    depth = max((int(found[2]) + 1 for found in matches), default=0)
    if family != "sdxl" or depth >= _FULL_DEPTH:
        return ""
    return "mid" if depth else "small"
