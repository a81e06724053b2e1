"""How many images go into a batch at most, and what one costs. Imports no torch."""

from typing import Literal

from picowatch.recipe.request import ImageRequest

# Bounds of `batch_size: auto`: one picture of Stable Diffusion's native size fills a CPU, and
# small pictures gain little beyond eight (demo model, 2 cores: 0.37 s alone, 0.19 s in eights).
_AUTO_PIXELS = 8 * 128 * 128
_AUTO_LIMIT = 8
# Samplers of second order evaluate the UNet twice in each step but the last.
_SECOND_ORDER = {"Heun", "DPM2", "DPM2 a", "DPM++ 2S a"}


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
    """How often the UNet is evaluated for an image; with guidance each evaluation is double.

    A start image, and the second pass of hires, take their strength's share of the steps.
    """
    hires = request.hires
    strength = request.denoising_strength if request.image else 1.0
    count = _evaluations(request.sampler, request.steps, strength)
    if hires:
        steps = hires.steps or request.steps
        count += _evaluations(request.sampler, steps, hires.denoising_strength)
    return max(1, count)


def _evaluations(sampler: str, steps: int, strength: float) -> int:
    """Those of one pass."""
    taken = steps_taken(steps, strength)
    if sampler in _SECOND_ORDER:
        return max(0, 2 * taken - 1)
    return taken + 1 if sampler == "PNDM" and taken > 1 else taken


def steps_taken(steps: int, strength: float) -> int:
    """The share `strength` of the steps; at least one, but none for 0."""
    taken = min(int(steps * strength + 1e-9), steps)  # 0.29 * 100 is 28.999…
    return max(taken, 1) if strength > 0 else taken
