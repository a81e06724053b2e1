"""A picture's recipe as YAML, ready for the inbox: `picowatch show`."""

import json
import re

from picowatch.metadata.numbers import plain_number
from picowatch.recipe.request import ImageRequest, loras_beside_prompt


def recipe_yaml(request: ImageRequest) -> str:
    """A recipe that gives the same request again, wherever it is put.

    Every field is written, so that no `_defaults.yaml` changes the picture.
    """
    fields = {
        "prompt": _text(request.prompt),
        "negative_prompt": _text(request.negative_prompt),
        "checkpoint": _text(request.checkpoint),
        "vae": _text(request.vae),
        "sampler": _word(request.sampler),
        "schedule_type": _word(request.schedule_type),
        "steps": str(request.steps),
        "cfg_scale": plain_number(request.cfg_scale),
        "size": f"{request.width}x{request.height}",
        "seed": str(request.seed),
        "count": "1",
        "clip_skip": str(request.clip_skip),
        "loras": _loras(request),
        **_pictures(request),
        "hires": _hires(request),
        "sweep": "off",
        "shrink_to_fit": "true" if request.shrink_to_fit else "false",
        "exact": "true" if request.exact else "false",
    }
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


def _loras(request: ImageRequest) -> str:
    """Those that the prompt does not name itself."""
    uses = loras_beside_prompt(request)
    return (
        "{" + ", ".join(f"{_in_line(use.name)}: {plain_number(use.weight)}" for use in uses) + "}"
    )


def _pictures(request: ImageRequest) -> dict[str, str]:
    start, mask = request.start_image, request.mask
    if not start:
        return {"image": "none"}
    fields = {
        "image": _text(start.path),
        "denoising_strength": plain_number(start.denoising_strength),
        "resize": _word(start.resize),
        "mask": _text(mask.path) if mask else "none",
    }
    if mask:
        fields |= {"mask_blur": str(mask.blur), "mask_invert": "true" if mask.invert else "false"}
    return fields


def _hires(request: ImageRequest) -> str:
    hires = request.hires
    if not hires:
        return "false"
    strength = plain_number(hires.denoising_strength)
    return (
        f"{{scale: {plain_number(hires.scale)}, steps: {hires.steps}, "
        f"denoising_strength: {strength}, upscaler: {_word(hires.upscaler)}}}"
    )


def _word(text: str) -> str:
    """One of our own words bare; whatever else a stranger's picture holds in its place, quoted."""
    return text if re.fullmatch(r"[A-Za-z][\w +()./-]*", text, re.ASCII) else _in_line(text)


def _in_line(text: str) -> str:
    """The text as a key: never a block."""
    return _text(text) if text.isprintable() else _escaped_text(text)


def _text(text: str) -> str:
    """Text that reads back exactly: a literal block if it can be, else quoted.

    Single quotes, because backslashes (\\() mean themselves there; double quotes where a line
    break or a character that cannot be seen has to be escaped.
    """
    lines = text.split("\n")
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    tidy = all(line.isprintable() and line == line.strip() for line in lines)
    if tidy and lines[0] and lines[-1]:
        return "|-\n" + "\n".join(f"  {line}" if line else "" for line in lines)
    return _escaped_text(text)


def _escaped_text(text: str) -> str:
    return "".join(map(_escaped, json.dumps(text, ensure_ascii=False)))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
