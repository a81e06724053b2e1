"""Previews of a picture in progress: latents to colours by one small matrix."""

from collections.abc import Callable
from math import sqrt
from time import monotonic
from typing import Any

import torch

from picowatch.engine.protocol import OnPreview, Preview

# What each latent channel adds to red, green and blue, from -1 to 1; the last row is the
# constant. Stable Diffusion 1.x: ComfyUI, comfy/latent_formats.py, class SD15,
# `latent_rgb_factors`.
SD1_COLOURS = (
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
    (0.0, 0.0, 0.0),
)
# Stable Diffusion XL: the same file, class SDXL.
SDXL_COLOURS = (
    (0.3920, 0.4054, 0.4549),
    (-0.2634, -0.0196, 0.0653),
    (0.0568, 0.1687, -0.0755),
    (-0.3112, -0.2359, -0.2076),
    (0.0, 0.0, 0.0),
)
# The demo model's VAE has latents of its own: fitted by least squares to ten of its pictures, of
# whose colours (8x8 pixels on average) it explains 77 %; the rows above are no better than grey.
DEMO_COLOURS = (
    (0.2162, -0.5511, 0.0622),
    (0.5367, -0.4958, -0.4755),
    (0.0611, 0.2783, 0.0888),
    (-0.2753, -0.3607, -0.4723),
    (0.2775, -0.0168, 0.0114),
)
_FULL_VAE_CHANNELS = 128  # in its first block; the demo's has fewer


class Previewer:
    """Shows a batch's first picture now and then; it only reads, so it changes no pixel."""

    def __init__(
        self,
        on_preview: OnPreview,
        seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`seconds` is the least time between two previews; 0 means none."""
        self._on_preview = on_preview
        self._seconds = seconds
        self._clock = clock
        self._shown_at = clock()
        self._colours = torch.tensor(SD1_COLOURS)

    def follow(self, vae: Any, family: str) -> None:
        """The next pictures are decoded by this VAE, from latents of this family."""
        is_demo = vae.config.block_out_channels[0] != _FULL_VAE_CHANNELS
        colours = SDXL_COLOURS if family == "sdxl" else DEMO_COLOURS if is_demo else SD1_COLOURS
        self._colours = torch.tensor(colours)

    def is_due(self) -> bool:
        """Whether it is time for a preview. Cheap, because it is called at each step."""
        return self._seconds > 0 and self._clock() - self._shown_at >= self._seconds

    def show(
        self, scheduler: Any, scaled: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor
    ) -> None:
        """Show what the UNet's prediction means for its first image: the picture without noise."""
        self._shown_at = self._clock()
        latents = _without_noise(scheduler, scaled[0, :4], predicted[0], timestep)
        colours = self._colours.to(latents.device)
        picture = torch.einsum("chw,cr->hwr", latents, colours[:-1]) + colours[-1]
        scaled_up = ((picture + 1) * 127.5).nan_to_num().clamp(0, 255)
        pixels = scaled_up.to(torch.uint8).cpu().numpy()
        self._on_preview(Preview(pixels.shape[1], pixels.shape[0], pixels.tobytes()))


def _without_noise(
    scheduler: Any, scaled: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor
) -> torch.Tensor:
    """Equation 15 of "Denoising Diffusion Probabilistic Models", https://arxiv.org/abs/2006.11239.

    Every scheduler scales the UNet's input to signal and noise of that equation.
    """
    kept = float(scheduler.alphas_cumprod[int(timestep)])
    signal, noise = sqrt(kept), sqrt(1 - kept)
    noisy, predicted = scaled.float(), predicted.float()
    if scheduler.config.prediction_type == "v_prediction":
        return signal * noisy - noise * predicted
    return (noisy - noise * predicted) / signal
