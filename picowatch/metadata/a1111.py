"""A1111's `parameters` text, which every reader of A1111 pictures understands.

The inverse is recipe/read/a1111.py, because a TXT recipe may hold this text, too.
"""

import json
from collections.abc import Mapping, Sequence

from picowatch.metadata.numbers import plain_number
from picowatch.recipe.request import ImageRequest, loras_beside_prompt
from picowatch.recipe.resolve.installed import BAKED
from picowatch.recipe.samplers import SCHEDULE_TYPES

# A1111 writes the first 10 hex digits of a file's sha256, and 12 of LoRAs' and embeddings'.
_HASH_DIGITS = 10
_SHORT_HASH_DIGITS = 12


def parameters_text(
    request: ImageRequest, version: str, lora_hashes: Mapping[str, str] | None = None
) -> str:
    """The prompt, a `Negative prompt:` line if there is one, and the line of values.

    An empty prompt keeps its empty line: sd-prompt-reader looks for a line above `Steps:`.
    LoRAs that the prompt does not name itself stand behind it, as A1111 needs them. `version`
    is picowatch's. `lora_hashes` are A1111's own, by name: of the bytes behind the safetensors
    header; without them no LoRA's hash is written.
    """
    lines = [" ".join(filter(None, [request.prompt, *_tags(request)]))]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    pairs = _values(request, lora_hashes or {}, version)
    values = ", ".join(f"{key}: {_quoted(value)}" for key, value in pairs)
    return "\n".join([*lines, values])


def _tags(request: ImageRequest) -> list[str]:
    loras = loras_beside_prompt(request)
    return [f"<lora:{_a1111_name(lora.name)}:{plain_number(lora.weight)}>" for lora in loras]


def _a1111_name(name: str) -> str:
    """A1111 knows LoRAs and embeddings by their files' names, whatever folder they lie in."""
    return name.rpartition("/")[2]


def _values(
    request: ImageRequest, lora_hashes: Mapping[str, str], version: str
) -> list[tuple[str, str]]:
    """The last line's keys in A1111's order; what is as usual is left out."""
    values = [
        ("Steps", str(request.steps)),
        ("Sampler", request.sampler),
        ("Schedule type", SCHEDULE_TYPES[request.schedule_type]),
        ("CFG scale", plain_number(request.cfg_scale)),
        ("Seed", str(request.seed)),
        ("Size", f"{request.width}x{request.height}"),
        ("Model hash", request.checkpoint_hash[:_HASH_DIGITS]),
        ("Model", request.checkpoint),
    ]
    if request.vae != BAKED:
        values += [("VAE hash", request.vae_hash[:_HASH_DIGITS]), ("VAE", request.vae)]
    # A1111 has one for both; with a start image that one's is told.
    strength = request.start_image or request.hires
    if strength:
        values.append(("Denoising strength", plain_number(strength.denoising_strength)))
    if request.clip_skip > 1:
        values.append(("Clip skip", str(request.clip_skip)))
    if request.mask:
        values.append(("Mask blur", str(request.mask.blur)))
    values += _hires(request)
    loras = [(use.name, lora_hashes.get(use.name, "")) for use in request.loras]
    values += _hashes("Lora hashes", loras)
    values += _hashes("TI hashes", [(use.name, use.hash) for use in request.embeddings])
    return [*values, ("Version", f"picowatch {version}")]


def _hires(request: ImageRequest) -> list[tuple[str, str]]:
    hires = request.hires
    if not hires:
        return []
    steps = [("Hires steps", str(hires.steps))] if hires.steps else []
    return [
        ("Hires upscale", plain_number(hires.scale)),
        *steps,
        ("Hires upscaler", hires.upscaler),
    ]


def _hashes(key: str, named: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    known = [f"{_a1111_name(name)}: {hash_[:_SHORT_HASH_DIGITS]}" for name, hash_ in named if hash_]
    return [(key, ", ".join(known))] if known else []


def _quoted(value: str) -> str:
    """A value as A1111 quotes it: as a JSON string if it holds a comma, colon or line break.

    What opens like JSON is quoted, too, or it would be read as such.
    """
    if any(character in value for character in ",:\n") or value.startswith(('"', "[", "{")):
        return json.dumps(value, ensure_ascii=False)
    return value
