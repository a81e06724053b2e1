"""How a file's weights are stored: in full, as fp8 or GGUF, or in a format that is refused.

The names of tensors and formats are ComfyUI's (QUANTIZATION.md), bitsandbytes' and Nunchaku's.
"""

from math import prod

from picowatch.catalog.gguf import MIXTURES
from picowatch.catalog.headers import Header, small_json
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

_WORDS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
FP8 = ("F8_E4M3", "F8_E5M2")
# After a layer's name: what its fp8 weights are multiplied by.
SCALES = (".scale_weight", ".weight_scale")
_FP8_FORMATS = ("float8_e4m3fn", "float8_e5m2")
_NOT_SUPPORTED = "not supported. Get it in bfloat16, in fp8, or as a GGUF file."
# Endings of names, or parts of them, that tell a format.
_FORMATS = {
    ".quant_state.bitsandbytes__nf4": "NF4 (bitsandbytes)",
    ".quant_state.bitsandbytes__fp4": "FP4 (bitsandbytes)",
    ".qweight": "SVDQuant (Nunchaku)",
    ".wscales": "SVDQuant (Nunchaku)",
    ".weight_scale_2": "nvfp4",
    ".pre_quant_scale": "fp8 with smoothed inputs",
}


def stored(header: Header) -> str:
    """The type of most weights, in words; ModelRefused for formats that nothing here can read."""
    _check_format(header)
    sizes: dict[str, int] = {}
    for name, kind in header.types.items():
        sizes[kind] = sizes.get(kind, 0) + prod(header.shapes[name])
    most = max(sizes, key=lambda kind: sizes[kind], default="")
    if most in FP8:
        return "scaled fp8" if any(name.endswith(SCALES) for name in header.types) else "fp8"
    mixture = MIXTURES.get(header.metadata.get("general.file_type", ""), "")
    return mixture if mixture.startswith(f"{most}_") else _WORDS.get(most, most)


def _check_format(header: Header) -> None:
    for format_name in sorted(_declared(header)):
        if format_name not in _FP8_FORMATS:
            raise _refusal(shown(format_name))
    for name in header.shapes:
        for ending, format_name in _FORMATS.items():
            if name.endswith(ending):
                raise _refusal(format_name)
    for name, kind in header.types.items():
        if name.endswith(SCALES):
            _check_scale(header, name, kind)
        elif kind == "I8" and name.endswith(".weight"):
            raise _refusal("int8")


def _check_scale(header: Header, name: str, kind: str) -> None:
    """Scales are numbers for whole layers, or for each row of weights, and the weights fp8."""
    weight = name.rpartition(".")[0] + ".weight"
    rows = (*header.shapes.get(weight, ()), 1)[0]
    if kind in ("U8", "F8_E8M0"):
        raise _refusal("mxfp8")
    if header.types.get(weight) == "U8":
        raise _refusal("nvfp4")
    if header.shapes[name] not in ((), (1,), (1, 1), (rows,), (rows, 1)):
        raise _refusal("fp8 with a scale for each block of weights")


def _declared(header: Header) -> set[str]:
    """The formats that the file's own description of its layers names."""
    try:
        layers = small_json(header.metadata.get("_quantization_metadata", "{}"))["layers"]
        return {str(layer["format"]) for layer in layers.values()}
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return set()


def _refusal(format_name: str) -> ModelRefused:
    return ModelRefused(f"is quantised as {format_name}: {_NOT_SUPPORTED}")
