"""`extend`: how much is drawn around a picture, as margins or as the shape of the whole."""

import re
from typing import NamedTuple

from picowatch.errors import ValueInvalid
from picowatch.recipe.converters import form
from picowatch.recipe.written import SourceValue

SIDES = ("left", "top", "right", "bottom")
WANTED = (
    "margins like {left: 256, bottom: 25 %}, a margin for each side like 128, or a shape like 16:9"
)
# The JSON Schema of a margin.
MARGIN = form("number string", r"\d{1,5}(?:\.\d{1,2})? ?(?:%|px)?")
MOST = 4  # times a side of the picture, on each side of it
_MARGIN = re.compile(r"(\d{1,5}|\d{1,3}(?:\.\d{1,2})?) ?(%|px)?")
_SHAPE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?: ?(\d{1,3}(?:\.\d{1,3})?)")
_SIZE = re.compile(r"(\d{1,3}) ?[x/×] ?(\d{1,3})")  # written in place of a shape
_NAMED = re.compile(r"(left|top|right|bottom) (.+)")


class Margins(NamedTuple):
    left: int  # in pixels, as the others
    top: int
    right: int
    bottom: int

    def around(self, size: tuple[int, int]) -> tuple[int, int]:
        return size[0] + self.left + self.right, size[1] + self.top + self.bottom


def extend_in(written: SourceValue) -> str:
    """Return margins or a shape as text: `16:9`, `left 256, bottom 25 %`. Raises ValueInvalid."""
    if written.says_off:
        return ""
    parts = [f"{name.strip().casefold()} {part.text.strip()}" for name, part in written.pairs]
    parts = parts or [part.strip() for part in written.text.casefold().split(",")]
    shape = _SHAPE.fullmatch(parts[0]) if len(parts) == 1 else None
    if shape and all(map(float, shape.groups())):
        return f"{shape[1]}:{shape[2]}"
    if len(parts) == 1 and _MARGIN.fullmatch(parts[0]):
        parts = [f"{side} {parts[0]}" for side in SIDES]
    named = [_NAMED.fullmatch(part) for part in parts]
    sides = [found[1] for found in named if found]
    if twice := next((side for side in sides if sides.count(side) > 1), ""):
        raise ValueInvalid(f"extend has {twice} twice. Keep one.")
    margins = {found[1]: _MARGIN.fullmatch(found[2]) for found in named if found}
    if len(margins) < len(parts) or not all(margins.values()):
        instead = _SIZE.sub(r" Write \1:\2.", parts[0]) if _SIZE.fullmatch(parts[0]) else ""
        raise ValueInvalid(f"extend takes {WANTED}.{instead}")
    given = {side: found for side in SIDES if (found := margins.get(side)) and float(found[1])}
    texts = {side: f"{m[1]} %" if m[2] == "%" else m[1] for side, m in given.items()}
    if not texts:
        raise ValueInvalid(f"extend adds nothing. It takes {WANTED}.")
    return ", ".join(f"{side} {text}" for side, text in texts.items())


def margins_of(extend: str, size: tuple[int, int]) -> Margins:
    """Return the pixels around a picture, alike on both sides for a shape. Raises ValueInvalid."""
    if shape := _SHAPE.fullmatch(extend):
        ratio = float(shape[1]) / float(shape[2])
        wide = max(0, round(size[1] * ratio) - size[0])
        high = 0 if wide else max(0, round(size[0] / ratio) - size[1])
        found = Margins(wide // 2, high // 2, wide - wide // 2, high - high // 2)
    else:
        texts = dict(part.split(" ", 1) for part in extend.split(", "))
        found = Margins(*(_pixels(texts.get(s, "0"), size[i % 2]) for i, s in enumerate(SIDES)))
    if not any(found):
        why = ", which has that shape" if shape else ""
        raise ValueInvalid(f"extend: {extend} adds nothing to {size[0]}x{size[1]}{why}.")
    if any(margin > MOST * size[i % 2] for i, margin in enumerate(found)):
        what = f"extend: {extend} adds more than {MOST} times the side of {size[0]}x{size[1]}."
        less = "a shape nearer to its own" if shape else "less"
        raise ValueInvalid(f"{what} Crop it, or write {less}.")
    return found


def _pixels(text: str, side: int) -> int:
    number = float(text.removesuffix(" %"))
    return round(number / 100 * side if text.endswith("%") else number)
