"""ControlNets in A1111's text: what is needed to follow them again. The picture is not in it.

Read are the texts of A1111's extension, of Forge (`Hr Option`), and of older versions (`Low Vram`,
`starting/ending: (0, 1)`, `preprocessor params: (512, 100, 200)`, modes as numbers).
"""

import re
from dataclasses import fields

from picowatch.recipe.messages.problems import shown
from picowatch.recipe.parts import Control
from picowatch.recipe.preprocessors import A1111_MODES, THRESHOLDS, find_mode, find_preprocessor
from picowatch.recipe.read.plain import number, plain_number

KEY = re.compile(r"controlnet \d+")
_PAIR = re.compile(r"\s*(?P<key>[\w /-]+?):\s*(?P<value>\([^)]*\)|[^,]*)(?:,|$)")
_HASH = re.compile(r"\s*\[[0-9a-f]{8,10}\]$")
_USUAL = {field.name: field.default for field in fields(Control)}


def left_out_controlnet(key: str, text: str) -> str:
    """The warning for a ControlNet whose picture is not there: what to write with it."""
    said = _said({found["key"].lower(): found["value"] for found in _PAIR.finditer(text)})
    entry = ", ".join(["image: …", *(f"{name}: {value}" for name, value in said.items())])
    return (
        f"{key} was left out: its picture is not in this text. To use it, add the picture and "
        f"'control: {{{shown(entry, 300)}}}'."
    )


def _said(values: dict[str, str]) -> dict[str, str]:
    """What a recipe says of it, without what is as usual."""
    module = values.get("module", values.get("preprocessor", "none"))
    preprocess = find_preprocessor(module)
    mode = find_mode(values.get("control mode", "balanced"))
    start, end = _numbers(values.get("starting/ending", ""), 2)
    said: dict[str, str | float | None] = {
        "model": _HASH.sub("", values.get("model", "…").strip()),
        # What picowatch cannot make, somebody has to bring.
        "preprocess": preprocess or "none",
        "mode": mode if mode in A1111_MODES else "balanced",
        "weight": _number(values.get("weight")),
        "start": _number(values.get("guidance start"), start),
        "end": _number(values.get("guidance end"), end),
    }
    _, *params = _numbers(values.get("preprocessor params", ""), 3)
    for name, letter, param in zip(THRESHOLDS.get(preprocess, ()), "ab", params, strict=False):
        said[name] = _number(values.get(f"threshold {letter}"), param)
    return {
        name: value if isinstance(value, str) else plain_number(value)
        for name, value in said.items()
        if value is not None and value != _USUAL[name]
    }


def _number(text: str | None, otherwise: float | None = None) -> float | None:
    found = number(text.strip()) if text else None
    return otherwise if found is None else found


def _numbers(text: str, count: int) -> list[float | None]:
    """ "(0, 1)"; None for each that is missing."""
    found = [_number(part) for part in text.strip("() ").split(",")]
    return [*found, *([None] * count)][:count]
