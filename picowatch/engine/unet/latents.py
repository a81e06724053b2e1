"""Latents: from and to pixels, and enlarged."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from picowatch.engine.drawn import Enlarge
from picowatch.engine.failures import out_of_memory
from picowatch.engine.unet.canvas import RESAMPLING, Bytes
from picowatch.engine.unet.tiling import wrapped
from picowatch.errors import RenderFailed

_REMEDY = "Set precision: float32, or precision: bfloat16 on a newer GPU."


class Decoded(NamedTuple):
    """One image's RGB pixels, height x width x 3.

    `flat`: its latents are exactly the same everywhere, or its colours are before they are rounded
    and cut off at black and white: of a plain picture, every pixel may be the same after that.
    """

    pixels: Bytes
    flat: bool


def decode(vae: Any, latents: torch.Tensor, *, repeats: bool = False) -> Bytes:
    """One image's RGB pixels; see `decoded`."""
    return decoded(vae, latents, repeats=repeats)[0].pixels


def decoded(vae: Any, latents: torch.Tensor, *, repeats: bool = False) -> list[Decoded]:
    """Images of latents; RenderFailed rather than a black picture.

    `repeats`: opposite edges meet, although the VAE decodes in tiles.
    """
    images = _in_slices(partial(_decoded, vae, repeats=repeats), latents)
    size = images.shape[2:]
    found: list[Decoded] = []
    for row, latent in zip(_packed(images, latents).cpu().numpy(), latents, strict=True):
        pixels, (latents_finite, image_finite, flat) = np.split(row, [-_FLAGS])
        if not latents_finite:
            raise RenderFailed(
                "The picture came out as invalid numbers (NaN): the checkpoint overflowed.",
                _REMEDY,
            )
        if not image_finite:
            image = _again(vae, partial(_decoded, vae, latent[None], repeats))
            levels = _levels(image)
            pixels, flat = _pixels(levels).cpu().numpy(), flat or bool(is_flat(image))
        found.append(Decoded(pixels.reshape(*size, 3), bool(flat)))
    return found


_FLAGS = 3
# Four pictures of 512 x 512, or one of 1024 x 1024.
_PIXELS_AT_ONCE = 2**20


def _in_slices(
    decode: Callable[[torch.Tensor], torch.Tensor], latents: torch.Tensor
) -> torch.Tensor:
    """The images: several small ones at once fill a card, and one at a time saves memory.

    On a processor one at a time is as fast, and none depends on its neighbours.
    """
    pixels = latents.shape[2] * latents.shape[3] * LATENT_FACTOR**2
    together = max(1, _PIXELS_AT_ONCE // pixels) if latents.device.type == "cuda" else 1
    if together > 1 and len(latents) > 1:
        try:
            return torch.cat([decode(part) for part in torch.split(latents, together)])
        except Exception as error:
            if not out_of_memory(error):
                raise
    # Not where it ran out: the traceback holds what filled the memory.
    return torch.cat([decode(latent[None]) for latent in latents])


def _packed(images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """A row for each: its pixels, and three bytes: latents finite, image finite, `flat`."""
    levels = _levels(images)
    finite = [torch.isfinite(each).flatten(1).all(1) for each in (latents, images)]
    checks = torch.stack([*finite, is_flat(latents) | is_flat(images)], dim=1)
    return torch.cat([_pixels(levels), checks.to(torch.uint8)], dim=1)


def is_flat(images: torch.Tensor) -> torch.Tensor:
    """Of each, whether it is the same everywhere."""
    return (images == images[:, :, :1, :1]).flatten(1).all(1)


def _levels(images: torch.Tensor) -> torch.Tensor:
    """Images of -1..1 as whole numbers of 0..255, or beyond where the VAE is."""
    return ((images + 1) * 127.5).round()


def _pixels(levels: torch.Tensor) -> torch.Tensor:
    """The levels as bytes, a row for each image, pixel after pixel."""
    return levels.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).flatten(1)


def _decoded(vae: Any, latents: torch.Tensor, repeats: bool) -> torch.Tensor:
    """What the VAE makes of latents, in float32."""

    def sample(latents: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = vae.decode(latents.to(vae.dtype)).sample
        return decoded

    scaled = latents / vae.config.scaling_factor
    return (wrapped(scaled, sample) if repeats else sample(scaled)).float()


def encode(vae: Any, pixels: NDArray[Any], device: torch.device) -> torch.Tensor:
    """One image's latents, 1 x 4 x height/8 x width/8, in float32.

    The mode of the encoder's distribution: a sample would take numbers from the seed.
    """
    image = torch.from_numpy(np.array(pixels)).to(device)
    image = (image.permute(2, 0, 1)[None].float() / 127.5) - 1
    latents = _finite(vae, lambda: vae.encode(image.to(vae.dtype)).latent_dist.mode())
    return latents * float(vae.config.scaling_factor)


def _finite(vae: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What the VAE computes, in float32."""
    result = compute().float()
    return result if bool(torch.isfinite(result).all()) else _again(vae, compute)


def _again(vae: Any, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What the VAE computes in float32, where it gave invalid numbers.

    Some VAEs overflow in float16. It is changed back: the next picture must not depend on this one.
    """
    narrow = vae.dtype
    if narrow != torch.float32:
        if vae.device.type == "cuda":  # other pictures of the batch may be decoded beside
            torch.cuda.synchronize(vae.device)
        try:
            vae.to(torch.float32)
            result = compute().float()
        finally:
            vae.to(narrow)
        if bool(torch.isfinite(result).all()):
            return result
    raise RenderFailed(
        "The picture came out as invalid numbers (NaN): the VAE overflowed.", _REMEDY
    )


LATENT_CHANNELS = 4
LATENT_FACTOR = 8

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
    width: int,
    height: int,
    by_model: Enlarge | None = None,
    *,
    repeats: bool = False,
) -> torch.Tensor:
    """The images' latents for width x height pixels.

    Latent upscalers resize the latents themselves: fast, and blurred or blocky until the second
    pass redraws them. The others decode, resize the pixels, and encode again; `by_model` does it
    where the upscaler is a model.
    """
    if upscaler in _LATENT:
        size = (height // LATENT_FACTOR, width // LATENT_FACTOR)
        return functional.interpolate(latents, size=size, **_LATENT[upscaler])
    if by_model is None and upscaler not in RESAMPLING:
        raise RenderFailed(f"The engine has no upscaler {upscaler!r}.")

    def enlarged(latent: torch.Tensor) -> torch.Tensor:
        picture = Image.fromarray(decode(vae, latent, repeats=repeats))
        larger = (
            by_model(picture) if by_model else picture.resize((width, height), RESAMPLING[upscaler])
        )
        return encode(vae, np.asarray(larger), latents.device)

    # One at a time saves memory, and a picture does not depend on its neighbours.
    return torch.cat([enlarged(latent[None]) for latent in latents])
