"""InvokeAI's settings in a picture: `invokeai_metadata`, and what earlier versions wrote.

Sources: https://github.com/invoke-ai/InvokeAI, invokeai/app/invocations/metadata.py (3 and later;
models have the key `model_name` in 3, `name` since 4); for `sd-metadata` (2) and `Dream` (1) the
pictures of https://github.com/d3x-at/sd-parsers, tests/resources/parsers/InvokeAI.

Prompts are weighted by compel (https://github.com/damian0815/compel, doc/syntax.md): `word++` and
`(some words)1.2`. Brackets without a weight after them only group.
"""

import re
from collections.abc import Mapping
from typing import Any

from picowatch.recipe.fields import NVIDIA
from picowatch.recipe.read.carried import Carried, settings_of
from picowatch.recipe.read.plain import plain_number

_METADATA, _SD_METADATA, _DREAM = "invokeai_metadata", "sd-metadata", "Dream"

_FIELDS = {
    "steps": "steps",
    "seed": "seed",
    "cfg_scale": "cfg_scale",
    "guidance": "guidance",
    "strength": "denoising_strength",
}
_INFORMATION = {
    *("app_version", "canvas_v2_metadata", "hrf_method", "hrf_strength", "negative_style_prompt"),
    "z_image_seed_variance_enabled",
}
_OPTIONS = {"-s": "steps", "-C": "cfg_scale", "-S": "seed"}
_DREAMED = re.compile(r'"(?P<prompt>.*)"(?P<options>[^"]*)', re.DOTALL)
_OPTION = re.compile(r"(-\w+)\s+(\S+)")
_KARRAS = "_k"
# What its schedulers do without it, for Stable Diffusion; other families have a schedule of their
# own (invokeai/app/invocations/denoise_latents.py: from_config).
_PLAIN = "leading"
_STABLE_DIFFUSION = ("txt2img", "img2img", "inpaint", "outpaint", "sdxl_")
_NEGATIVE = re.compile(r"\[([^\[\]]*)\]")

_TOKEN = re.compile(
    r"(?P<escaped>\\.)|(?P<open>\()|\)(?P<weight>\++|-+|\d*\.?\d+|)"
    r"|(?P<word>[^\s\\()\[\]+,]+)(?P<signs>\++|(?<=\w)-+)(?=[\s,.;:)]|$)"
    r"|(?P<square>[\[\]])|(?P<other>[^\\()\[\]\s]+|\s+|.)",
    re.DOTALL,
)
# How prompts name embeddings (invokeai/app/util/ti_utils.py).
_EMBEDDING = re.compile(r"<(?P<name>[a-zA-Z0-9., _-]+)>")
_FUNCTIONS = re.compile(r"\)\.(?:and|blend|swap)\(|\.swap\(")


def is_invokeai(texts: Mapping[str, str]) -> bool:
    """Whether a picture's texts are InvokeAI's."""
    return any(keyword in texts for keyword in (_METADATA, _SD_METADATA, _DREAM))


def read_invokeai(texts: Mapping[str, str], carried: Carried) -> None:
    """The settings, and warnings for what a recipe cannot say."""
    if _METADATA in texts:
        _read_metadata(settings_of(texts[_METADATA]), carried)
    elif _SD_METADATA in texts:
        _read_sd_metadata(settings_of(texts[_SD_METADATA]), carried)
    else:
        _read_dream(texts[_DREAM], carried)


def _read_metadata(settings: dict[str, Any], carried: Carried) -> None:
    positive = settings.pop("positive_prompt", None)
    carried.put("prompt", _prompt(positive or "", carried))
    carried.put("negative_prompt", _prompt(settings.pop("negative_prompt", None) or "", carried))
    carried.take_all(settings, _FIELDS)
    carried.take_size(settings)
    mode = str(settings.pop("generation_mode", None) or "")
    _put_sampler(settings.pop("scheduler", None), mode.startswith(_STABLE_DIFFUSION), carried)
    carried.put("checkpoint", _name(settings.pop("model", None)))
    carried.put("vae", _name(settings.pop("vae", None)))
    if rescale := settings.pop("cfg_rescale_multiplier", None):
        carried.put("cfg_rescale", rescale)
    if skipped := settings.pop("clip_skip", None):
        carried.put("clip_skip", int(skipped) + 1)  # A1111 counts the layer that is left, too
    if settings.pop("rand_device", None) == "cuda":
        carried.put("noise", NVIDIA)
    if settings.get("seamless_x") is True and settings.get("seamless_y") is True:
        carried.values["tiling"] = True
        del settings["seamless_x"], settings["seamless_y"]
    for lora in settings.pop("loras", None) or ():
        carried.put_lora(_name(lora.get("model") or lora.get("lora")), lora.get("weight"))
    if settings.pop("init_image", None) or "denoising_strength" in carried.values:
        carried.miss_start_image()
    if settings.get("positive_style_prompt") == positive:
        settings.pop("positive_style_prompt", None)
    carried.leave_out_rest(settings, _INFORMATION)


