"""A1111's `parameters` text, which every reader of A1111 pictures understands.

The inverse is recipe/read/a1111.py, because a TXT recipe may hold this text, too.
"""

import json
import re
from collections.abc import Mapping, Sequence

from picowatch.recipe.fields import MAPPINGS, PARTS, ROWS
from picowatch.recipe.preprocessors import A1111_MODES, A1111_MODULES, THRESHOLDS
from picowatch.recipe.read.plain import plain_number
from picowatch.recipe.request import ControlUse, ImageRequest, loras_beside_prompt
from picowatch.recipe.row import Row

# A1111 writes the first 10 hex digits of a file's sha256, and 12 of LoRAs' and embeddings'.
_HASH_DIGITS = 10
_SHORT_HASH_DIGITS = 12
# A1111's order; other keys of the table come between these. "CFG rescale" is SD.Next's,
# "Distilled CFG Scale" and "Module 1", which is the VAE, are Forge's.
_FIRST = (
    *("Steps", "Sampler", "Schedule type", "CFG scale", "Distilled CFG Scale", "CFG rescale"),
    *("Seed", "Size", "Model hash", "Model", "VAE hash", "VAE", "Module 1"),
    *("Denoising strength", "Clip skip", "Mask blur"),
    *("Hires upscale", "Hires steps", "Hires upscaler"),
)
_UPSCALE = ("Postprocess upscale by", "Postprocess upscaler")
_LAST = ("Lora hashes", "TI hashes", *_UPSCALE, "Version")
_POSTPROCESSING = re.compile(
    rf', *(?:{"|".join(_UPSCALE)}): (?:"(?:[^"\\]|\\.)*"|[^,]*)'  # quoted by `_quoted`, or not
)
_RESIZE = {"crop": "Crop and Resize", "fit": "Resize and Fill", "stretch": "Just Resize"}
# What its sliders say that a preprocessor does not have.
_NO_THRESHOLD = 0.5


def parameters_text(
    request: ImageRequest,
    version: str,
    lora_hashes: Mapping[str, str] | None = None,
    controlnet_hashes: Mapping[str, str] | None = None,
) -> str:
    """The prompt, a `Negative prompt:` line if there is one, and the line of values.

    An empty prompt keeps its empty line: sd-prompt-reader looks for a line above `Steps:`.
    LoRAs that the prompt does not name are added after it, as A1111 needs them. `version`
    is picowatch's. `lora_hashes` are A1111's own, by name: of the bytes after the safetensors
    header; without them no LoRA's hash is written. Likewise `controlnet_hashes`.
    """
    if not request.draws:
        return postprocessing_text(request)
    lines = [" ".join(filter(None, [request.prompt, *_tags(request)]))]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    pairs = _values(request, lora_hashes or {}, controlnet_hashes or {}, version)
    values = ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs)
    return "\n".join([*lines, values])


def postprocessing_text(request: ImageRequest) -> str:
    """What A1111 writes of a picture that was only enlarged, in the tab "Extras"."""
    assert request.upscale
    values = _parts(PARTS["upscale"], request.upscale)
    return ", ".join(f"{key}: {_quoted(values[key])}" for key in _UPSCALE)


def without_postprocessing(parameters: str) -> str:
    """A text without what it says of enlarging: each key may be there once."""
    before, line_break, values = parameters.rpartition("\n")
    return before + line_break + _POSTPROCESSING.sub("", values)


def _tags(request: ImageRequest) -> list[str]:
    loras = loras_beside_prompt(request)
    return [f"<lora:{_a1111_name(lora.name)}:{plain_number(lora.weight)}>" for lora in loras]


def _a1111_name(name: str) -> str:
    """A1111 knows LoRAs and embeddings by their files' names, whatever folder they are in."""
    return name.rpartition("/")[2]


