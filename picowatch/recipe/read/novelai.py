"""NovelAI's settings in a picture: a PNG's text `Comment`, in a WebP within the user comment.

Sources: pictures in https://github.com/RupertAvery/DiffusionToolkit/issues/3 and
https://github.com/d3x-at/sd-parsers (tests/test_novelai.py) for the first versions; for V3 and
later, and for WebP, the parsers of https://github.com/enslo/sd-metadata. Weights:
https://docs.novelai.net/image/strengthening-weakening.html: `{a}` is 1.05, `[a]` a 1.05th,
`1.2::a::` 1.2. Round brackets mean nothing.
"""

import json
import re
from collections.abc import Mapping

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.read.carried import Carried, settings_of
from picowatch.recipe.read.plain import plain_number

_FIELDS = {"steps": "steps", "scale": "cfg_scale", "seed": "seed"}
_INFORMATION = {
    *("signed_hash", "version", "n_samples", "add_original_image", "legacy", "legacy_v3_extend"),
    *("legacy_uc", "uncond_scale", "controlnet_strength", "params_version", "image_format"),
    *("extra_passthrough_testing", "hide_debug_overlay", "lora_unet_weights", "lora_clip_weights"),
    *("deliberate_euler_ancestral_bug", "prefer_brownian", "cfg_sched_eligibility"),
    *("explike_fine_detail", "minimize_sigma_inf", "uncond_per_vibe", "wonky_vibe_correlation"),
    *("stream", "ucPreset", "qualityToggle", "director_reference_information_extracted"),
    *("normalize_reference_strength_multiple", "inpaintImg2ImgStrength", "model"),
    "noise",
}
_FROM_IMAGE = ("Img2ImgRequest", "NativeInfillingRequest")
_SCHEDULES = {"native": "uniform", "polyexponential": "exponential"}
# The first version was Stable Diffusion 1, drawn with the last layer but one of its text encoder;
# A1111 adds both when it reads such a picture (modules/images.py, read_info_from_image).
_FIRST = "Stable Diffusion"
_ENSD = 31337
_STRONGER = 1.05
_TOKEN = re.compile(
    r"(?P<number>-?\d{1,3}(?:\.\d{1,5})?)::|(?P<end>::)|(?P<bracket>[{}\[\]])|(?P<round>[()])"
    r"|\\.|.",
    re.DOTALL,
)
_CLOSES = {"}": "{", "]": "["}


def is_novelai(texts: Mapping[str, str]) -> bool:
    """Whether a picture's texts are NovelAI's."""
    return _named_texts(texts) is not None


def _named_texts(texts: Mapping[str, str]) -> Mapping[str, str] | None:
    """The texts by NovelAI's names, if they are NovelAI's: a WebP has them in one of JSON."""
    if (
        "Comment" not in texts
        and texts.get("parameters", "").startswith('{"')
        and ('"Comment"' in texts["parameters"])
    ):
        try:
            inner = json.loads(texts["parameters"])
        except (ValueError, RecursionError):
            return None
        texts = {name: text for name, text in inner.items() if isinstance(text, str)}
    of_novelai = "NovelAI" in texts.get("Software", "") or "NovelAI" in texts.get("Source", "")
    return texts if "Comment" in texts and of_novelai else None


def read_novelai(texts: Mapping[str, str], carried: Carried) -> None:
    """The settings, and warnings for what a recipe cannot say."""
    texts = _named_texts(texts) or texts
    settings = settings_of(texts["Comment"])
    source = texts.get("Source", "")
    prompt = settings.pop("prompt", None) or texts.get("Description", "")
    for field, key, text in (
        ("prompt", "v4_prompt", prompt),
        ("negative_prompt", "v4_negative_prompt", settings.pop("uc", None) or ""),
    ):
        caption = (settings.pop(key, None) or {}).get("caption") or {}
        characters = [one.get("char_caption") for one in caption.get("char_captions") or ()]
        characters = [one for one in characters if one]
        parts = [caption.get("base_caption") or text, *characters]
        carried.put(field, ", ".join(carried.translated(part, _translated) for part in parts))
        if characters and field == "prompt":
            carried.warn("the prompts of characters were joined to the prompt, without places.")
    says_size = "width" in settings
    carried.take_all(settings, _FIELDS)
    carried.take_size(settings)
    schedule = settings.pop("noise_schedule", None)
    carried.put_sampler(settings.pop("sampler", None), _SCHEDULES.get(str(schedule), schedule))
    if rescale := settings.pop("cfg_rescale", None):
        carried.put("cfg_rescale", rescale)
    if source.startswith(_FIRST):
        carried.put("clip_skip", 2)
        carried.put("ensd", _ENSD)
    strength = settings.pop("strength", None)
    if settings.pop("request_type", None) in _FROM_IMAGE:
        carried.put("denoising_strength", strength)
        carried.miss_start_image()
    if not says_size:
        carried.warn("the picture's settings do not say its size.")
    if source:
        carried.warn(f"NovelAI's model '{shown(source)}' cannot be installed; another one is used.")
    carried.leave_out_rest(settings, _INFORMATION)


def _translated(text: str) -> str | None:
    """NovelAI's weights as A1111's; None where brackets are unbalanced.

    A number's weight ends with `::` or the next number.
    """
    levels, opened = [""], [""]

    def close(weight: float) -> None:
        opened.pop()
        inner = levels.pop()
        levels[-1] += f"({inner}:{plain_number(round(weight, 3))})" if inner.strip() else inner

    for token in _TOKEN.finditer(text):
        bracket, number = token["bracket"], token["number"]
        if number or token["end"]:
            if opened[-1] and opened[-1] not in _CLOSES.values():
                close(float(opened[-1]))
            if number:
                opened.append(number)
                levels.append("")
        elif bracket in _CLOSES:
            if opened[-1] != _CLOSES[bracket]:
                return None
            close(_STRONGER if bracket == "}" else 1 / _STRONGER)
        elif bracket:
            opened.append(bracket)
            levels.append("")
        else:
            levels[-1] += f"\\{token['round']}" if token["round"] else token.group()
    if opened[-1] and opened[-1] not in _CLOSES.values():
        close(float(opened[-1]))
    return levels[0] if len(levels) == 1 else None
