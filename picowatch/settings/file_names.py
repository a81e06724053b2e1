"""The setting `file_name`: a template that must name each picture differently."""

import re
import string
from typing import Any

from picowatch.settings.values import MAX_NAME

MAX_SEED = 2**32 - 1
_TEXTS = ("recipe", "picture", "checkpoint", "sampler")
_NUMBERS = ("number", "seed", "steps", "width", "height")
_PLACEHOLDERS = (*_TEXTS, *_NUMBERS, "cfg_scale")


def file_name_value(template: str) -> str:
    """Refuse a template that cannot name pictures, names two alike, or pads without measure."""
    if len(template) > MAX_NAME:
        raise ValueError(f"it is too long; the limit is {MAX_NAME} characters")
    try:
        _check_placeholders(template)
        names = [_sample_name(template, *pair) for pair in ((1, 1), (2, 1))]
        pairs = [(1, 11), (11, 1), (1000, 11), (10001, 1)]
        more = [_sample_name(template, *pair) for pair in pairs]
        _sample_name(template, 1, MAX_SEED)
    except (ValueError, IndexError, TypeError, OverflowError) as error:
        raise ValueError(f"it cannot be used: {error}") from error
    if names[0] == names[1] or "/" in names[0] or "\0" in names[0] or names[0].startswith("."):
        raise ValueError("it needs {number}, and must not contain '/' or begin with '.'")
    if len({*more}) < len(more):
        raise ValueError(
            "it gives two pictures the same name. Put a separator between {number} and what is "
            "next to it, as in {number}-{seed}"
        )
    return template


def _check_placeholders(template: str) -> None:
    """Check that each placeholder is known, with a plain number as width, if any."""
    for _, name, form, _ in string.Formatter().parse(template):
        if name is not None and name not in _PLACEHOLDERS:
            known = ", ".join(_PLACEHOLDERS)
            raise ValueError(f"there is no {{{name}}}. The placeholders are {known}")
        if form and ("{" in form or any(len(digits) > 3 for digits in re.findall(r"\d+", form))):
            raise ValueError(
                f"it pads with ':{form}'. The limit is 999, and it must be a plain number, as in "
                "{number:04}"
            )


def _sample_name(template: str, number: int, other: int) -> str:
    """The template's name for a picture with this number, and this value for all the rest."""
    sample: dict[str, Any] = dict.fromkeys(_TEXTS, str(other)) | dict.fromkeys(_NUMBERS, other)
    sample |= {"recipe": "x", "cfg_scale": float(other)}  # a folder's pictures are of one recipe
    return template.format_map(sample | {"number": number})
