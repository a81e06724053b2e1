"""Settings in pictures by Fooocus, InvokeAI 3 and later, SwarmUI and picoDiffusion, in one table.

Sources: https://github.com/lllyasviel/Fooocus, modules/meta_parser.py (FooocusMetadataParser);
https://github.com/invoke-ai/InvokeAI, invokeai/app/invocations/metadata.py;
https://github.com/mcmonkeyprojects/SwarmUI, docs/Image Metadata Format.md.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from picowatch.recipe.converters import NOISE_NAMES
from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.read.found import Found


def settings_of(texts: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Return the program that wrote a picture's texts, and its settings. Raises any of DAMAGE."""
    if texts.get("generator", "").casefold() == _PICODIFFUSION.casefold():
        lora = [[texts.get("lora"), texts.get("lora_weight")]]
        return _PICODIFFUSION, {**texts, "loras": lora, "clip_skip": "2"}  # always A1111's 3
    for name, (keyword, sign) in _SIGNS.items():
        text = texts.get(keyword, "")
        if text.lstrip().startswith("{") and sign in text:
            settings = json.loads(text)
            return name, _of_swarmui(settings) if sign == _OF_SWARMUI else settings
    return None


def _of_swarmui(settings: dict[str, Any]) -> dict[str, Any]:
    """Return SwarmUI's settings, with the sampler where the picture does not name it.

    See its ComfyUIBackendExtension.cs.
    """
    settings = settings[_OF_SWARMUI.strip('"')]
    usual = {"sampler": settings.get("comfyuisampler") or "euler"}
    return {**usual, "scheduler": settings.get("comfyuischeduler"), **settings}


def read_settings(program: str, settings: dict[str, Any], found: Found) -> None:
    """Read the settings that have a field; warn about others, unless they change no pixel."""
    column = [*_SIGNS, _PICODIFFUSION].index(program)
    if settings.get("refiner_model") in ("None", "", None):
        settings.pop("refiner_switch", None)
    if settings.get("seamless_x") is True and settings.get("seamless_y") is True:
        del settings["seamless_x"], settings["seamless_y"]
        settings["seamlesstileable"] = True
    loras = list(_loras(settings))
    mode = str(settings.get("generation_mode") or "")
    for field, keys in _KEYS.items():
        value = settings.pop(keys[column], None)
        if value not in (None, ""):
            meant = _MEANINGS[field](value) if field in _MEANINGS else value
            found.put(field, meant)
            if meant is None:
                found.leave_out(keys[column], value)
    for name, weight in loras:
        found.put_lora(name, weight)
    if not found.values.get("variation_strength"):
        found.values.pop("variation_seed", None)
    if "denoising_strength" in found.values:
        found.miss_start_image()
    for field in PROMPTS:
        found.put_prompt(field, found.values.pop(field, ""), _EMBEDDING)
    if program == _INVOKEAI:
        _read_invokeais_own(mode, found)
    for tag in sorted(set(_TAGS.findall(found.values["prompt"]))):
        found.leave_out("prompt", f"<{tag}:…>")
    for name, value in settings.items():
        if name not in _INFORMATION and not name.startswith("lora_combined_"):
            found.leave_out(name, value)


def _loras(settings: dict[str, Any]) -> Iterator[tuple[object, object]]:
    """Yield LoRAs and weights, from pairs, mappings, or texts with commas."""
    weights = _listed(settings.pop("loraweights", None))
    for index, lora in enumerate(_listed(settings.pop("loras", None))):
        if isinstance(lora, str):
            yield lora, weights[index] if index < len(weights) else None
        elif isinstance(lora, Mapping):
            yield _name(lora.get("model") or lora.get("lora")), lora.get("weight")
        else:
            yield lora[0], lora[1]


def _listed(value: object) -> list[Any]:
    """Return a list, which may be written as text with commas."""
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",") if piece.strip()]
    return list(value) if isinstance(value, list) else []


def _name(model: object) -> object:
    """Return a model's name; InvokeAI's is in a mapping, with another key before version 4."""
    return model.get("name") or model.get("model_name") if isinstance(model, Mapping) else model


def _joined(prompt: object) -> object:
    """Return the prompt; Fooocus has a list of its lines and those of the styles."""
    return ", ".join(map(str, prompt)) if isinstance(prompt, list) else prompt


def _clip_skip(layers: Any) -> int:
    """Return A1111's clip skip: SwarmUI's -2 and InvokeAI's 1 are A1111's 2."""
    return abs(int(layers)) if int(layers) < 0 else int(layers) + 1


def _read_invokeais_own(mode: str, found: Found) -> None:
    """Set the schedule type that InvokeAI's sampler implies, and warn about compel's weights."""
    sampler = found.values.get("sampler", "")
    if sampler.endswith("_k"):
        found.values["sampler"] = f"{sampler.removesuffix('_k')}_karras"
    elif sampler and mode.startswith(_STABLE_DIFFUSION):
        found.values["schedule_type"] = "leading"
    if any(_COMPELS_WEIGHT.search(found.values.get(field, "")) for field in PROMPTS):
        found.warn("InvokeAI's weights (word+, (words)1.2) are read as words: write (word:1.2).")


