"""From latents to pixels."""

from typing import Any

import torch

from picowatch.errors import RenderFailed

_REMEDY = "Set precision: float32, or precision: bfloat16 on a newer GPU."


def decode(vae: Any, latents: torch.Tensor) -> bytes:
    """One image's RGB pixels; RenderFailed rather than a black picture.

    Some VAEs overflow in float16. Such an image is decoded once more in float32, and the VAE
    goes back to what it was: the next picture must not depend on this one.
    """
    if not bool(torch.isfinite(latents).all()):
        raise RenderFailed(
            "The picture came out as no numbers (NaN): the checkpoint overflowed.", _REMEDY
        )
    decoded = _decoded(vae, latents)
    if not bool(torch.isfinite(decoded).all()) and vae.dtype != torch.float32:
        narrow = vae.dtype
        try:
            decoded = _decoded(vae.to(torch.float32), latents)
        finally:
            vae.to(narrow)
    if not bool(torch.isfinite(decoded).all()):
        raise RenderFailed("The picture came out as no numbers (NaN): the VAE overflowed.", _REMEDY)
    pixels = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels[0].permute(1, 2, 0).contiguous().cpu().numpy().tobytes()


def _decoded(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
    image: torch.Tensor = vae.decode(scaled).sample
    return image.float()
