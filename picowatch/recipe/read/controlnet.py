"""ControlNets in A1111's text: what is needed to follow them again. The picture is not in it.

Read are the texts of A1111's extension, of Forge (`Hr Option`), and of older versions (`Low Vram`,
`starting/ending: (0, 1)`, `preprocessor params: (512, 100, 200)`, modes as numbers).
"""

import re

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.read.plain import number, plain_number
from picowatch.recipe.resolve.control import find_mode, find_preprocessor

KEY = re.compile(r"controlnet \d+")
_PAIR = re.compile(r"\s*(?P<key>[\w /-]+?):\s*(?P<value>\([^)]*\)|[^,]*)(?:,|$)")
_HASH = re.compile(r"\s*\[[0-9a-f]{8,10}\]$")
# Which numbers are the options of which preprocessor, and what they usually are.
_OPTIONS = {
    "canny": (("low", 100), ("high", 200)),
    "threshold": (("threshold", 127),),
    "blur": (("radius", 9),),
}


def left_out_controlnet(key: str, text: str) -> str:
    """The warning for a ControlNet whose picture is not there: what to write with it."""
    fields = _fields({found["key"].lower(): found["value"] for found in _PAIR.finditer(text)})
    entry = ", ".join(["image: …", *(f"{name}: {value}" for name, value in fields.items())])
    return (
        f"{key} was left out: its picture is not in this text. To use it, add the picture and "
        f"'control: {{{shown(entry, 300)}}}'."
    )


def _fields(values: dict[str, str]) -> dict[str, str]:
    """What a recipe says of it, without what is as usual."""
    module = values.get("module", values.get("preprocessor", "none"))
    preprocess = find_preprocessor(module)
    start, end = _numbers(values.get("starting/ending", ""), 2)
    numbers = {
        "weight": (_number(values.get("weight")), 1),
        "start": (_number(values.get("guidance start"), start), 0),
        "end": (_number(values.get("guidance end"), end), 1),
    }
    _, *params = _numbers(values.get("preprocessor params", ""), 3)
    thresholds = [_number(values.get(f"threshold {name}")) for name in "ab"]
    for (name, usual), new, old in zip(
        _OPTIONS.get(preprocess, ()), thresholds, params, strict=False
    ):
        numbers[name] = (old if new is None else new, usual)
    found = {"model": _HASH.sub("", values.get("model", "…").strip())}
    # What picowatch cannot make, somebody has to bring.
    found["preprocess"] = preprocess or "none"
    mode = find_mode(values.get("control mode", "balanced"))
    found["mode"] = mode if mode in ("prompt", "control") else "balanced"
    for name, default in (("preprocess", "none"), ("mode", "balanced")):
        if found[name] == default:
            del found[name]
    given = {name: value for name, (value, usual) in numbers.items() if value not in (None, usual)}
    return found | {name: plain_number(value) for name, value in given.items() if value is not None}


def _number(text: str | None, otherwise: float | None = None) -> float | None:
    found = number(text.strip()) if text else None
    return otherwise if found is None else found


def _numbers(text: str, count: int) -> list[float | None]:
    """ "(0, 1)"; None for each that is missing."""
    found = [_number(part) for part in text.strip("() ").split(",")]
    return [*found, *([None] * count)][:count]