def _values(
    request: ImageRequest,
    lora_hashes: Mapping[str, str],
    controlnet_hashes: Mapping[str, str],
    version: str,
) -> list[tuple[str, str]]:
    """The last line's keys in A1111's order; what is as usual is left out."""
    loras = [(use.name, lora_hashes.get(use.name, "")) for use in request.loras]
    embeddings = [(use.name, use.hash) for use in request.embeddings]
    mappings = {field: getattr(request, field) for field in MAPPINGS}
    values: dict[str, str] = {}
    for field, mapping in mappings.items():
        values |= _parts(PARTS[field], mapping) if mapping else {}
    # A1111 has one denoising strength for both; with a start image, it is the start image's.
    values |= _parts({n: row for n, row in ROWS.items() if not request.is_idle(n)}, request)
    values |= {
        "Size": f"{request.width}x{request.height}",
        "Model hash": request.checkpoint_hash[:_HASH_DIGITS],
        "VAE hash": request.vae_hash[:_HASH_DIGITS],
        "Module 1": values.get("VAE", ""),
        **_controlnet_values(request, controlnet_hashes),
        "Lora hashes": _hashes(loras),
        "TI hashes": _hashes(embeddings),
        "Version": f"picowatch {version}",
    }
    between = (key for key in values if key not in (*_FIRST, *_LAST))
    return [(key, values[key]) for key in (*_FIRST, *between, *_LAST) if values.get(key)]


def _parts(rows: Mapping[str, Row], holder: object) -> dict[str, str]:
    return {
        row.a1111.key: row.a1111.write(getattr(holder, name))
        for name, row in rows.items()
        if row.a1111
    }


def _hashes(named: Sequence[tuple[str, str]]) -> str:
    known = [f"{_a1111_name(name)}: {hash_[:_SHORT_HASH_DIGITS]}" for name, hash_ in named if hash_]
    return ", ".join(known)


def _quoted(value: str) -> str:
    """A value as A1111 quotes it: as a JSON string if it holds a comma, colon or line break.

    What opens like JSON is quoted, too, or it would be read as such.
    """
    if any(character in value for character in ",:\n") or value.startswith(('"', "[", "{")):
        return json.dumps(value, ensure_ascii=False)
    return value


def _controlnet_values(request: ImageRequest, hashes: Mapping[str, str]) -> dict[str, str]:
    """A key for each ControlNet: `ControlNet 0: "Module: canny, …"`, without its picture.

    As A1111's extension writes them (https://github.com/Mikubill/sd-webui-controlnet,
    internal_controlnet/args.py, ControlNetUnit.serialize). The inverse is
    recipe/read/controlnet.py. `hashes` are A1111's own of the models, by name. Names with commas
    and colons are left out, as there: they would be read as other values.
    """
    units = {
        f"ControlNet {index}": _unit(use, request, hashes)
        for index, use in enumerate(request.control)
    }
    return {
        key: ", ".join(f"{name}: {value}" for name, value in unit.items())
        for key, unit in units.items()
        if not any(sign in value for value in unit.values() for sign in ",:")
    }


def _unit(use: ControlUse, request: ImageRequest, hashes: Mapping[str, str]) -> dict[str, str]:
    model = use.model.rpartition("/")[2]
    if short := hashes.get(use.model):
        model += f" [{short}]"
    options = [getattr(use, name) for name in THRESHOLDS.get(use.preprocess, ())]
    first, second, *_ = [*options, _NO_THRESHOLD, _NO_THRESHOLD]
    return {
        "Module": A1111_MODULES.get(use.preprocess, use.preprocess),
        "Model": model,
        "Weight": str(use.weight),
        "Resize Mode": _RESIZE[request.resize],
        "Processor Res": str(min(request.width, request.height)),
        "Threshold A": str(float(first)),
        "Threshold B": str(float(second)),
        "Guidance Start": str(use.start),
        "Guidance End": str(use.end),
        "Pixel Perfect": "True",
        "Control Mode": A1111_MODES[use.mode],
    }
