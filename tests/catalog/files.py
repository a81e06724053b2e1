"""Model files that are headers only: real key names and shapes, sparse weights."""

import json
import lzma
import struct
from collections.abc import Mapping
from functools import partial
from math import prod
from pathlib import Path

from picowatch.catalog import Catalog, Model

Shapes = dict[str, tuple[int, ...]]
Metadata = Mapping[str, str]
NONE: Metadata = {}
BYTES = {"F16": 2, "F32": 4, "U8": 1}
UNET = "model.diffusion_model."
VAE = "first_stage_model."
CLIP_L = "conditioner.embedders.0.transformer.text_model."
OPEN_CLIP_G = "conditioner.embedders.1.model."
OPEN_CLIP_H = "cond_stage_model.model."
LISTED = Path(__file__).with_name("checkpoints.json.xz")  # names and shapes of whole checkpoints
UNET_INPUT = f"{UNET}input_blocks.0.0.weight"
UNET_CROSS = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
TEXT = "cond_stage_model.transformer.text_model.final_layer_norm.weight"


def write_model(
    path: Path, shapes: Shapes, missing_bytes: int = 0, metadata: Metadata = NONE
) -> Path:
    """A safetensors file of the right size whose weights are a hole; `missing_bytes` cut it off."""
    head = header(shapes, metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + 2 * sum(map(prod, shapes.values())) - missing_bytes)
    return path


def found_in(models: Path) -> Model:
    (found,) = Catalog(models).scan().models
    return found


def refused_in(models: Path) -> str:
    (refused,) = Catalog(models).scan().refused
    return refused.reason


def header(shapes: Shapes, metadata: Metadata = NONE, types: Metadata = NONE) -> bytes:
    """The safetensors header of these tensors, in float16 or of other types by their names."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    place = 0
    for tensor, shape in shapes.items():
        kind = types.get(tensor, "F16")
        end = place + BYTES[kind] * prod(shape)
        entries[tensor] = {"dtype": kind, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return safetensors(text + b" " * (-len(text) % 8))


def safetensors(header: bytes, length: int | None = None, weights: int = 0) -> bytes:
    """A file with this header, whatever length it claims, and so many bytes of weights."""
    claimed = len(header) if length is None else length
    return struct.pack("<Q", claimed) + header + bytes(weights)


def _checkpoint(name: str) -> Shapes:
    listed = json.loads(lzma.decompress(LISTED.read_bytes()))
    return {tensor: tuple(shape) for tensor, shape in listed[name].items()}


sd15_shapes, sd2_shapes, sdxl_shapes = (partial(_checkpoint, n) for n in ("sd15", "sd2", "sdxl"))


def checkpoint_shapes() -> Shapes:
    return {
        UNET_INPUT: (320, 4, 3, 3),
        UNET_CROSS: (320, 768),
        TEXT: (768,),
        f"{VAE}decoder.conv_in.weight": (512, 4, 3, 3),
        f"{VAE}post_quant_conv.weight": (4, 4, 1, 1),
    }


def kohya_lora_shapes() -> Shapes:
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    return {
        f"{layer}.alpha": (),
        f"{layer}.lora_down.weight": (8, 768),
        f"{layer}.lora_up.weight": (320, 8),
    }
