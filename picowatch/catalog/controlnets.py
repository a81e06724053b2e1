"""Recognises ControlNets, and names what guides pictures by other means.

Key names: lllyasviel's (`input_hint_block.`, with `control_model.` before it or without),
diffusers' (`controlnet_cond_embedding.`), and those of other programs' files
(https://github.com/Mikubill/sd-webui-controlnet, scripts/controlnet_model_guess.py).
"""

import re
from pathlib import Path

from picowatch.catalog.configs import read_json
from picowatch.catalog.folder_files import check_files, check_weights, weight_files
from picowatch.catalog.headers import Header, read_header
from picowatch.catalog.models import Recognised
from picowatch.errors import ModelRefused
from picowatch.families import DEMO_WIDTH, FAMILY_OF_WIDTH

ORIGINAL = "control_model."
_ORIGINAL_HINT, _HINT = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
_LATENTS, _COLOURS = 4, 3  # inputs of a ControlNet, and channels of its map
_UNION = "task_embedding"
# How many kinds of maps a union takes: xinsir's first one, and its ProMax with tile and inpaint.
UNIONS = {"union": 6, "union ProMax": 8}
_TRANSFORMER = re.compile(r"(?:input_blocks\.\d+\.1|attentions\.\d+)\.transformer_blocks\.(\d+)\.")
# SDXL's deepest attentions have ten transformer blocks, of its mid ControlNets one.
_FULL_DEPTH = 10
_DEMO_CHANNELS = 64  # of its first layer

# What guides pictures but is no ControlNet, by tensor names that begin so.
_OTHERS = {
    "lora_controlnet": "a Control-LoRA, which only works together with the checkpoint's weights",
    "lllite_": "a ControlNet-LLLite",
    "adapter.body.": "a T2I-Adapter",
    "body.0.in_conv.": "a T2I-Adapter",
    "body.0.block2.": "a T2I-Adapter",
    "style_embedding": "a style adapter (T2I-Adapter)",
    "ip_adapter.": "an IP-Adapter",
    "image_proj.": "an IP-Adapter",
    "controlnet_blocks.": "a ControlNet for a transformer (FLUX.1, Stable Diffusion 3 or others)",
    "control_layers.": "a ControlNet for a transformer (Z-Image)",
    "control_blocks.": "a ControlNet for a transformer (Qwen-Image)",
    "controlnet_x_embedder.": "a ControlNet for FLUX.1",
}
# Motion modules and the LoRAs for them: AnimateDiff's names and diffusers'.
_MOTION = ("motion_modules.",)
# Parts of names in networks that make maps of pictures.
_DETECTORS = {
    "Mconv": "a detector of poses (OpenPose)",
    "netCombine": "a detector of edges (HED)",
    "dexined": "a detector of edges",
}
_USE_INSTEAD = "not supported. Use a ControlNet: a file with its own copy of the layers."
_USE_MAPS = (
    "picowatch runs none. Make the map with another program, and use it with 'preprocess: none'."
)


def is_first_controlnet(header: Header) -> bool:
    """Whether it is as the authors first shared them, with a whole checkpoint."""
    return f"{ORIGINAL}{_ORIGINAL_HINT}" in header.shapes


def is_controlnet(header: Header) -> bool:
    """A ControlNet of any family, or a kin of it that is named and refused."""
    return bool(_prefix(header) is not None or _HINT in header.shapes or other_guide(header))


def other_guide(header: Header) -> str:
    """What else guides pictures, in the words that refuse it; "" for anything else."""
    names = "\n".join(header.shapes)  # one long text is searched much faster than many short ones
    for start, what in _OTHERS.items():
        if names.startswith(start) or f"\n{start}" in names:
            return f"is {what}: {_USE_INSTEAD}"
    if any(mark in names for mark in _MOTION):
        return "is a motion module or motion LoRA (AnimateDiff), for videos: not supported."
    for part, what in _DETECTORS.items():
        if part in names:
            return f"is {what}: {_USE_MAPS}"
    return ""


def recognise_controlnet(header: Header) -> Recognised:
    """Family and variant of a ControlNet; ModelRefused for one that cannot be used."""
    prefix = _prefix(header)
    if "difference" in header.shapes or f"{prefix}difference" in header.shapes:
        raise ModelRefused(
            "has only the difference between a ControlNet and Stable Diffusion 1.5: get the whole "
            "ControlNet."
        )
    if refused := other_guide(header):
        raise ModelRefused(refused)
    original = prefix is not None
    hint = header.inputs(f"{prefix}{_ORIGINAL_HINT}" if original else _HINT)
    latents = header.inputs(f"{prefix}input_blocks.0.0.weight" if original else "conv_in.weight")
    if (hint, latents) != (_COLOURS, _LATENTS):
        raise ModelRefused(
            f"is a ControlNet whose maps have {hint} channels and whose latents {latents}: only "
            f"those with {_COLOURS} and {_LATENTS} are supported."
        )
    width, depth = _attention(header)
    family = _family(header, width, f"{prefix}input_blocks.0.0" if original else "conv_in")
    if family == "demo":
        width = DEMO_WIDTH
    return Recognised(
        "controlnet", family, variant=_variant(header, family, depth), text_width=width
    )


def recognise_controlnet_folder(folder: Path) -> Recognised:
    """A diffusers folder with a ControlNet: its config, and its weights."""
    check_files(folder)
    kind = read_json(folder / "config.json").get("_class_name")
    if kind not in ("ControlNetModel", "ControlNetUnionModel"):
        raise ModelRefused("is a diffusers folder, but not of a ControlNet (ControlNetModel).")
    check_weights(folder)
    shapes: dict[str, tuple[int, ...]] = {}
    for file in weight_files(folder):
        shapes |= read_header(file).shapes
    return recognise_controlnet(Header(shapes, {}))


def _prefix(header: Header) -> str | None:
    """What stands before the names of the original layout; None for another layout."""
    for prefix in (ORIGINAL, ""):
        if f"{prefix}{_ORIGINAL_HINT}" in header.shapes:
            return prefix
    return None


def _attention(header: Header) -> tuple[int, int]:
    """The width of the text that it looks at, and its most transformer blocks; 0 without any."""
    widths = [header.inputs(name) for name in header.shapes if name.endswith(".attn2.to_k.weight")]
    depths = [int(found[1]) + 1 for name in header.shapes if (found := _TRANSFORMER.search(name))]
    return max(widths, default=0), max(depths, default=0)


def _family(header: Header, width: int, first: str) -> str:
    """SDXL is told the picture's size; the others differ in the width of their text.

    Those without attention look at no text: the demo model's is known by its first layer's width.
    """
    if header.has("add_embedding.") or any(".label_emb." in f".{name}" for name in header.shapes):
        return "sdxl"
    if not width and header.shapes.get(f"{first}.weight", (0,))[0] == _DEMO_CHANNELS:
        return "demo"
    if width not in FAMILY_OF_WIDTH:
        raise ModelRefused(f"is a ControlNet for an unknown family, with texts {width} wide.")
    return FAMILY_OF_WIDTH[width]


def _variant(header: Header, family: str, depth: int) -> str:
    if _UNION in header.shapes:
        kinds = (*header.shapes[_UNION], 0)[0]
        for name, known in UNIONS.items():
            if kinds == known:
                return name
        raise ModelRefused(f"is a union ControlNet for {kinds} kinds of maps; known are 6 and 8.")
    if family == "sdxl" and depth < _FULL_DEPTH:
        return "mid" if depth else "small"
    return ""
