"""Tells how a file's weights are stored, and whether the engine can read them.

ComfyUI describes each quantised layer, in the header's metadata or in a small tensor of JSON beside
the layer (comfy/quant_ops.py, comfy/utils.py). Files of other programs have scales alone. What
diffusers folders have packed is in the form of SDNQ 0.1.0 to 0.2.8 (https://github.com/Disty0/sdnq).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from math import log, prod
from typing import Any, NamedTuple

from picowatch.catalog.headers import BLOCKS, MIXTURES, Header
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

_WORDS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
FP8 = ("F8_E4M3", "F8_E5M2")
# The endings, after a layer's name, of the factors of its weights, of nvfp4's second factor, and of
# those by which nvfp4 multiplies a layer's inputs before it rounds them.
SCALES, SECOND_SCALE = (".scale_weight", ".weight_scale"), ".weight_scale_2"
SMOOTHING = ".pre_quant_scale"
# What else a quantised layer may have: factors of rounded inputs, and descriptions.
BESIDE = (*SCALES, SECOND_SCALE, ".scale_input", ".input_scale", ".comfy_quant")
_MATRICES = {*_WORDS, *FP8, *BLOCKS, "F64", ""}
# ComfyUI's formats that the engine reads, the types of their weights, and their names for people.
_FORMATS = {
    "float8_e4m3fn": ("F8_E4M3", "scaled fp8"),
    "float8_e5m2": ("F8_E5M2", "scaled fp8"),
    "int8_tensorwise": ("I8", "int8"),
    "nvfp4": ("U8", "nvfp4"),
}
_GROUP = 256  # the columns that ConvRot and SDNQ rotate together, if they tell no number


def stored(header: Header) -> str:
    """Return the type of most weights, in words. ModelRefused if the engine cannot read a type."""
    sizes: Counter[str] = Counter()
    beside: dict[str, set[str]] = {}
    for name, kind in header.types.items():
        sizes[kind] += prod(header.shapes[name])
        layer, dot, ending = name.rpartition(".")
        beside.setdefault(layer, set()).add(dot + ending)
    for name, kind in header.types.items():
        if len(header.shapes[name]) > 1 and name.endswith("weight"):
            layer = name.removesuffix(".weight")
            _check_layer(header, layer, kind, beside.get(layer, set()))
    most = sizes.most_common(1)[0][0] if sizes else ""
    if most in FP8:
        return "scaled fp8" if any(name.endswith(SCALES) for name in header.shapes) else "fp8"
    quantised = {kind: word for kind, word in _FORMATS.values() if kind not in FP8}
    mixture = MIXTURES.get(header.metadata.get("general.file_type", ""), "")
    if mixture.startswith(f"{most}_"):
        return mixture
    return (_WORDS | quantised).get(most, most)


def _check_layer(header: Header, layer: str, kind: str, beside: set[str]) -> None:
    """Raise ModelRefused unless the engine reads this layer's form and has its scales."""
    told, weight = header.formats.get(layer), f"{layer}.weight"
    if told is not None:
        name, group = str(told.get("format")), rotated_together(told)
        turns = group is None or (group and kind == "I8" and header.inputs(weight) % group == 0)
        if name not in _FORMATS or _FORMATS[name][0] != kind or not turns:
            raise _refusal(f"{name} ({layer})")
    scales = [layer + ending for ending in SCALES if ending in beside]
    if kind == "U8" and scales and SECOND_SCALE in beside:
        fits = header.types[scales[0]] in ("F8_E4M3", "U8")  # ComfyUI writes fp8 as bytes, too
    else:
        rows = (*header.shapes[weight], 1)[0] if scales else 1
        shapes = ((), (1,), (1, 1), (rows,), (rows, 1))
        fits = all(
            header.shapes[name] in shapes and header.types.get(name, "F32") in _WORDS
            for name in scales
        )
        fits = fits and (kind in _MATRICES or (kind == "I8" and bool(told and scales)))
    if not fits:
        raise _refusal(f"{weight} has the type {kind}")
    known = {*BESIDE, ".weight", ".bias", *[SMOOTHING] * (kind == "U8")}
    if scales and (unknown := beside - known):
        raise _refusal(f"it has {layer}{min(unknown)}")


def rotated_together(told: Mapping[str, Any]) -> int | None:
    """Return how many columns ConvRot rotated together, None without it, 0 if unknown."""
    # ComfyUI reads what is told beside the format or among `params`, and rounds numbers down.
    params = told.get("params")
    values = (params if isinstance(params, dict) else {}) | {**told}
    if not values.get("convrot"):
        return None
    try:
        group = int(values.get("convrot_groupsize", _GROUP))
    except (OverflowError, TypeError, ValueError):
        return 0
    return group if group > 1 and log(group, 4).is_integer() else 0


def _refusal(what: str) -> ModelRefused:
    return ModelRefused(
        f"is quantised in a form that picowatch does not know: {shown(what, 120)}. "
        "Get it in bfloat16, in fp8, or as a GGUF file."
    )


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
_MOST_ROTATED = 1024


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
        raise _refusal_of_folder(f"quant_method: {told.get('quant_method')}")
    by_layer = told.get("modules_dtype_dict") or {}
    others = by_layer if isinstance(by_layer, dict) else [by_layer]
    for kind in map(str, [told.get("weights_dtype"), *others]):
        if not _TYPES.fullmatch(kind):
            raise _refusal_of_folder(f"weights_dtype: {kind}")
    for key, value in told.items():
        if value and key.startswith(_CHANGING) and key not in _HARMLESS:
            raise _refusal_of_folder(key)
    version = str(told.get("sdnq_version"))
    if told.get("use_hadamard") and (version == "None" or version.startswith("0.1.")):
        raise _refusal_of_folder(f"use_hadamard of SDNQ {version}")  # it rotated by other matrices
    group = told.get("hadamard_group_size", _GROUP)
    if type(group) is not int or not 1 < group <= _MOST_ROTATED or group & (group - 1):
        raise _refusal_of_folder(f"hadamard_group_size: {group}")


def rotated_columns(told: Mapping[str, Any]) -> int:
    """Return how many columns SDNQ rotated together at most; 1 without rotation."""
    return told.get("hadamard_group_size", _GROUP) if told.get("use_hadamard") else 1


def packed_weights(headers: Iterable[Header]) -> dict[str, Packed]:
    """Return the packed matrices of a part by name. ModelRefused names an unknown form."""
    whole = Header({}, {}, {})
    for header in headers:  # a layer's tensors may be in several files
        whole = Header(whole.shapes | header.shapes, {}, {**whole.types, **header.types})
    found = {}
    for name in whole.shapes:
        layer, _, part = name.rpartition(".")
        weight = f"{layer}.weight"
        if part == "scale" and whole.types.get(weight, "F32") not in _WORDS:
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
        and all(kind in _WORDS for kind in types.values())
        and all(shapes.get(part, shape) == shape for part, shape in expected.items())
        and ("svd_up" in shapes) == ("svd_down" in shapes)
    )
    if not fits:
        raise _refusal_of_folder(f"{parts['weight']} has the shape {list(weight)}")
    return Packed(rows, columns, bits, parts)


def _refusal_of_folder(what: str) -> ModelRefused:
    return ModelRefused(
        "is quantised (quantization_config) in a form that picowatch does not know: "
        f"{shown(what, 120)}. Get it in bfloat16."
    )
