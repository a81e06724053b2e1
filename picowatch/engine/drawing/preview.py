"""Previews of a picture in progress: latents turned into colours by a small matrix.

The final latents are estimated from a UNet's prediction, or from a step of a flow.
"""

import json
from math import sqrt
from time import monotonic
from typing import Any

import torch
from torch.nn.functional import pixel_shuffle

from picowatch.catalog.parts import ASSETS
from picowatch.engine.model.vae import LATENT_FACTOR
from picowatch.engine.protocol import OnPreview, RgbPicture
from picowatch.families import DEMO_WIDTH, row

# The factors of each latent channel for red, green and blue, from -1 to 1, and three constants, by
# `preview` of families' rows. From ComfyUI at a125cd8, comfy/latent_formats.py,
# `latent_rgb_factors` of the classes SD15, SDXL, SD3, Flux and Wan21; comfy/supported_models.py has
# the families of each. The demo model's VAE has its own latents: its factors were fitted to
# drawings by ridge regression, and explain 73 % of the colours of 8x8 pixels. FLUX.2's are for
# latents that are not normalised; fitted to photos, they explain 57 % of the colours of others.
_FACTORS = json.loads((ASSETS / "previews.json").read_text("utf-8"))
COLOURS = {family: torch.tensor(factors) for family, factors in _FACTORS.items()}
COLOURS["sd2"] = COLOURS["sd1"]


class Previewer:
    """Shows a batch's first picture at most every so many seconds, 0: never; it only reads."""

    def __init__(self, on_preview: OnPreview, seconds: float = 0) -> None:
        self._on_preview, self.seconds = on_preview, seconds
        self._shown_at = monotonic()
        self._colours: torch.Tensor | None = COLOURS["sd1"]

    def follow(self, family: row.Family, denoiser: Any) -> None:
        """Set the family and denoiser of the next pictures."""
        # The demo model is loaded as a Stable Diffusion 1.x of another width.
        demo = family.kind == "unet" and denoiser.config.cross_attention_dim == DEMO_WIDTH
        self._colours = COLOURS.get(row.DEMO if demo else family.preview)

    def is_due(self) -> bool:
        """Return whether it is time for a preview, if there are any."""
        is_on = self.seconds > 0 and self._colours is not None
        return is_on and monotonic() - self._shown_at >= self.seconds

    def show(self, latents: torch.Tensor) -> None:
        """Show latents without noise, channels x height x width."""
        self._shown_at = monotonic()
        if self._colours is None or len(latents) != len(self._colours) - 1:
            return
        colours, here = self._colours, latents.float().cpu()  # the only copy that waits for a GPU
        picture = torch.einsum("chw,cr->hwr", here, colours[:-1]) + colours[-1]
        pixels = ((picture + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8).numpy()
        self._on_preview(RgbPicture(pixels.shape[1], pixels.shape[0], pixels.tobytes()))


def without_noise(
    scheduler: Any, scaled: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Return latents without noise by a prediction, equation 15 of https://arxiv.org/abs/2006.11239.

    Every scheduler scales the UNet's input to signal and noise as in that equation.
    """
    kept = float(scheduler.alphas_cumprod[int(timestep)])
    signal, noise = sqrt(kept), sqrt(1 - kept)
    noisy, predicted = scaled.float(), predicted.float()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * noisy - noise * predicted
    return (noisy - noise * predicted) / signal


def final_latents(scheduler: Any, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return the final latents of the first picture, as a step of a flow leads to them.

    A flow leads in a straight line from noise to picture, so the latents before and after a step,
    and their noise levels, give the final latents ("Flow Matching for Generative Modeling",
    https://arxiv.org/abs/2210.02747, section 4.1).
    """
    step = scheduler.step_index
    noisier, sigma = scheduler.sigmas[step - 1 : step + 1].tolist()  # a card waits
    earlier, now = before[0].float(), after[0].float()
    velocity = (now - earlier) / (sigma - noisier)
    final: torch.Tensor = now - sigma * velocity
    return final


def unpacked(
    latents: torch.Tensor, size: tuple[int, int], vae: Any, *, channels_last: bool
) -> torch.Tensor:
    """Return channels x height x width, from rows of 2x2 patches or from frames, too.

    FLUX.2's patches are normalised by its VAE's statistics; Ideogram's have the channels last.
    """
    if latents.ndim == 4:
        return latents[:, 0]
    bn, are_rows = getattr(vae, "bn", None), latents.ndim == 2
    if are_rows:
        sides = (side // LATENT_FACTOR // 2 for side in reversed(size))
        latents = latents.T.reshape(-1, *sides)
    if bn is not None:
        mean, variance = (each.float().view(-1, 1, 1) for each in (bn.running_mean, bn.running_var))
        latents = latents * (variance + bn.eps).sqrt() + mean
    if channels_last:
        latents = latents.view(4, -1, *latents.shape[1:]).transpose(0, 1).flatten(0, 1)
    return pixel_shuffle(latents, 2) if are_rows or bn is not None else latents
