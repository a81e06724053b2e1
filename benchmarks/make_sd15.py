"""Writes a full-size Stable Diffusion 1.5 checkpoint with random weights.

    python benchmarks/make_sd15.py models/checkpoints/random15.safetensors

Real key names, shapes and type in one file of the original (LDM) layout, 2.1 GB in float16, to
check and time loading and rendering without a download. Its pictures are noise. Written tensor
by tensor, so that it needs little memory.
"""

import argparse
import json
import math
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

Dtype = Literal["fp16", "fp32"]
Shapes = Iterator[tuple[str, tuple[int, ...]]]

_TYPES = {"fp16": ("F16", np.float16), "fp32": ("F32", np.float32)}
# Below 1 / sqrt(inputs) each layer shrinks what it gets, so that float16 cannot overflow.
_GAIN = 0.5
_DIFFERENT = 100_003  # numbers of a tensor, a prime
_TEXT_WIDTH, _TIME_WIDTH = 768, 1280
UNET = "model.diffusion_model."


def _conv(name: str, inputs: int, outputs: int, side: int = 3) -> Shapes:
    yield f"{name}.weight", (outputs, inputs, side, side)
    yield f"{name}.bias", (outputs,)


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Shapes:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _unet_residual(name: str, inputs: int, outputs: int) -> Shapes:
    yield from _norm(f"{name}.in_layers.0", inputs)
    yield from _conv(f"{name}.in_layers.2", inputs, outputs)
    yield from _linear(f"{name}.emb_layers.1", _TIME_WIDTH, outputs)
    yield from _norm(f"{name}.out_layers.0", outputs)
    yield from _conv(f"{name}.out_layers.3", outputs, outputs)
    if inputs != outputs:
        yield from _conv(f"{name}.skip_connection", inputs, outputs, 1)


def _unet_attention(name: str, width: int) -> Shapes:
    yield from _norm(f"{name}.norm", width)
    yield from _conv(f"{name}.proj_in", width, width, 1)
    block = f"{name}.transformer_blocks.0"
    for attention, context in (("attn1", width), ("attn2", _TEXT_WIDTH)):
        yield from _linear(f"{block}.{attention}.to_q", width, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_k", context, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_v", context, width, bias=False)
        yield from _linear(f"{block}.{attention}.to_out.0", width, width)
    yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
    yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    for number in (1, 2, 3):
        yield from _norm(f"{block}.norm{number}", width)
    yield from _conv(f"{name}.proj_out", width, width, 1)


def unet_shapes() -> Shapes:
    """The UNet of 860 million parameters: 686 tensors."""
    widths = (320, 640, 1280, 1280)
    yield from _linear(f"{UNET}time_embed.0", 320, _TIME_WIDTH)
    yield from _linear(f"{UNET}time_embed.2", _TIME_WIDTH, _TIME_WIDTH)
    yield from _conv(f"{UNET}input_blocks.0.0", 4, 320)
    skips, width, place = [320], 320, 1
    for level, outputs in enumerate(widths):
        for _ in range(2):
            yield from _unet_residual(f"{UNET}input_blocks.{place}.0", width, outputs)
            if level < 3:
                yield from _unet_attention(f"{UNET}input_blocks.{place}.1", outputs)
            width, place = outputs, place + 1
            skips.append(width)
        if level < 3:
            yield from _conv(f"{UNET}input_blocks.{place}.0.op", width, width)
            place += 1
            skips.append(width)
    yield from _unet_residual(f"{UNET}middle_block.0", width, width)
    yield from _unet_attention(f"{UNET}middle_block.1", width)
    yield from _unet_residual(f"{UNET}middle_block.2", width, width)
    for place in range(12):
        level = 3 - place // 3
        name, outputs = f"{UNET}output_blocks.{place}", widths[level]
        yield from _unet_residual(f"{name}.0", width + skips.pop(), outputs)
        if level < 3:
            yield from _unet_attention(f"{name}.1", outputs)
        if place % 3 == 2 and level > 0:
            yield from _conv(f"{name}.{2 if level < 3 else 1}.conv", outputs, outputs)
        width = outputs
    yield from _norm(f"{UNET}out.0", 320)
    yield from _conv(f"{UNET}out.2", 320, 4)


def _vae_residual(name: str, inputs: int, outputs: int) -> Shapes:
    yield from _norm(f"{name}.norm1", inputs)
    yield from _conv(f"{name}.conv1", inputs, outputs)
    yield from _norm(f"{name}.norm2", outputs)
    yield from _conv(f"{name}.conv2", outputs, outputs)
    if inputs != outputs:
        yield from _conv(f"{name}.nin_shortcut", inputs, outputs, 1)