def _read_sd_metadata(settings: dict[str, Any], carried: Carried) -> None:
    image = settings["image"]
    prompt = image.pop("prompt")
    if isinstance(prompt, list):
        prompt = ", ".join(part["prompt"] for part in prompt)
    _put_with_negative(prompt, carried)
    carried.take_all(image, {name: name for name in ("steps", "cfg_scale", "seed")})
    carried.take_size(image)
    _put_sampler(image.pop("sampler", None), True, carried)
    carried.put("checkpoint", settings.get("model_weights"))
    carried.leave_out_rest(image, ("type", "variations"))


def _read_dream(text: str, carried: Carried) -> None:
    """`"a red fox [blurry]" -s 50 -S 3357757885 -W 512 -H 768 -C 7.5 -A k_euler_a`"""
    found = _DREAMED.match(text)
    if found is None:
        raise ValueError(text)
    _put_with_negative(found["prompt"], carried)
    options = dict(_OPTION.findall(found["options"]))
    carried.take_all(options, _OPTIONS)
    carried.take_size(options, "-W", "-H")
    _put_sampler(options.pop("-A", None), True, carried)
    carried.leave_out_rest(options, ())


def _put_with_negative(prompt: str, carried: Carried) -> None:
    """A prompt with its negative one in square brackets, as before version 3."""
    negative = ", ".join(piece.strip(" ,") for piece in _NEGATIVE.findall(prompt))
    carried.put("prompt", _prompt(_NEGATIVE.sub("", prompt).strip(" ,"), carried))
    carried.put("negative_prompt", _prompt(negative, carried))


def _put_sampler(name: object, is_stable_diffusion: bool, carried: Carried) -> None:
    """`_k` at the end means Karras."""
    if isinstance(name, str):
        is_karras = name.endswith(_KARRAS)
        plain = _PLAIN if is_stable_diffusion else None
        carried.put_sampler(name.removesuffix(_KARRAS), "karras" if is_karras else plain)


def _name(model: object) -> str | None:
    """A model's name, as versions 3, 4 and later have it."""
    if isinstance(model, Mapping):
        model = model.get("name") or model.get("model_name")
    return model if isinstance(model, str) else None


def _prompt(text: str, carried: Carried) -> str:
    """compel's weights as A1111's; a prompt that cannot be translated stays as it is."""
    text = carried.with_embeddings(text, _EMBEDDING)
    if _FUNCTIONS.search(text):
        carried.warn("compel's .and(), .blend() and .swap() are not supported; they stay as text.")
        return text
    return carried.translated(text, _translated)


def _translated(text: str) -> str | None:
    """None where brackets are unbalanced."""
    levels = [""]
    for token in _TOKEN.finditer(text):
        if token["open"]:
            levels.append("")
        elif token["weight"] is not None:
            if len(levels) == 1:
                return None
            inner = levels.pop()
            levels[-1] += _weighted(inner, token["weight"])
        elif token["word"]:
            levels[-1] += _weighted(token["word"], token["signs"])
        elif token["square"]:
            levels[-1] += f"\\{token['square']}"  # to A1111 they are a weight
        else:
            levels[-1] += token.group()
    return levels[0] if len(levels) == 1 else None


def _weighted(text: str, weight: str) -> str:
    """Each plus is 1.1, each minus 0.9."""
    if not weight:
        return text
    if weight[0] in "+-":
        factor = (1.1 if weight[0] == "+" else 0.9) ** len(weight)
    else:
        factor = float(weight)
    return f"({text}:{plain_number(round(factor, 3))})"
