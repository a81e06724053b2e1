"""What the config of a transformer says, where a folder of another variant or size lends it."""

import math
import re
from collections.abc import Mapping
from typing import Any

from picowatch.catalog.headers import Header

_DEV: dict[str, object] = {"guidance_embeds": True, "in_channels": 64, "out_channels": None}
_NUMBERS: Mapping[tuple[str, str], Mapping[str, object]] = {
    ("flux", "dev"): _DEV,
    ("flux", "Krea"): _DEV,
    ("flux", "schnell"): _DEV | {"guidance_embeds": False},
    ("flux", "Fill"): {"guidance_embeds": True, "in_channels": 384, "out_channels": 64},
}
_QUERY_NORM = re.compile(r"\.(ln_q|norm_q)\.")
Shapes = Mapping[str, tuple[int, ...]]


def fitting_config(
    family: str, variant: str, config: Mapping[str, Any], header: Header, prefix: str
) -> dict[str, Any]:
    """The config with the numbers of this variant, or those that the tensors themselves tell."""
    shapes = {
        name.removeprefix(prefix): shape
        for name, shape in header.shapes.items()
        if name.startswith(prefix)
    }
    known = _NUMBERS.get((family, variant), {})
    if family == "sd3":
        known = _sd3(config, shapes)
    elif family == "flux2":
        known = _flux2(config, shapes)
    return {**config, **known}


def _sd3(config: Mapping[str, Any], shapes: Shapes) -> dict[str, object]:
    """MMDiT of 3 and MMDiT-X of 3.5, as ComfyUI tells them apart (model_detection.py).

    3.5 normalises queries and keys, and 3.5 Medium has a second attention in its first layers.
    """
    positions, width = _shape(shapes, "pos_embed", "pos_embed.pos_embed")[-2:]
    return {
        "num_layers": _layers(shapes, "joint_blocks.", "transformer_blocks."),
        "num_attention_heads": width // config["attention_head_dim"],
        "caption_projection_dim": width,
        "pos_embed_max_size": math.isqrt(positions),
        "qk_norm": "rms_norm" if any(_QUERY_NORM.search(name) for name in shapes) else None,
        "dual_attention_layers": sorted(
            {int(name.split(".")[1]) for name in shapes if ".attn2." in name}
        ),
    }


def _flux2(config: Mapping[str, Any], shapes: Shapes) -> dict[str, object]:
    """klein has two sizes."""
    width = _shape(shapes, "img_in.weight", "x_embedder.weight")[0]
    return {
        "num_layers": _layers(shapes, "double_blocks.", "transformer_blocks."),
        "num_single_layers": _layers(shapes, "single_blocks.", "single_transformer_blocks."),
        "num_attention_heads": width // config["attention_head_dim"],
        "joint_attention_dim": _shape(shapes, "txt_in.weight", "context_embedder.weight")[1],
    }


def _shape(shapes: Shapes, *names: str) -> tuple[int, ...]:
    return next(shapes[name] for name in names if name in shapes)


def _layers(shapes: Shapes, *beginnings: str) -> int:
    """How many blocks there are, in the authors' names or in diffusers'."""
    return len({name.split(".")[1] for name in shapes if name.startswith(beginnings)})
