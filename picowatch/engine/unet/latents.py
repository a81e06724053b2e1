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
from picowatch.engine.unet.canvas import Bytes
from picowatch.engine.unet.tiling import wrapped
from picowatch.errors import RenderFailed

_REMEDY = "Set precision: float32, or precision: bfloat16 on a newer GPU."


class Decoded(NamedTuple):
    """One image's RGB pixels, height x width x 3; `flat`: its latents are the same everywhere."""

    pixels: Bytes
    flat: bool


def decode(vae: Any, latents: torch.Tensor, *, repeats: bool = False) -> Bytes:
    """One image's RGB pixels; see `decode_all`."""
    return decode_all(vae, latents, repeats=repeats)[0].pixels


def decode_all(vae: Any, latents: torch.Tensor, *, repeats: bool = False) -> list[Decoded]:
    """The images of these latents; RenderFailed rather than a black picture.

    One at a time saves memory, and none depends on its neighbours. All go to the computer's memory
    in one copy, with what is to be known of them: each copy waits for the GPU.

    `repeats`: opposite edges meet, although the VAE decodes in tiles.
    """
    images = [_decoded(vae, latent[None], repeats) for latent in latents]
    packed = torch.stack([_packed(*each) for each in zip(images, latents, strict=True)]).cpu()
    height, width = images[0].shape[2:]
    found: list[Decoded] = []
    for row, latent in zip(packed.numpy(), latents, strict=True):
        pixels, (latents_finite, image_finite, flat) = np.split(row, [-_FLAGS])
        if not latents_finite:
            raise RenderFailed(
                "The picture came out as invalid numbers (NaN): the checkpoint overflowed.", _REMEDY
            )
        if not image_finite:
            image = _again(vae, partial(_decoded, vae, latent[None], repeats))
            pixels = _pixels(image).cpu().numpy()
        found.append(Decoded(pixels.reshape(height, width, 3), bool(flat)))
    return found


_FLAGS = 3


def _packed(image: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """Pixels in a row, and three bytes: latents finite, image finite, latents flat."""
    flags = [
        torch.isfinite(latent).all(),
        torch.isfinite(image).all(),
        (latent == latent[:, :1, :1]).all(),
    ]
    return torch.cat([_pixels(image), torch.stack(flags).to(torch.uint8)])


def _pixels(image: torch.Tensor) -> torch.Tensor:
    """An image of -1..1 as bytes in a row, pixel after pixel."""
    scaled = ((image + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return scaled[0].permute(1, 2, 0).flatten()


def _decoded(vae: Any, latent: torch.Tensor, repeats: bool) -> torch.Tensor:
    """What the VAE makes of one image's latents, in float32."""

    def sample(latents: torch.Tensor) -> torch.Tensor:
        decoded: torch.Tensor = vae.decode(latents.to(vae.dtype)).sample
        return decoded

    scaled = latent / vae.config.scaling_factor
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
}
_PIXELS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}


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
    if by_model is None and upscaler not in _PIXELS:
        raise RenderFailed(f"The engine has no upscaler {upscaler!r}.")

    def enlarged(latent: torch.Tensor) -> torch.Tensor:
        picture = Image.fromarray(decode(vae, latent, repeats=repeats))
        larger = (
            by_model(picture) if by_model else picture.resize((width, height), _PIXELS[upscaler])
        )
        return encode(vae, np.asarray(larger), latents.device)

    return _each(latents, enlarged)


def _each(latents: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """One at a time saves memory, and a picture does not depend on its neighbours."""
    return torch.cat([change(latent[None]) for latent in latents])
