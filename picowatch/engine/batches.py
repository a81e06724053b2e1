"""Which images can share a batch, and how many. Imports no torch."""

from typing import Literal

from picowatch.recipe.fields import ROWS
from picowatch.recipe.request import ImageRequest

BatchKey = tuple[object, ...]

# Bounds of `batch_size: auto`: one picture of Stable Diffusion's native size fills a CPU, and
# small pictures gain little beyond eight (demo model, 2 cores: 0.37 s alone, 0.19 s in eights).
_AUTO_PIXELS = 8 * 128 * 128
_AUTO_LIMIT = 8
# Samplers of second order evaluate the UNet twice in each step but the last.
_SECOND_ORDER = {"Heun", "DPM2", "DPM2 a"}


def batch_key(request: ImageRequest) -> BatchKey:
    """Images with equal keys can be rendered in one batch.

    Every field that changes pixels is equal, unless the table lets it differ within a batch, and
    so are the hashes of checkpoint, VAE and LoRAs. Start images and masks may differ, but all
    images have one or none has. An image with `exact` shares with no other.
    """
    return (
        *(getattr(request, name) for name in _SAME),
        request.checkpoint_hash,
        request.vae_hash,
        bool(request.image),
        bool(request.mask),
        request.digest if request.exact else None,
    )


_SAME = [name for name, row in ROWS.items() if row.changes_pixels and row.batch == "same"]


def can_share_batch(first: ImageRequest, second: ImageRequest) -> bool:
    """True if one batch may contain both."""
    return not first.exact and not second.exact and batch_key(first) == batch_key(second)


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

    As in build_sampler: a start image, and the second pass of hires, take their strength's share
    of the steps, at least one.
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
    taken = min(int(steps * strength + 1e-9), steps)
    if strength > 0:
        taken = max(taken, 1)
    if sampler in _SECOND_ORDER:
        return max(0, 2 * taken - 1)
    return taken + 1 if sampler == "PNDM" and taken > 1 else taken
