"""Tells which weights of a diffusers folder SDNQ has packed, and whether the engine reads them.

The form is that of the files that SDNQ 0.1.0 to 0.2.8 writes (https://github.com/Disty0/sdnq).
"""

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import Any, NamedTuple

from picowatch.catalog.headers import Header
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

# The types of numbers that the engine reads, and the least for some layers.
_TYPES = re.compile("u?int[4-8]|minimum_[4-8]bit")
_BITS = {5: 5, 3: 6, 7: 7}  # of a number, by the last side of the rows of bytes that hold it
_PARTS = ("weight", "scale", "zero_point", "svd_up", "svd_down")
# Settings that begin so change what is stored, except for these.
_CHANGING = ("use_", "quant_", "modules_quant_config")
_HARMLESS = {
    *("quant_method", "use_svd", "use_hadamard", "use_dynamic_quantization", "use_grad_ckpt"),
    *("use_static_quantization", "use_stochastic_rounding"),
}
_ROTATED, _MOST_ROTATED = 256, 1024
_FLOATS = ("BF16", "F16", "F32")


class Packed(NamedTuple):
    """A matrix: its sides, the bits of a number, and the names of its layer's tensors."""

    rows: int
    columns: int
    bits: int
    parts: dict[str, str]
    rotated: int = 1  # so many columns were rotated together at most


def check_quantisation(told: Any) -> None:
    """Raise ModelRefused unless a config's quantization_config is SDNQ's, in a known form."""
    told = told if isinstance(told, dict) else {"quant_method": told}
    if told.get("quant_method") != "sdnq":
        raise _refusal(f"quant_method: {told.get('quant_method')}")
    by_layer = told.get("modules_dtype_dict") or {}
    others = by_layer if isinstance(by_layer, dict) else [by_layer]
    for kind in map(str, [told.get("weights_dtype"), *others]):
        if not _TYPES.fullmatch(kind):
            raise _refusal(f"weights_dtype: {kind}")
    for key, value in told.items():
        if value and key.startswith(_CHANGING) and key not in _HARMLESS:
            raise _refusal(key)
    version = str(told.get("sdnq_version"))
    if told.get("use_hadamard") and (version == "None" or version.startswith("0.1.")):
        raise _refusal(f"use_hadamard of SDNQ {version}")  # it rotated by other matrices
    group = told.get("hadamard_group_size", _ROTATED)
    if type(group) is not int or not 1 < group <= _MOST_ROTATED or group & (group - 1):
        raise _refusal(f"hadamard_group_size: {group}")


def rotated_columns(told: Mapping[str, Any]) -> int:
    """Return how many columns SDNQ rotated together at most; 1 without rotation."""
    return told.get("hadamard_group_size", _ROTATED) if told.get("use_hadamard") else 1


def packed_weights(headers: Iterable[Header]) -> dict[str, Packed]:
    """Return the packed matrices of a part by name. ModelRefused names an unknown form."""
    whole = Header({}, {}, {})
    for header in headers:  # a layer's tensors may be in several files
        whole = Header(whole.shapes | header.shapes, {}, {**whole.types, **header.types})
    found = {}
    for name in whole.shapes:
        layer, _, part = name.rpartition(".")
        weight = f"{layer}.weight"
        if part == "scale" and whole.types.get(weight, "F32") not in _FLOATS:
            found[weight] = _packed(whole, layer)
    return found


def _packed(header: Header, layer: str) -> Packed:
    """Return a layer's matrix, whose form its shapes and types tell."""
    names = {part: f"{layer}.{part}" for part in _PARTS}
    parts = {part: name for part, name in names.items() if name in header.shapes}
    shapes = {part: header.shapes[name] for part, name in parts.items()}
    types = {part: header.types[name] for part, name in parts.items()}
    weight, scale, is_signed = shapes["weight"], shapes["scale"], "zero_point" not in shapes
    rows, groups = (*scale, 0)[0], prod(scale[1:])
    if len(weight) == 1:
        bits = 4
    else:
        bits = 8 if weight[:1] == scale[:1] else _BITS.get(prod(weight[-1:]), 0)
    columns = prod(weight) * 8 // max(1, bits * rows)
    rank = (*shapes.get("svd_down", ()), 0)[0]
    expected = {"zero_point": scale, "svd_up": (rows, rank), "svd_down": (rank, columns)}
    fits = (
        scale in ((rows, 1), (rows, groups, 1))
        and rows * columns * bits == prod(weight) * 8 > 0
        and columns % groups == 0
        and types.pop("weight") == ("I8" if bits == 8 and is_signed else "U8")
        and all(kind in _FLOATS for kind in types.values())
        and all(shapes.get(part, shape) == shape for part, shape in expected.items())
        and ("svd_up" in shapes) == ("svd_down" in shapes)
    )
    if not fits:
        raise _refusal(f"{parts['weight']} has the shape {list(weight)}")
    return Packed(rows, columns, bits, parts)


def _refusal(what: str) -> ModelRefused:
    return ModelRefused(
        "is quantised (quantization_config) in a form that picowatch does not know: "
        f"{shown(what, 120)}. Get it in bfloat16."
    )
