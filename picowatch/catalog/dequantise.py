"""Tells how a file's weights are stored, and whether the engine can read them.

ComfyUI describes each quantised layer, in the header's metadata or in a small tensor of JSON beside
the layer (comfy/quant_ops.py, comfy/utils.py). Files of other programs have scales alone.
"""

from collections import Counter
from collections.abc import Mapping
from math import log, prod
from typing import Any

from picowatch.catalog.gguf import BLOCKS, MIXTURES
from picowatch.catalog.headers import Header
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
_GROUP = 256  # the columns that ConvRot rotates together, if a description has no number


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
    told = header.formats.get(layer)
    if told is not None:
        name = str(told.get("format"))
        if name not in _FORMATS or _FORMATS[name][0] != kind or not _turns(header, layer, told):
            raise _refusal(f"{name} ({layer})")
    scales = [layer + ending for ending in SCALES if ending in beside]
    if kind == "U8" and scales and SECOND_SCALE in beside:
        fits = header.types[scales[0]] in ("F8_E4M3", "U8")  # ComfyUI writes fp8 as bytes, too
    else:
        rows = (*header.shapes[f"{layer}.weight"], 1)[0] if scales else 1
        shapes = ((), (1,), (1, 1), (rows,), (rows, 1))
        fits = all(
            header.shapes[name] in shapes and header.types.get(name, "F32") in _WORDS
            for name in scales
        )
        fits = fits and (kind in _MATRICES or (kind == "I8" and bool(told and scales)))
    if not fits:
        raise _refusal(f"{layer}.weight has the type {kind}")
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


def _turns(header: Header, layer: str, told: Mapping[str, Any]) -> bool:
    """Return whether a layer's columns can be rotated back, or were not rotated."""
    group, weight = rotated_together(told), f"{layer}.weight"
    known = group and header.types[weight] == "I8" and header.inputs(weight) % group == 0
    return group is None or bool(known)


def _refusal(what: str) -> ModelRefused:
    return ModelRefused(
        f"is quantised in a form that picowatch does not know: {shown(what, 120)}. "
        "Get it in bfloat16, in fp8, or as a GGUF file."
    )
