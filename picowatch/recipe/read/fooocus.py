"""Fooocus' own settings in a picture, under its scheme "fooocus": JSON to values.

Source: https://github.com/lllyasviel/Fooocus, modules/meta_parser.py, FooocusMetadataParser.
"""

import re
from collections.abc import Mapping

from picowatch.recipe.read.carried import Carried, settings_of

_FIELDS = {
    "steps": "steps",
    "seed": "seed",
    "guidance_scale": "cfg_scale",
    "base_model": "checkpoint",
    "vae": "vae",
}
# Styles stand in the full prompt; hashes and versions say which files were meant. SDXL is always
# drawn with the last layer but one of its text encoders, which Fooocus calls a clip_skip of 2.
_INFORMATION = {
    *("prompt", "negative_prompt", "styles", "base_model_hash", "refiner_model_hash", "version"),
    *("created_by", "metadata_scheme", "performance", "prompt_expansion"),
}
_USUAL = {"clip_skip": 2}
_SIDES = re.compile(r"\((\d{1,5}), ?(\d{1,5})\)")


def is_fooocus(texts: Mapping[str, str]) -> bool:
    """Whether a picture's texts are Fooocus' JSON."""
    text = texts.get("parameters", "")
    return text.lstrip().startswith("{") and '"full_prompt"' in text and '"base_model"' in text


def read_fooocus(texts: Mapping[str, str], carried: Carried) -> None:
    """The settings, and warnings for what a recipe cannot say."""
    settings = settings_of(texts["parameters"])
    carried.put("prompt", _joined(settings.pop("full_prompt")))
    carried.put("negative_prompt", _joined(settings.pop("full_negative_prompt", [])))
    carried.take_all(settings, _FIELDS)
    carried.put_sampler(settings.pop("sampler", None), settings.pop("scheduler", None))
    if sides := _SIDES.fullmatch(str(settings.pop("resolution", ""))):
        carried.put_size(*sides.groups())
    for name, weight, *_ in settings.pop("loras", []):
        carried.put_lora(name, weight)
    if settings.get("refiner_model") in ("None", "", None):
        settings.pop("refiner_switch", None)
    combined = {name for name in settings if name.startswith("lora_combined_")}
    usual = {name for name, value in _USUAL.items() if settings.get(name) == value}
    carried.leave_out_rest(settings, _INFORMATION | combined | usual)


def _joined(prompts: object) -> str:
    """The prompt's lines with the styles', joined as Fooocus does it for A1111's text."""
    if isinstance(prompts, str):
        return prompts
    if not isinstance(prompts, list):
        raise TypeError
    return ", ".join(str(prompt) for prompt in prompts)
