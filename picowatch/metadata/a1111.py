"""A1111's `parameters` text, which every reader of A1111 pictures understands.

The inverse is recipe/a1111.py, because a TXT recipe may hold this text, too.
"""

import json

from picowatch.recipe.installed import BAKED
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SCHEDULE_TYPES

# A1111 writes the first 10 hex digits of the file's sha256.
_HASH_DIGITS = 10


def parameters_text(request: ImageRequest, version: str) -> str:
    """The prompt, a `Negative prompt:` line if there is one, and the line of values.

    An empty prompt keeps its empty line: sd-prompt-reader looks for a line above `Steps:`.
    `version` is picowatch's.
    """
    lines = [request.prompt]
    if request.negative_prompt:
        lines.append(f"Negative prompt: {request.negative_prompt}")
    values = ", ".join(f"{key}: {_quoted(value)}" for key, value in _values(request, version))
    return "\n".join([*lines, values])


def _values(request: ImageRequest, version: str) -> list[tuple[str, str]]:
    """The last line's keys in A1111's order; what is as usual is left out."""
    values = [
        ("Steps", str(request.steps)),
        ("Sampler", request.sampler),
        ("Schedule type", SCHEDULE_TYPES[request.schedule_type]),
        ("CFG scale", _number(request.cfg_scale)),
        ("Seed", str(request.seed)),
        ("Size", f"{request.width}x{request.height}"),
        ("Model hash", request.checkpoint_hash[:_HASH_DIGITS]),
        ("Model", request.checkpoint),
    ]
    if request.vae != BAKED:
        values += [("VAE hash", request.vae_hash[:_HASH_DIGITS]), ("VAE", request.vae)]
    if request.clip_skip > 1:
        values.append(("Clip skip", str(request.clip_skip)))
    return [*values, ("Version", f"picowatch {version}")]


def _number(value: float) -> str:
    """7.0 as "7", 7.5 as "7.5": the shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")


def _quoted(value: str) -> str:
    """A value as A1111 quotes it: as a JSON string if it holds a comma, colon or line break.

    What opens like JSON is quoted, too, or it would be read as such.
    """
    if any(character in value for character in ",:\n") or value.startswith(('"', "[", "{")):
        return json.dumps(value, ensure_ascii=False)
    return value