# https://github.com/damian0815/compel, doc/syntax.md: `word++`, `(some words)1.2`.
_COMPELS_WEIGHT = re.compile(r"\w(?:\+|--)|\)(?:[\d+-]|\.\w)")
# InvokeAI's `<name>`, SwarmUI's `<embed:folder/name.safetensors>`.
_EMBEDDING = re.compile(
    r"<(?!break>)(?:embed(?:ding)?:)?(?:[^<>:/]*/)*([\w., -]+?)(?:\.safetensors|\.pt|\.bin)?>"
)
_TAGS = re.compile(r"<(?!lora:|break)([a-z]{3,20})[:>\\]")
_STABLE_DIFFUSION = ("txt2img", "img2img", "inpaint", "outpaint", "sdxl_")
_OF_SWARMUI = '"sui_image_params"'
_INVOKEAI, _PICODIFFUSION = "InvokeAI", "picoDiffusion"
# The keyword of the text with the settings as JSON, and a part of it that only this program writes.
_SIGNS = {
    "Fooocus": ("parameters", '"full_prompt"'),
    "SwarmUI": ("parameters", _OF_SWARMUI),
    _INVOKEAI: ("invokeai_metadata", ""),
}
# The keys of these programs and picoDiffusion for each field; "" where a program has none.
_KEYS = {
    "prompt": ("full_prompt", "prompt", "positive_prompt", "prompt"),
    "negative_prompt": (
        "full_negative_prompt", "negativeprompt", "negative_prompt", "negative_prompt",
    ),
    "checkpoint": ("base_model", "model", "model", "checkpoint"),
    "vae": ("vae", "vae", "vae", "vae"),
    "sampler": ("sampler", "sampler", "scheduler", "sampler"),
    "schedule_type": ("scheduler", "scheduler", "", ""),
    "steps": ("steps", "steps", "steps", "steps"),
    "cfg_scale": ("guidance_scale", "cfgscale", "cfg_scale", "cfg"),
    "cfg_rescale": ("", "", "cfg_rescale_multiplier", ""),
    "guidance": ("", "fluxguidancescale", "guidance", ""),
    "size": ("resolution", "", "", ""),
    "width": ("", "width", "width", "width"),
    "height": ("", "height", "height", "height"),
    "seed": ("seed", "seed", "seed", "seed"),
    "variation_seed": ("", "variationseed", "", ""),
    "variation_strength": ("", "variationseedstrength", "", ""),
    "noise": ("", "", "rand_device", ""),
    "tiling": ("", "seamlesstileable", "seamlesstileable", ""),
    "clip_skip": ("", "clipstopatlayer", "clip_skip", "clip_skip"),
    "denoising_strength": ("", "initimagecreativity", "strength", ""),
}  # fmt: skip
# The conversions of values that a recipe writes differently.
_MEANINGS: dict[str, Callable[[Any], object]] = {
    "prompt": _joined,
    "negative_prompt": _joined,
    "checkpoint": _name,
    "vae": _name,
    "size": lambda text: "x".join(re.findall("[0-9]+", text)),  # "(768, 1280)"
    "noise": lambda device: NOISE_NAMES.get(str(device)),
    "tiling": lambda tiled: str(tiled).casefold() == "true" or None,
    "clip_skip": _clip_skip,
    "variation_strength": lambda text: text if float(text) else None,
}
# Keys that change no pixel or repeat another key; Fooocus' clip_skip is what SDXL always has.
_INFORMATION = {
    *("prompt", "negative_prompt", "styles", "base_model_hash", "refiner_model_hash", "version"),
    *("created_by", "metadata_scheme", "performance", "prompt_expansion", "clip_skip"),
    *("swarm_version", "swarmversion", "images", "aspectratio", "sidelength", "automaticvae"),
    *("nopreviews", "wildcardseed", "wildcardseedbehavior", "imageformat", "date", "batchsize"),
    *("generation_time", "prep_time", "original_prompt", "original_negativeprompt", "donotsave"),
    *("used_wildcards", "internalbackendtype", "exactbackendid", "modelspecificenhancements"),
    *("personalnote", "used_embeddings", "unused_parameters", "loratencweights", "colordepth"),
    *("colorcorrectionbehavior", "presets", "outpathoverride", "vaetilesize", "vaetileoverlap"),
    *("comfyuisampler", "comfyuischeduler", "initimage", "app_version", "canvas_v2_metadata"),
    *("generation_mode", "hrf_method", "hrf_strength", "negative_style_prompt"),
    *("positive_style_prompt", "z_image_seed_variance_enabled", "generator", "lora"),
    *("lora_weight",),
}
