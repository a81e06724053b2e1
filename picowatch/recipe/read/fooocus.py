"""Fooocus' own settings in a picture, under its scheme "fooocus": JSON to values.

Source: https://github.com/lllyasviel/Fooocus, modules/meta_parser.py, FooocusMetadataParser.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from picowatch.errors import PictureUnreadable
from picowatch.recipe.messages.wording import MAX_WARNINGS, left_out
from picowatch.recipe.read.a1111 import seed_of_32_bits
from picowatch.recipe.written import Layer, Position, written_at

_FIELDS = {
    "steps": "steps",
    "guidance_scale": "cfg_scale",
    "base_model": "checkpoint",
    "vae": "vae",
    "sampler": "sampler",
    "scheduler": "schedule_type",
    "seed": "seed",
}
# Styles stand in the full prompt; hashes and versions say which files were meant.
_INFORMATION = {
    *("prompt", "negative_prompt", "full_prompt", "full_negative_prompt", "styles"),
    *("resolution", "loras", "base_model_hash", "refiner_model_hash", "version", "created_by"),
    *("metadata_scheme", "performance"),
}
_NOTHING = ("", "None", None, False)
_SIDES = re.compile(r"\((\d{1,5}), ?(\d{1,5})\)")


def is_fooocus(text: str) -> bool:
    """Whether a picture's text is Fooocus' JSON."""
    return text.lstrip().startswith("{") and '"full_prompt"' in text and '"base_model"' in text


def fooocus_layer(text: str, position: Position) -> tuple[Layer, tuple[str, ...]]:
    """The fields, and warnings for what a recipe cannot say. Raises PictureUnreadable."""
    try:
        values = json.loads(text)
        return _layer(values, position), _warnings(values)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, OverflowError):
        raise PictureUnreadable("its text from Fooocus is damaged.") from None


def _layer(values: Mapping[str, Any], position: Position) -> Layer:
    found: dict[str, Any] = {
        field: _plain(values[key]) for key, field in _FIELDS.items() if key in values
    }
    found["prompt"] = _joined(values["full_prompt"])
    found["negative_prompt"] = _joined(values.get("full_negative_prompt", []))
    if "sampler" in found:
        found["sampler"] = str(found["sampler"]).removesuffix("_gpu")
    if "seed" in found:
        found["seed"], _ = seed_of_32_bits(str(found["seed"]))
    sides = _SIDES.fullmatch(str(values.get("resolution", "")))
    if sides:
        found["size"] = f"{sides[1]}x{sides[2]}"
    loras = {str(name): _plain(weight) for name, weight, *_ in values.get("loras", [])}
    if loras:
        found["loras"] = loras
    return {field: written_at(position, value) for field, value in found.items()}


def _plain(value: object) -> str | int | float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError
    return value


def _joined(prompts: object) -> str:
    """The prompt's lines with the styles', joined as Fooocus does it for A1111's text."""
    if isinstance(prompts, str):
        return prompts
    if not isinstance(prompts, list):
        raise TypeError
    return ", ".join(str(prompt) for prompt in prompts)


def _warnings(values: Mapping[str, Any]) -> tuple[str, ...]:
    _, about_seed = seed_of_32_bits(str(values.get("seed", "")))
    unknown = [
        left_out(f"{key}: {value}")
        for key, value in values.items()
        if key not in {*_FIELDS, *_INFORMATION}
        and not key.startswith("lora_combined_")
        and value not in _NOTHING
    ]
    return tuple([*([about_seed] if about_seed else []), *unknown][:MAX_WARNINGS])
