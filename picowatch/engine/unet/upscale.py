"""From the first pass's latents to larger ones, for the second pass of hires."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from picowatch.engine.unet import vae as vaes
from picowatch.engine.unet.noise import LATENT_FACTOR
from picowatch.errors import RenderFailed

# As A1111 names them (modules/shared_items.py, latent_upscale_modes).
_LATENT: dict[str, dict[str, Any]] = {
    "Latent": {"mode": "bilinear"},
    "Latent (nearest)": {"mode": "nearest"},
    "Latent (nearest-exact)": {"mode": "nearest-exact"},
    "Latent (bicubic)": {"mode": "bicubic"},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
}
_PIXELS = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}


def upscale(
    vae: Any, latents: torch.Tensor, upscaler: str, width: int, height: int
) -> torch.Tensor:
    """The images' latents for width x height pixels.

    Latent upscalers stretch the latents themselves: quick, and blurred or blocky until the
    second pass redraws them. The others decode, stretch the pixels, and encode again.
    """
    if upscaler in _LATENT:
        size = (height // LATENT_FACTOR, width // LATENT_FACTOR)
        return functional.interpolate(latents, size=size, **_LATENT[upscaler])
    if upscaler not in _PIXELS:
        raise RenderFailed(f"The engine has no upscaler {upscaler!r}.")
    resample = _PIXELS[upscaler]
    return _each(
        latents,
        lambda latent: vaes.encode(
            vae,
            np.asarray(Image.fromarray(vaes.decode(vae, latent)).resize((width, height), resample)),
            latents.device,
        ),
    )


def _each(latents: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """One by one: it saves memory, and a picture does not depend on its neighbours."""
    return torch.cat([change(latent[None]) for latent in latents])
