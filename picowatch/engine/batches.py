"""How many images go into a batch at most, and what one costs. Imports no torch."""

from typing import Literal

from picowatch.recipe.passes import passes_of
from picowatch.recipe.request import ImageRequest

# Bounds of `batch_size: auto`: one picture of Stable Diffusion's native size fills a CPU, and
# small pictures gain little beyond eight (demo model, 2 cores: 0.37 s alone, 0.19 s in eights).
_AUTO_PIXELS = 8 * 128 * 128
_AUTO_LIMIT = 8


def batch_size_for(request: ImageRequest, setting: int | Literal["auto"]) -> int:
    """The most images like this one in a batch.

    `exact` means 1. A number is used as it is. "auto" begins with as many pictures as have
    131,072 pixels together, at most eight: eight of 128x128, two of 256x256, one of 512x512. That
    is safe everywhere; batch_sizes.py then measures. With hires the larger size counts.
    """
    if request.exact:
        return 1
    if setting != "auto":
        return max(1, setting)
    scale = max(1.0, request.hires.scale) if request.hires else 1.0
    pixels = int(request.width * request.height * scale * scale)
    return max(1, min(_AUTO_LIMIT, _AUTO_PIXELS // pixels))


def evaluations(request: ImageRequest) -> int:
    """How often the UNet is evaluated for an image; with guidance each evaluation is double."""
    return max(1, sum(one.evaluations for one in passes_of(request)))
