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
_SHAPE = re.compile(r"(\d{1,3}(?:\.\d{1,3})?) ?: ?(\d{1,3}(?:\.\d{1,3})?)")
_SIZE = re.compile(r"(\d{1,3}) ?[x/×] ?(\d{1,3})")  # written in place of a shape
_NAMED = re.compile(rf"({'|'.join(SIDES)}) (\d{{1,3}}\.\d{{1,2}}|\d{{1,5}}) ?(%|px)?")


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
    if len(parts) == 1 and (shape := _shape(parts[0])):
        return f"{shape[1]}:{shape[2]}"
    if len(parts) == 1 and _NAMED.fullmatch(f"left {parts[0]}"):
        parts = [f"{side} {parts[0]}" for side in SIDES]
    named = [found for part in parts if (found := _NAMED.fullmatch(part))]
    sides = [found[1] for found in named]
    if twice := next((side for side in sides if sides.count(side) > 1), ""):
        raise ValueInvalid(f"extend has {twice} twice. Keep one.")
    if len(named) < len(parts):
        instead = _SIZE.sub(r" Write \1:\2.", parts[0]) if _SIZE.fullmatch(parts[0]) else ""
        raise ValueInvalid(f"extend takes {WANTED}.{instead}")
    named.sort(key=lambda found: SIDES.index(found[1]))
    texts = [f"{m[1]} {m[2]}{' %' if m[3] == '%' else ''}" for m in named if float(m[2])]
    if not texts:
        raise ValueInvalid(f"extend adds nothing. It takes {WANTED}.")
    return ", ".join(texts)


def margins_of(extend: str, size: tuple[int, int]) -> Margins:
    """Return the pixels around a picture, alike on both sides for a shape. Raises ValueInvalid."""
    if shape := _shape(extend):
        ratio = float(shape[1]) / float(shape[2])
        wide = max(0, round(size[1] * ratio) - size[0])
        high = 0 if wide else max(0, round(size[0] / ratio) - size[1])
        found = Margins(wide // 2, high // 2, wide - wide // 2, high - high // 2)
    else:
        pixels = dict.fromkeys(SIDES, 0)
        for side, number, unit in _NAMED.findall(extend):
            of = size[SIDES.index(side) % 2]
            pixels[side] = round(float(number) / 100 * of if unit == "%" else float(number))
        found = Margins(**pixels)
    if not any(found):
        why = ", which has that shape" if shape else ""
        raise ValueInvalid(f"extend: {extend} adds nothing to {size[0]}x{size[1]}{why}.")
    if any(margin > MOST * size[i % 2] for i, margin in enumerate(found)):
        what = f"extend: {extend} adds more than {MOST} times the side of {size[0]}x{size[1]}."
        less = "a shape nearer to its own" if shape else "less"
        raise ValueInvalid(f"{what} Crop it, or write {less}.")
    return found


def _shape(text: str) -> re.Match[str] | None:
    """Return the two numbers of a shape, neither of which is 0; None for another text."""
    found = _SHAPE.fullmatch(text)
    return found if found and all(map(float, found.groups())) else None
