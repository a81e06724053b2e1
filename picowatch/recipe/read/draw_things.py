"""Draw Things' settings in a picture: JSON in the user comment of its XMP.

Sources: https://github.com/cocktailpeanut/breadmachine/issues/2 and
https://github.com/receyuki/stable-diffusion-prompt-reader, format/drawthings.py, for the keys;
https://github.com/LuqP2/Image-MetaHub/issues/169 for LoRAs. In a PNG, XMP is the text
`XML:com.adobe.xmp`. It is searched, not parsed: XML from strangers may unfold without end.
"""

import html
import re
from collections.abc import Mapping

from picowatch.recipe.fields import NVIDIA
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.read.carried import Carried, settings_of

_XMP = "XML:com.adobe.xmp"
_FIELDS = {
    "c": "prompt",
    "uc": "negative_prompt",
    "model": "checkpoint",
    "steps": "steps",
    "seed": "seed",
    "scale": "cfg_scale",
    "size": "size",
}
# "v2" says all of it again, with every default.
_INFORMATION = {"v2", "profile", "mask_blur", "shift", "image_guidance"}
_NOISE = {"Torch CPU Compatible": "cpu", "NVIDIA GPU Compatible": NVIDIA}
_SCHEDULES = {" Trailing": "sgm_uniform", " AYS": "align_your_steps", " Karras": "karras"}
_NAMES = {"Euler Ancestral": "Euler a", "Euler A": "Euler a"}
_SIDES = re.compile(r"\d{1,5}x\d{1,5}")


def is_draw_things(texts: Mapping[str, str]) -> bool:
    """Whether a picture's texts are Draw Things'."""
    return "Draw Things" in texts.get(_XMP, "")


def _user_comment(xmp: str) -> str:
    """The first text within `exif:UserComment`; "" if there is none."""
    start = 0
    for mark in ("<exif:UserComment", "<rdf:li", ">"):
        start = xmp.find(mark, start) + len(mark)
        if start < len(mark):
            return ""
    return html.unescape(xmp[start : xmp.find("</rdf:li>", start)])


def read_draw_things(texts: Mapping[str, str], carried: Carried) -> None:
    """The settings, and warnings for what a recipe cannot say."""
    settings = settings_of(_user_comment(texts[_XMP]))
    carried.take_all(settings, _FIELDS)
    carried.values.setdefault("prompt", "")
    if not _SIDES.fullmatch(str(carried.values.get("size", ""))):
        carried.values.pop("size", None)
    mode = str(settings.pop("seed_mode", ""))
    carried.put("noise", _NOISE.get(mode))
    if mode and mode not in _NOISE:
        carried.warn(f"its noise ({shown(mode)}) is Draw Things' own; the seed gives another.")
    _put_sampler(settings.pop("sampler", None), carried)
    strength = settings.pop("strength", None)
    if strength is not None and float(strength) < 1:
        carried.put("denoising_strength", strength)
        carried.miss_start_image()
    loras, older = settings.pop("loras", None), settings.pop("lora", None)
    for lora in loras or older or ():
        carried.put_lora(lora.get("file") or lora.get("model"), lora.get("weight"))
    carried.leave_out_rest(settings, _INFORMATION)


def _put_sampler(name: object, carried: Carried) -> None:
    """The schedule type stands in the name: "DPM++ 2M AYS", "Euler A Trailing"."""
    if not isinstance(name, str):
        return
    for ending, schedule_type in _SCHEDULES.items():
        if name.endswith(ending):
            short = name.removesuffix(ending)
            carried.put_sampler(_NAMES.get(short, short), schedule_type)
            return
    carried.put_sampler(_NAMES.get(name, name))
