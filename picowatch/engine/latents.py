"""Latents of Stable Diffusion: from and to pixels, and enlarged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from picowatch.engine.job import Enlarge
from picowatch.engine.noise import LATENT_FACTOR
from picowatch.errors import RenderFailed


def decode(vae: Any, latents: torch.Tensor) -> list[Image.Image]:
    """Decode images one by one: that saves memory, and no picture depends on its neighbours."""
    return [_decoded(vae, latent) for latent in latents[:, None] / vae.config.scaling_factor]


def _decoded(vae: Any, latents: torch.Tensor) -> Image.Image:
    def compute() -> torch.Tensor:
        sample: torch.Tensor = vae.decode(latents.to(vae.dtype)).sample
        return sample

    return as_picture((_widened(vae, compute)[0] + 1) / 2)


def as_picture(image: torch.Tensor) -> Image.Image:
    """A decoded image, RGB x height x width, 0 to 1. RenderFailed rather than a black picture."""
    _check_finite(image)
    levels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    return Image.fromarray(levels.cpu().numpy())


def _check_finite(numbers: torch.Tensor) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise RenderFailed(
            "The picture came out as invalid numbers (NaN): the checkpoint or its VAE overflowed.",
            "Set precision: float32, or precision: bfloat16 on a newer GPU.",
        )


def encode(vae: Any, pixels: NDArray[Any], device: torch.device) -> torch.Tensor:
    """One image's latents, 1 x 4 x height/8 x width/8, in float32.

    The mode of the encoder's distribution: a sample would take numbers from the seed.
    """
    image = torch.from_numpy(np.array(pixels)).to(device)
    image = (image.permute(2, 0, 1)[None].float() / 127.5) - 1

    def compute() -> torch.Tensor:
        found = vae.encode(image.to(vae.dtype))
        latents: torch.Tensor = (
            found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        )
        return latents

    found = _widened(vae, compute)
    _check_finite(found)
    return found * float(vae.config.scaling_factor)


def _widened(vae: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What the VAE computes, in float32; computed again in float32 if it overflowed.

    It is changed back: the next picture must not depend on this one.
    """
    result, narrow = compute().float(), vae.dtype
    if narrow != torch.float32 and not bool(torch.isfinite(result).all()):
        try:
            _change_type(vae, torch.float32)
            result = compute().float()
        finally:
            _change_type(vae, narrow)
    return result


def _change_type(vae: Any, dtype: torch.dtype) -> None:
    vae.to(dtype)
    # Where layers come to the device one after the other, diffusers has copies of their weights: it
    # makes them anew after a change of its own by this, which is all that there is for it.
    _maybe_remove_and_reapply_group_offloading(vae)


# A1111's names (modules/shared_items.py, latent_upscale_modes).
_LATENT: dict[str, dict[str, Any]] = {
    "Latent": {"mode": "bilinear"},
    "Latent (nearest)": {"mode": "nearest"},
    "Latent (nearest-exact)": {"mode": "nearest-exact"},
    "Latent (bicubic)": {"mode": "bicubic"},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
}


def upscale(
    vae: Any, latents: torch.Tensor, upscaler: str, size: tuple[int, int], enlarge: Enlarge
) -> torch.Tensor:
    """The images' latents for a picture of this width and height.

    Latent upscalers resize the latents themselves: fast, and blurred or blocky until the second
    pass redraws them. The others decode, `enlarge` the pixels, and encode again.
    """
    if upscaler in _LATENT:
        sides = (size[1] // LATENT_FACTOR, size[0] // LATENT_FACTOR)
        return functional.interpolate(latents, size=sides, **_LATENT[upscaler])
    larger = map(enlarge, decode(vae, latents))
    return torch.cat([encode(vae, np.asarray(each), latents.device) for each in larger])
