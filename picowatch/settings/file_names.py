"""The setting `file_name`: a template that must name each picture differently."""

import re
import string
from typing import Any

from picowatch.errors import SettingsInvalid

MAX_SEED = 2**32 - 1
MAX_NAME = 255  # characters of a file name, which hardly any file system exceeds


def check_file_name(template: str, where: str) -> None:
    """Refuse a template that cannot name pictures, names two alike, or pads without measure."""
    _check_placeholders(template, where)
    names = {_sample_name(template, where, number, seed) for number, seed in ((1, 1), (2, 1))}
    one = min(names)
    if len(names) < 2 or "/" in one or "\0" in one or one.startswith("."):
        raise SettingsInvalid(
            f"{where}: file_name {template!r} needs {{number}}, and must not contain '/' or begin "
            "with '.'."
        )
    pairs = [(1, 11), (11, 1), (1000, 11), (10001, 1)]
    _sample_name(template, where, 1, MAX_SEED)
    if len({_sample_name(template, where, *pair) for pair in pairs}) < len(pairs):
        raise SettingsInvalid(
            f"{where}: file_name {template!r} gives two pictures the same name.",
            "Put a separator between {number} and what is next to it, as in {number}-{seed}.",
        )


def _check_placeholders(template: str, where: str) -> None:
    """A width is a number of the template's own, and no picture's name is longer than names are.

    Parts of a value, as in {picture[0]}, are refused: not every image has them.
    """
    if len(template) > MAX_NAME:
        raise SettingsInvalid(
            f"{where}: file_name is too long; the limit is {MAX_NAME} characters."
        )
    try:
        fields = [
            (name or "", form or "") for _, name, form, _ in string.Formatter().parse(template)
        ]
    except ValueError as error:
        raise _unusable(template, where, error) from error
    for name, form in fields:
        if "." in name or "[" in name:
            raise SettingsInvalid(
                f"{where}: file_name {template!r} cannot be used: {{{name}}} is a part of a value.",
                f"Write the whole one, as in {{{re.split('[.[]', name)[0]}}}.",
            )
        if "{" in form or any(len(digits) > 3 for digits in re.findall(r"\d+", form)):
            raise SettingsInvalid(
                f"{where}: file_name {template!r} pads with ':{form}'.",
                "The limit is 999, and it must be a plain number, as in {number:04}.",
            )


def _sample_name(template: str, where: str, number: int, other: int) -> str:
    """The template's name for a picture with this number, and this value for all the rest."""
    sample: dict[str, Any] = dict.fromkeys(("checkpoint", "sampler"), str(other))
    sample |= {"recipe": "x", "picture": str(other)}  # a folder's pictures are of one recipe
    sample |= dict.fromkeys(("seed", "steps", "width", "height"), other)
    sample |= {"number": number, "cfg_scale": float(other)}
    try:
        return template.format_map(sample)
    except KeyError as error:
        raise SettingsInvalid(
            f"{where}: file_name {template!r} cannot be used: there is no {{{error.args[0]}}}.",
            f"The placeholders are {', '.join(sample)}.",
        ) from error
    except (ValueError, IndexError, AttributeError, TypeError, OverflowError) as error:
        raise _unusable(template, where, error) from error


def _unusable(template: str, where: str, error: Exception) -> SettingsInvalid:
    return SettingsInvalid(f"{where}: file_name {template!r} cannot be used: {error}.")
