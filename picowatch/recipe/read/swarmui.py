"""SwarmUI's settings in a picture: JSON in `parameters`, or in the user comment of a JPEG.

Source: https://github.com/mcmonkeyprojects/SwarmUI, docs/Image Metadata Format.md, and the
parameters of src/Text2Image/T2IParamTypes.cs. Names are lower-case without spaces; numbers may be
written as text, lists with commas. A setting at its default may be left out.
"""

import re
from collections.abc import Mapping
from typing import Any

from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.read.carried import Carried, settings_of

_PARAMETERS = "sui_image_params"
_FIELDS = {
    "prompt": "prompt",
    "negativeprompt": "negative_prompt",
    "steps": "steps",
    "seed": "seed",
    "cfgscale": "cfg_scale",
    "fluxguidancescale": "guidance",
    "model": "checkpoint",
}
_INFORMATION = {
    *("swarm_version", "swarmversion", "images", "aspectratio", "sidelength", "automaticvae"),
    *("nopreviews", "wildcardseed", "wildcardseedbehavior", "imageformat", "date", "batchsize"),
    *("generation_time", "prep_time", "original_prompt", "original_negativeprompt", "donotsave"),
    *("used_wildcards", "internalbackendtype", "exactbackendid", "modelspecificenhancements"),
    *("personalnote", "used_embeddings", "unused_parameters", "loratencweights", "colordepth"),
    *("colorcorrectionbehavior", "presets", "outpathoverride", "vaetilesize", "vaetileoverlap"),
    *("comfyuisampler", "comfyuischeduler", "initimage"),
}
_AUTOMATIC = ("", "none", "automatic")
# What the sampler is where the picture does not say it (ComfyUIBackendExtension.cs).
_USUAL_SAMPLER = "euler"
_EMBEDDING = re.compile(
    r"<embed(?:ding)?:(?:[^<>]*/)?(?P<name>[^<>/]+?)(?:\.safetensors|\.pt|\.bin)?>", re.IGNORECASE
)
_TAGS = re.compile(r"<(?!lora:|break)([a-z]{3,20})[:>\[]", re.IGNORECASE)


def is_swarmui(texts: Mapping[str, str]) -> bool:
    """Whether a picture's texts are SwarmUI's."""
    text = texts.get("parameters", "")
    return text.lstrip().startswith("{") and f'"{_PARAMETERS}"' in text


def read_swarmui(texts: Mapping[str, str], carried: Carried) -> None:
    """The settings, and warnings for what a recipe cannot say."""
    settings = settings_of(texts["parameters"])[_PARAMETERS]
    carried.put("prompt", "")
    carried.take_all(settings, _FIELDS)
    for field in PROMPTS:
        if field in carried.values:
            text = carried.with_embeddings(str(carried.values[field]), _EMBEDDING)
            carried.values[field] = text
    carried.take_size(settings)
    sampler = settings.pop("sampler", None) or settings.get("comfyuisampler") or _USUAL_SAMPLER
    schedule_type = settings.pop("scheduler", None) or settings.get("comfyuischeduler")
    carried.put_sampler(sampler, schedule_type)
    vae = settings.pop("vae", None)
    if str(vae or "").casefold() not in _AUTOMATIC:
        carried.put("vae", vae)
    if layer := settings.pop("clipstopatlayer", None):  # counted from the end: -2 is A1111's 2
        carried.put("clip_skip", abs(int(layer)))
    weights = _listed(settings.pop("loraweights", None))
    for index, lora in enumerate(_listed(settings.pop("loras", None))):
        weight = weights[index] if index < len(weights) else 1
        carried.put_lora(lora, float(weight))
    variation_seed = settings.pop("variationseed", None)
    if strength := float(settings.pop("variationseedstrength", None) or 0):
        carried.put("variation_strength", strength)
        carried.put("variation_seed", variation_seed)
    if str(settings.get("seamlesstileable")).casefold() == "true":
        carried.values["tiling"] = True
        del settings["seamlesstileable"]
    creativity = settings.pop("initimagecreativity", None)
    if "initimage" in settings or creativity is not None:
        carried.put("denoising_strength", creativity)
        carried.miss_start_image()
    for tag in sorted(set(_TAGS.findall(str(carried.values["prompt"])))):
        carried.leave_out("prompt", f"<{tag}:…>")
    carried.leave_out_rest(settings, _INFORMATION)


def _listed(value: object) -> list[Any]:
    """A list, which may be written as text with commas."""
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",") if piece.strip()]
    return list(value) if isinstance(value, list) else []
