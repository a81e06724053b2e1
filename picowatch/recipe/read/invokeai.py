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
    "cfg_scale": "cfg_scale",
    "guidance": "guidance",
    "strength": "denoising_strength",
}
_READ = {
    *_FIELDS,
    *("positive_prompt", "negative_prompt", "width", "height", "seed", "scheduler", "model", "vae"),
    *("loras", "clip_skip", "cfg_rescale_multiplier", "init_image", "rand_device"),
}
_INFORMATION = {
    *("generation_mode", "app_version", "canvas_v2_metadata", "hrf_method"),
    *("hrf_strength", "negative_style_prompt", "z_image_seed_variance_enabled"),
}
_IMAGE = {
    "prompt",
    "width",
    "height",
    "seed",
    "sampler",
    "steps",
    "cfg_scale",
    "type",
    "variations",
}
_OPTIONS = {"s": "steps", "C": "cfg_scale"}
_READ_OPTIONS = {*_OPTIONS, *"SWHA"}
_DREAMED = re.compile(r'"(?P<prompt>.*)"(?P<options>[^"]*)', re.DOTALL)
_OPTION = re.compile(r"-(\w+)\s+(\S+)")
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


def _read_metadata(settings: Mapping[str, Any], carried: Carried) -> None:
    carried.put("prompt", _prompt(settings.get("positive_prompt") or "", carried))
    carried.put("negative_prompt", _prompt(settings.get("negative_prompt") or "", carried))
    carried.put_all(settings, _FIELDS)
    carried.put_size(settings.get("width"), settings.get("height"))
    carried.put_seed(settings.get("seed"))
    mode = str(settings.get("generation_mode") or "")
    _put_sampler(settings.get("scheduler"), mode.startswith(_STABLE_DIFFUSION), carried)
    carried.put("checkpoint", _name(settings.get("model")))
    carried.put("vae", _name(settings.get("vae")))
    if rescale := settings.get("cfg_rescale_multiplier"):
        carried.put("cfg_rescale", rescale)
    if skipped := settings.get("clip_skip"):  # how many layers; A1111 counts the one that is left
        carried.put("clip_skip", int(skipped) + 1)
    if settings.get("rand_device") == "cuda":
        carried.put("noise", NVIDIA)
    if settings.get("seamless_x") is True and settings.get("seamless_y") is True:
        carried.values["tiling"] = True
        settings = {**settings, "seamless_x": None, "seamless_y": None}
    for lora in settings.get("loras") or ():
        carried.put_lora(_name(lora.get("model") or lora.get("lora")), lora.get("weight"))
    if settings.get("init_image") or settings.get("strength") is not None:
        carried.miss_start_image()
    if settings.get("positive_style_prompt") == settings.get("positive_prompt"):
        settings = {**settings, "positive_style_prompt": None}
    carried.leave_out_rest(settings, _READ | _INFORMATION)


def _read_sd_metadata(settings: Mapping[str, Any], carried: Carried) -> None:
    image = settings["image"]
    prompt = image["prompt"]
    if isinstance(prompt, list):
        prompt = ", ".join(part["prompt"] for part in prompt)
    _put_with_negative(prompt, carried)
    carried.put_all(image, {"steps": "steps", "cfg_scale": "cfg_scale"})
    carried.put_size(image.get("width"), image.get("height"))
    carried.put_seed(image.get("seed"))
    _put_sampler(image.get("sampler"), True, carried)
    carried.put("checkpoint", settings.get("model_weights"))
    carried.leave_out_rest(image, _IMAGE)


def _read_dream(text: str, carried: Carried) -> None:
    """`"a red fox [blurry]" -s 50 -S 3357757885 -W 512 -H 768 -C 7.5 -A k_euler_a`"""
    found = _DREAMED.match(text)
    if found is None:
        raise ValueError(text)
    _put_with_negative(found["prompt"], carried)
    options = dict(_OPTION.findall(found["options"]))
    carried.put_all(options, _OPTIONS)
    carried.put_size(options.get("W"), options.get("H"))
    carried.put_seed(options.get("S"))
    _put_sampler(options.get("A"), True, carried)
    known = {f"-{name}" for name in _READ_OPTIONS}
    carried.leave_out_rest({f"-{name}": value for name, value in options.items()}, known)


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
