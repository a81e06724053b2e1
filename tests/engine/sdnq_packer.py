"""Packs weights as SDNQ does, and says what they are after it."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from picowatch.engine.model.dequantise import rotation
from tests.engine.ldm import weights
from tests.engine.original_names import Tensors

_IN_BLOCK = re.compile(r"(blocks|layers|refiner)\..*\.weight$").search  # what SDNQ packs


def packed_layer(
    weight: torch.Tensor, kind: str, group: int = 0, rotated: int = 0, rank: int = 0
) -> tuple[Tensors, torch.Tensor]:
    """Return a layer's tensors by the ends of their names, and the weights that they stand for."""
    bits, is_signed = int(kind[-1]), kind.startswith("int")  # 4 or 8
    matrix = rotation(rotated, torch.device("cpu")) if rotated else None
    wide, made = _turned(weight.float(), matrix), {}
    low_rank = torch.zeros(wide.shape)
    if rank:
        made = {"svd_up": wide[:, :rank].bfloat16(), "svd_down": torch.randn(rank, wide.shape[1])}
        made["svd_down"] = (made["svd_down"] * 0.01).bfloat16()
        low_rank = made["svd_up"].float() @ made["svd_down"].float()
    grouped = (wide - low_rank).reshape(len(wide), -1, group or wide.shape[1])
    if is_signed:
        made["scale"] = grouped.abs().amax(-1, keepdim=True) / ((1 << bits - 1) - 1) + 1e-8
        numbers = (grouped / made["scale"]).round()
        values = numbers * made["scale"]
    else:
        lowest, highest = grouped.aminmax(dim=-1, keepdim=True)
        made["scale"] = (highest - lowest) / ((1 << bits) - 1) + 1e-8
        made["zero_point"] = lowest
        numbers = ((grouped - lowest) / made["scale"]).round()
        values = numbers * made["scale"] + lowest
    if bits == 8:
        numbers = numbers.to(torch.int8 if is_signed else torch.uint8)
        made["weight"] = numbers if group else numbers.flatten(1)
    else:
        pairs = (numbers + 8 * is_signed).to(torch.uint8).reshape(-1, 2)
        made["weight"] = pairs[:, 0] | pairs[:, 1] << 4
    if not group:
        made = {
            name: tensor.flatten(1) if tensor.ndim == 3 else tensor for name, tensor in made.items()
        }
    return made, _turned(values.reshape(wide.shape) + low_rank, matrix)


def _turned(wide: torch.Tensor, matrix: torch.Tensor | None) -> torch.Tensor:
    if matrix is None:
        return wide
    return (wide.reshape(len(wide), -1, len(matrix)) @ matrix).reshape(wide.shape)


def pack_folder(
    folder: Path, packed: Path, wide: Path, parts: Mapping[str, Mapping[str, Any]]
) -> None:
    """Copy a tiny folder with some parts packed, and with their weights multiplied out.

    `parts` say how: SDNQ's settings. Of two kinds, layers have one after the other.
    """
    for copy in (packed, wide):
        shutil.copytree(folder, copy)
    for part, settings in parts.items():
        held = weights(folder / part)
        kinds = settings["weights_dtype"], *settings.get("modules_dtype_dict", {})
        made: Tensors = {}
        known: Tensors = {}
        linear = [name for name, weight in held.items() if weight.ndim == 2 and _IN_BLOCK(name)]
        assert linear
        for name, tensor in held.items():
            if name not in linear:
                made[name] = known[name] = tensor
                continue
            kind = kinds[linear.index(name) % len(kinds)]
            layer = name.removesuffix("weight")
            rotated = settings.get("hadamard_group_size", 0)
            rank = settings.get("svd_rank", 0) if settings.get("use_svd") else 0
            group = settings.get("group_size", 0)
            tensors, known[name] = packed_layer(tensor, kind, group, rotated, rank)
            made |= {layer + end: piece.contiguous() for end, piece in tensors.items()}
        (config,) = (packed / part).glob("config.json")
        told = {"quant_method": "sdnq", "sdnq_version": "0.2.8", **settings}
        config.write_text(
            json.dumps(json.loads(config.read_text()) | {"quantization_config": told})
        )
        _write(packed / part, made)
        _write(wide / part, known)


def _write(part: Path, tensors: Tensors) -> None:
    """Write weights into two files, with a layer's tensors in both."""
    (first,) = part.glob("*.safetensors")
    stem, names = first.stem, [*tensors]
    first.unlink()
    for number in range(2):
        some = {name: tensors[name].contiguous() for name in names[number::2]}
        save_file(some, part / f"{stem}-0000{number + 1}-of-00002.safetensors")
