"""`resize_to`: the size that a finished picture gets, by resampling alone."""

from functools import partial
from typing import Annotated, Literal, NamedTuple

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

from picowatch.recipe.converters import ground_in
from picowatch.recipe.parts import row

LEAST_SIDE, MOST_SIDE = 8, 30_000  # pixels that one can ask for
TRANSPARENT = "transparent"

Size = tuple[int, int]
_Side = Annotated[int, Field(strict=True, ge=LEAST_SIDE, le=MOST_SIDE)] | None
_side = partial(row, None, wanted=f"a whole number of pixels from {LEAST_SIDE} to {MOST_SIDE}")


class Placed(NamedTuple):
    """How a picture becomes the result: the part `box` of it, in the size `inner`, on `size`."""

    box: tuple[float, float, float, float]
    inner: Size
    size: Size


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ResizeTo:
    """The size of the result: what the mapping `resize_to` can say. All limits hold at once."""

    longest_side: _Side = _side("The longer side has at most so many pixels.")
    shortest_side: _Side = _side("The shorter side has at most so many pixels.")
    width: _Side = _side("It is at most so wide.")
    height: _Side = _side("It is at most so high.")
    megapixels: Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] | None = (
        row(None, "It has at most so many million pixels.", aliases=("mp",))
    )
    fit: Literal["inside", "cover", "pad"] = row(
        "inside",
        "inside: all of it, in its own shape; cover: what is too much for width and height is cut "
        "off on two sides; pad: it stands in the middle of width and height.",
    )
    background: str = row(
        "",
        "What is behind it, and around it with pad.",
        reads=ground_in,
        wanted='transparent, white, black, or a colour in quotes like "#f4f4f4"',
        default_text="white; transparent where the picture is",
    )
    enlarge: bool = row(False, "true: smaller pictures become larger, too.")

    def size_of(self, width: int, height: int) -> Size:
        return self.placed(width, height).size

    def is_transparent(self, before: bool) -> bool:
        """Return whether the result may be transparent, if the picture is so, or not."""
        if self.background == TRANSPARENT:
            return before or self.fit == "pad"
        return before and not self.background

    def placed(self, width: int, height: int) -> Placed:
        """Return how a picture of this size becomes the result."""
        whole = (0.0, 0.0, float(width), float(height))
        if self.fit == "inside" or not (self.width and self.height):
            inner = self._inside(width, height)
            return Placed(whole, inner, inner)
        wanted = self.width, self.height
        scales = wanted[0] / width, wanted[1] / height
        most = max(scales) if self.enlarge else 1.0
        if self.fit == "pad":
            inner = _scaled(width, height, min(*scales, most))
            return Placed(whole, (min(inner[0], wanted[0]), min(inner[1], wanted[1])), wanted)
        # The result has the wanted shape even where the picture is too small for its size.
        scale = max(scales)
        size = wanted if scale <= most else _scaled(*wanted, most / scale)
        wide, high = min(width, wanted[0] / scale), min(height, wanted[1] / scale)
        left, top = (width - wide) / 2, (height - high) / 2
        return Placed((left, top, left + wide, top + high), size, size)

    def _inside(self, width: int, height: int) -> Size:
        scales = [
            limit / side
            for limit, side in (
                (self.longest_side, max(width, height)),
                (self.shortest_side, min(width, height)),
                (self.width, width),
                (self.height, height),
            )
            if limit
        ]
        most = round((self.megapixels or 0) * 1_000_000)
        scales += [(most / (width * height)) ** 0.5] if most else []
        scale = min(scales, default=1.0)
        if scale >= 1 and not self.enlarge:
            return width, height
        size = _scaled(width, height, scale)
        if most and size[0] * size[1] > most:  # rounded up
            size = max(1, int(width * scale)), max(1, int(height * scale))
        return size


def _scaled(width: int, height: int, scale: float) -> Size:
    return max(1, round(width * scale)), max(1, round(height * scale))
