"""Latents of Stable Diffusion: from and to pixels, and enlarged."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from picowatch.engine.canvas import RESAMPLING, Bytes
from picowatch.engine.job import Enlarge
from picowatch.engine.noise import LATENT_FACTOR
from picowatch.engine.protocol import ControlMap
from picowatch.engine.tiling import wrapped
from picowatch.errors import RenderFailed

_REMEDY = "Set precision: float32, or precision: bfloat16 on a newer GPU."


class Decoded(NamedTuple):
    """One image's RGB pixels, height x width x 3.

    `flat`: its latents are exactly the same everywhere, or its colours are before they are rounded
    and cut off at black and white: of a plain picture, every pixel may be the same after that.
    `control_maps` are those that its ControlNets followed and the request wants to see.
    """

    pixels: Bytes
    flat: bool
    control_maps: tuple[ControlMap, ...] = ()


def decode(vae: Any, latents: torch.Tensor, *, repeats: bool = False) -> list[Decoded]:
    """Decode images one by one: that saves memory, and no picture depends on its neighbours.

    `repeats`: opposite edges meet, although the VAE decodes in tiles. RenderFailed rather than a
    black picture.
    """
    return [_decoded(vae, latent[None], repeats=repeats) for latent in latents]


def _decoded(vae: Any, latents: torch.Tensor, *, repeats: bool) -> Decoded:
    if not bool(torch.isfinite(latents).all()):
        raise RenderFailed(
            "The picture came out as invalid numbers (NaN): the checkpoint overflowed.", _REMEDY
        )

    def sample(latents: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = vae.decode(latents.to(vae.dtype)).sample
        return decoded

    def image() -> torch.Tensor:
        scaled = latents / vae.config.scaling_factor
        return wrapped(scaled, sample) if repeats else sample(scaled)

    found = _finite(vae, image)
    return Decoded(_pixels(found), is_flat(latents) or is_flat(found))


def is_flat(images: torch.Tensor) -> bool:
    """Whether the one image, or its latents, are the same everywhere."""
    return bool((images == images[:, :, :1, :1]).all())


def _pixels(image: torch.Tensor) -> Bytes:
    """The bytes of one image of -1..1, height x width x RGB."""
    levels = ((image[0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    found: Bytes = levels.permute(1, 2, 0).contiguous().cpu().numpy()
    return found


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

    return _finite(vae, compute) * float(vae.config.scaling_factor)


def _finite(vae: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What the VAE computes, in float32; computed again in float32 if it overflowed.

    It is changed back: the next picture must not depend on this one.
    """
    result = compute().float()
    narrow = vae.dtype
    if not bool(torch.isfinite(result).all()) and narrow != torch.float32:
        try:
            _change_type(vae, torch.float32)
            result = compute().float()
        finally:
            _change_type(vae, narrow)
    if not bool(torch.isfinite(result).all()):
        raise RenderFailed(
            "The picture came out as invalid numbers (NaN): the VAE overflowed.", _REMEDY
        )
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
    vae: Any,
    latents: torch.Tensor,
    upscaler: str,
    size: tuple[int, int],
    by_model: Enlarge | None = None,
    *,
    repeats: bool = False,
) -> torch.Tensor:
    """The images' latents for a picture of this width and height.

    Latent upscalers resize the latents themselves: fast, and blurred or blocky until the second
    pass redraws them. The others decode, resize the pixels, and encode again; `by_model` does it
    where the upscaler is a model.
    """
    width, height = size
    if upscaler in _LATENT:
        sides = (height // LATENT_FACTOR, width // LATENT_FACTOR)
        return functional.interpolate(latents, size=sides, **_LATENT[upscaler])
    if by_model is None and upscaler not in RESAMPLING:
        raise RenderFailed(f"The engine has no upscaler {upscaler!r}.")

    def enlarged(decoded: Decoded) -> torch.Tensor:
        picture = Image.fromarray(decoded.pixels)
        larger = by_model(picture) if by_model else picture.resize(size, RESAMPLING[upscaler])
        return encode(vae, np.asarray(larger), latents.device)

    return torch.cat([enlarged(one) for one in decode(vae, latents, repeats=repeats)])
