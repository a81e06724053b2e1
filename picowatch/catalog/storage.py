"""The forms in which weights are stored: in full, as fp8 or GGUF. Any other is refused.

The names of tensors are ComfyUI's (QUANTIZATION.md).
"""

from collections import Counter
from math import prod

from picowatch.catalog.gguf import BLOCKS, MIXTURES
from picowatch.catalog.headers import Header, small_json
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

_WORDS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
FP8 = ("F8_E4M3", "F8_E5M2")
_FP8_FORMATS = {"float8_e4m3fn", "float8_e5m2"}  # as files describe themselves
# After a layer's name: what its fp8 weights are multiplied by.
SCALES = (".scale_weight", ".weight_scale")
# What else a layer of fp8 weights may have.
_BESIDE_FP8 = {*SCALES, ".weight", ".bias", ".scale_input", ".input_scale", ".comfy_quant"}
_MATRICES = {*_WORDS, *FP8, *BLOCKS, "F64", ""}


def stored(header: Header) -> str:
    """The type of most weights, in words; ModelRefused for what the engine cannot read."""
    sizes: Counter[str] = Counter()
    for name, kind in header.types.items():
        sizes[kind] += prod(header.shapes[name])
        if len(header.shapes[name]) > 1 and name.endswith("weight") and kind not in _MATRICES:
            raise _refusal(f"{name} has the type {kind}")
    if others := _declared(header) - _FP8_FORMATS:
        raise _refusal(f"it names {min(others)}")
    scales = [name for name in header.shapes if name.endswith(SCALES)]
    _check_scales(header, scales)
    most = sizes.most_common(1)[0][0] if sizes else ""
    if most in FP8:
        return "scaled fp8" if scales else "fp8"
    mixture = MIXTURES.get(header.metadata.get("general.file_type", ""), "")
    return mixture if mixture.startswith(f"{most}_") else _WORDS.get(most, most)


def _check_scales(header: Header, scales: list[str]) -> None:
    """Each is a number for a layer of fp8 weights, or for each of its rows; nothing else is."""
    layers = {name.rpartition(".")[0] for name in scales}
    for name in scales:
        rows = (*header.shapes.get(f"{name.rpartition('.')[0]}.weight", ()), 1)[0]
        fits = header.shapes[name] in ((), (1,), (1, 1), (rows,), (rows, 1))
        if not fits or header.types.get(name, "F32") not in _WORDS:
            raise _refusal(f"{name} has the shape {list(header.shapes[name])}")
    for name in header.shapes:
        layer, _, ending = name.rpartition(".")
        if layer in layers and f".{ending}" not in _BESIDE_FP8:
            raise _refusal(f"it has {name}")


def _declared(header: Header) -> set[str]:
    """The formats that the file's own description of its layers names."""
    try:
        layers = small_json(header.metadata.get("_quantization_metadata", "{}"))["layers"]
        return {str(layer["format"]) for layer in layers.values()}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return set()


def _refusal(what: str) -> ModelRefused:
    return ModelRefused(
        f"is quantised in a form that picowatch does not know: {shown(what, 120)}. "
        "Get it in bfloat16, in fp8, or as a GGUF file."
    )
