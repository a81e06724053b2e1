"""SwarmUI's settings in a picture: JSON in `parameters`, or in the user comment of a JPEG.

Source: https://github.com/mcmonkeyprojects/SwarmUI, docs/Image Metadata Format.md, and the
parameters of src/Text2Image/T2IParamTypes.cs. Names are lower-case without spaces; numbers may be
written as text, lists with commas. A setting at its default may be left out.
"""

import re
from collections.abc import Mapping
from typing import Any

from picowatch.recipe.read.carried import Carried, settings_of

_PARAMETERS = "sui_image_params"
_FIELDS = {
    "prompt": "prompt",
    "negativeprompt": "negative_prompt",
    "steps": "steps",
    "cfgscale": "cfg_scale",
    "fluxguidancescale": "guidance",
    "model": "checkpoint",
}
_READ = {
    *_FIELDS,
    *("seed", "width", "height", "sampler", "scheduler", "comfyuisampler", "comfyuischeduler"),
    *("vae", "loras", "loraweights", "clipstopatlayer", "initimagecreativity"),
    *("variationseed", "variationseedstrength"),
}
_INFORMATION = {
    *("swarm_version", "swarmversion", "images", "aspectratio", "sidelength", "automaticvae"),
    *("nopreviews", "wildcardseed", "wildcardseedbehavior", "imageformat", "date", "batchsize"),
    *("generation_time", "prep_time", "original_prompt", "original_negativeprompt", "donotsave"),
    *("used_wildcards", "internalbackendtype", "exactbackendid", "modelspecificenhancements"),
    *("personalnote", "used_embeddings", "unused_parameters", "loratencweights", "colordepth"),
    *("colorcorrectionbehavior", "presets", "outpathoverride", "vaetilesize", "vaetileoverlap"),
}
_AUTOMATIC = ("", "none", "automatic")
# What the sampler is where the picture does not say it (ComfyUIBackendExtension.cs).
_USUAL_SAMPLER = "euler"
_TAGS = re.compile(r"<(?!lora:|break)([a-z]{3,20})[:>\[]", re.IGNORECASE)


def is_swarmui(texts: Mapping[str, str]) -> bool:
    """Whether a picture's texts are SwarmUI's."""
    text = texts.get("parameters", "")
    return text.lstrip().startswith("{") and f'"{_PARAMETERS}"' in text


def read_swarmui(texts: Mapping[str, str], carried: Carried) -> None:
    """The settings, and warnings for what a recipe cannot say."""
    settings = settings_of(texts["parameters"])[_PARAMETERS]
    carried.put("prompt", "")
    carried.put_all(settings, _FIELDS)
    carried.put_size(settings.get("width"), settings.get("height"))
    carried.put_seed(settings.get("seed"))
    sampler = settings.get("sampler") or settings.get("comfyuisampler") or _USUAL_SAMPLER
    carried.put_sampler(sampler, settings.get("scheduler") or settings.get("comfyuischeduler"))
    vae = settings.get("vae")
    if str(vae or "").casefold() not in _AUTOMATIC:
        carried.put("vae", vae)
    if layer := settings.get("clipstopatlayer"):  # counted from the end: -2 is A1111's 2
        carried.put("clip_skip", abs(int(layer)))
    weights = _listed(settings.get("loraweights"))
    for index, lora in enumerate(_listed(settings.get("loras"))):
        weight = weights[index] if index < len(weights) else 1
        carried.put_lora(lora, float(weight))
    if strength := float(settings.get("variationseedstrength") or 0):
        carried.put("variation_strength", strength)
        carried.put("variation_seed", settings.get("variationseed"))
    if str(settings.get("seamlesstileable")).casefold() == "true":
        carried.values["tiling"] = True
        settings = {**settings, "seamlesstileable": None}
    if "initimage" in settings or settings.get("initimagecreativity") is not None:
        carried.put("denoising_strength", settings.get("initimagecreativity"))
        carried.miss_start_image()
    for tag in sorted(set(_TAGS.findall(str(carried.values["prompt"])))):
        carried.leave_out("prompt", f"<{tag}:…>")
    carried.leave_out_rest(settings, {*_READ, *_INFORMATION, "initimage"})


def _listed(value: object) -> list[Any]:
    """A list, which may be written as text with commas."""
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",") if piece.strip()]
    return list(value) if isinstance(value, list) else []
