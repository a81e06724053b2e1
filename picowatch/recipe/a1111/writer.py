"""A1111's `parameters` text, which readers of its pictures understand; reader.py reads it again."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from picowatch.recipe import a1111
from picowatch.recipe.converters import NVIDIA, VAE_ENDING, file_name, plain_text
from picowatch.recipe.fields import MAPPINGS, PARTS, ROWS
from picowatch.recipe.parts import Cutout, Row
from picowatch.recipe.passes import steps_taken
from picowatch.recipe.request import DIGEST_OMITS, DetailUse, ImageRequest, loras_beside_prompt
from picowatch.recipe.written import plain_number

# A1111 writes the first 10 hex digits of a file's sha256, and 12 for LoRAs and embeddings.
_HASH_DIGITS = 10
_SHORT_HASH_DIGITS = 12
# Values are as `_quoted` writes them.
_POSTPROCESSING = re.compile(
    rf'(?:^|, *)(?:{"|".join(a1111.FINISHED)}): (?:"(?:[^"\\]|\\.)*"|[^,]*)'
)


def parameters_text(
    request: ImageRequest, version: str, lora_hashes: Mapping[str, str] | None = None
) -> str:
    """Return the prompt, a `Negative prompt:` line if it says anything, and the line of values.

    An empty prompt keeps its empty line: sd-prompt-reader looks for a line above `Steps:`.
    LoRAs that the prompt does not name are added after it, as A1111 needs them. `version`
    is picowatch's. `lora_hashes` are A1111's kind, by name: of the bytes after the safetensors
    header; without them no LoRA's hash is written.
    """
    if not request.draws:
        return _line(_of_mappings(request), a1111.FINISHED)  # as A1111's tab "Extras" does
    lines = [_with_tags(request)]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    values = _values(request, lora_hashes or {}, version)
    between = (key for key in values if key not in (*a1111.FIRST, *a1111.LAST))
    lines.append(_line(values, (*a1111.FIRST, *between, *a1111.LAST)))
    return "\n".join(lines)


def without_postprocessing(parameters: str) -> str:
    """Return the text without its finishing values, so that new values can be added."""
    before, line_break, values = parameters.rpartition("\n")
    return before + line_break + _POSTPROCESSING.sub("", values)


def _line(values: Mapping[str, str], order: Sequence[str]) -> str:
    return ", ".join(f"{key}: {_quoted(values[key])}" for key in order if values.get(key))


def _with_tags(of: ImageRequest | DetailUse) -> str:
    """Return a prompt, and after it the LoRAs that it does not name."""
    loras = loras_beside_prompt(of)
    tags = (f"<lora:{file_name(lora.name)}:{plain_number(lora.weight)}>" for lora in loras)
    return " ".join(filter(None, [of.prompt, *tags]))


def _values(request: ImageRequest, lora_hashes: Mapping[str, str], version: str) -> dict[str, str]:
    """Return the values by their keys; empty values are not to be written."""
    values = _of_mappings(request)
    for number, detail in enumerate(request.detail, 1):
        suffix = {1: "", 2: " 2nd", 3: " 3rd"}.get(number, f" {number}th")
        found = _detail(detail, f"{request.width}x{request.height}")
        values |= {f"ADetailer {key}{suffix}": text for key, text in found.items()}
    idle = request.idle
    # A1111 has one denoising strength for both; with a start image, it is the start image's.
    values |= _parts({n: row for n, row in ROWS.items() if n not in idle}, request)
    if hires := request.hires:
        strength = request.denoising_strength if request.image else hires.denoising_strength
        # A1111 takes all these steps; a recipe takes the strength's share of its own.
        values["Hires steps"] = str(steps_taken(hires.steps or request.steps, strength))
    values |= {
        a1111.AREA: "" if request.mask_padding is None else a1111.ONLY_MASKED,
        "RNG": "NV" if request.noise == NVIDIA else "CPU",  # without it, A1111 takes its GPU's
        "Size": f"{request.width}x{request.height}",
        "Model hash": request.checkpoint_hash[:_HASH_DIGITS],
        "VAE hash": request.vae_hash[:_HASH_DIGITS],
        "Module 1": values.get("VAE", "").removesuffix(VAE_ENDING),
        "Lora hashes": _hashes([(use.name, lora_hashes.get(use.name)) for use in request.loras]),
        "TI hashes": _hashes([(use.name, use.hash) for use in request.embeddings]),
        "Version": f"picowatch {version}",
    }
    return values


def _detail(detail: DetailUse, size: str) -> dict[str, str]:
    """Return ADetailer's values; in it, the picture's `size` is that of the details, too."""
    known = a1111.FINDERS.get(detail.find)
    values = {"model": known or a1111.ANY_WORDS, "model classes": "" if known else detail.find}
    for name, key in a1111.DETAIL_KEYS.items():
        value, default = getattr(detail, name), detail.__dataclass_fields__[name].default
        values[key] = "" if name in ("count", "steps") and value == default else plain_text(value)
    values["prompt"] = _with_tags(detail) if detail.prompt else ""
    values["inpaint only masked"] = "True"
    values["use separate steps"] = "True" if detail.steps else ""
    if detail.size != size:
        width, height = map(str, detail.sides)
        sides = {"inpaint width": width, "inpaint height": height}
        values |= {"use inpaint width height": "True", **sides}
    return values


def _of_mappings(request: ImageRequest) -> dict[str, str]:
    values: dict[str, str] = {}
    for field in MAPPINGS:
        if mapping := getattr(request, field):
            values |= _parts(PARTS[field], mapping)
    return values


def _parts(rows: Mapping[str, Row], holder: Any) -> dict[str, str]:
    if isinstance(holder, Cutout) and holder.find:  # rembg finds nothing by words
        return {}
    found = {}
    for name, row in rows.items():
        if row.a1111:
            value, default = getattr(holder, name), holder.__dataclass_fields__[name].default
            is_off = value == default and (not default or name in DIGEST_OMITS)
            found[row.a1111] = "" if is_off else row.writes(value)
    return found


def _hashes(named: Sequence[tuple[str, str | None]]) -> str:
    known = (f"{file_name(name)}: {hash_[:_SHORT_HASH_DIGITS]}" for name, hash_ in named if hash_)
    return ", ".join(known)


def _quoted(value: str) -> str:
    """Quote a value as A1111 does, and one that begins like JSON, or it would be read as JSON."""
    if any(character in value for character in ",:\n") or value.startswith(('"', "[", "{")):
        return json.dumps(value, ensure_ascii=False)
    return value