def _vae_middle(name: str, width: int) -> Shapes:
    yield from _vae_residual(f"{name}.block_1", width, width)
    yield from _norm(f"{name}.attn_1.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        yield from _conv(f"{name}.attn_1.{part}", width, width, 1)
    yield from _vae_residual(f"{name}.block_2", width, width)


def vae_shapes(prefix: str = "first_stage_model.") -> Shapes:
    """The autoencoder kl-f8: 248 tensors."""
    encoder, decoder = f"{prefix}encoder", f"{prefix}decoder"
    yield from _conv(f"{encoder}.conv_in", 3, 128)
    width = 128
    for level, outputs in enumerate((128, 256, 512, 512)):
        for block in range(2):
            yield from _vae_residual(f"{encoder}.down.{level}.block.{block}", width, outputs)
            width = outputs
        if level < 3:
            yield from _conv(f"{encoder}.down.{level}.downsample.conv", width, width)
    yield from _vae_middle(f"{encoder}.mid", width)
    yield from _norm(f"{encoder}.norm_out", width)
    yield from _conv(f"{encoder}.conv_out", width, 8)
    yield from _conv(f"{decoder}.conv_in", 4, width)
    yield from _vae_middle(f"{decoder}.mid", width)
    for level, outputs in reversed(list(enumerate((128, 256, 512, 512)))):
        for block in range(3):
            yield from _vae_residual(f"{decoder}.up.{level}.block.{block}", width, outputs)
            width = outputs
        if level > 0:
            yield from _conv(f"{decoder}.up.{level}.upsample.conv", width, width)
    yield from _norm(f"{decoder}.norm_out", width)
    yield from _conv(f"{decoder}.conv_out", width, 3)
    yield from _conv(f"{prefix}quant_conv", 8, 8, 1)
    yield from _conv(f"{prefix}post_quant_conv", 4, 4, 1)


def text_encoder_shapes() -> Shapes:
    """CLIP ViT-L/14's text encoder: 196 tensors, without `position_ids`."""
    name, width = "cond_stage_model.transformer.text_model", _TEXT_WIDTH
    yield f"{name}.embeddings.token_embedding.weight", (49408, width)
    yield f"{name}.embeddings.position_embedding.weight", (77, width)
    for layer in range(12):
        block = f"{name}.encoder.layers.{layer}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{block}.self_attn.{part}", width, width)
        yield from _norm(f"{block}.layer_norm1", width)
        yield from _norm(f"{block}.layer_norm2", width)
        yield from _linear(f"{block}.mlp.fc1", width, 4 * width)
        yield from _linear(f"{block}.mlp.fc2", 4 * width, width)
    yield from _norm(f"{name}.final_layer_norm", width)


def checkpoint_shapes() -> dict[str, tuple[int, ...]]:
    """Every tensor of a pruned Stable Diffusion 1.5 checkpoint with its shape."""
    return dict([*unet_shapes(), *vae_shapes(), *text_encoder_shapes()])


def header(shapes: Mapping[str, tuple[int, ...]], dtype: Dtype = "fp16") -> bytes:
    """The safetensors header for these tensors, its length in front."""
    name, kind = _TYPES[dtype]
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for tensor, shape in shapes.items():
        end = place + math.prod(shape) * np.dtype(kind).itemsize
        entries[tensor] = {"dtype": name, "shape": shape, "data_offsets": [place, end]}
        place = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _weights(
    name: str, shape: tuple[int, ...], random: np.random.Generator, kind: type
) -> "np.ndarray":
    """Norms pass on what they get, biases are nothing, the rest is random and small.

    Large tensors repeat their numbers, in no row at the same place: that takes a tenth of the time.
    """
    if name.endswith("bias"):
        return np.zeros(shape, kind)
    if len(shape) == 1:
        return np.ones(shape, kind)
    spread = 0.02 if "embedding" in name else _GAIN / math.sqrt(math.prod(shape[1:]))
    numbers = random.standard_normal(min(math.prod(shape), _DIFFERENT), dtype=np.float32)
    return np.resize((numbers * spread).astype(kind), shape)


def write_checkpoint(
    path: Path,
    dtype: Dtype = "fp16",
    seed: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> None:
    """Write the file; the same seed gives the same bytes. `shapes`: another family's."""
    shapes = shapes or checkpoint_shapes()
    random = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(header(shapes, dtype))
        for name, shape in shapes.items():
            file.write(_weights(name, shape, random, _TYPES[dtype][1]).tobytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("path", type=Path)
    parser.add_argument("--dtype", choices=list(_TYPES), default="fp16")
    arguments = parser.parse_args()
    write_checkpoint(arguments.path, arguments.dtype)
    print(f"{arguments.path}: {arguments.path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
