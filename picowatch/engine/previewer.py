"""Previews of a picture in progress: latents to colours by one small matrix.

Where its latents are going is what a UNet predicts, or what two steps of a flow tell.
"""

from collections.abc import Callable
from math import sqrt
from time import monotonic
from typing import Any

import torch

from picowatch.engine.colours import COLOURS, SD1
from picowatch.engine.protocol import OnPreview, Preview
from picowatch.families import UNETS

_FULL_VAE_CHANNELS = 128  # in its first block; the demo's has fewer
_FACTOR = 8  # pixels of a side for one of the latents'


class Previewer:
    """Shows a batch's first picture now and then; it only reads, so it changes no pixel.

    `seconds` is the least time between two previews; 0 means none.
    """

    seconds: float = 0

    def __init__(
        self,
        on_preview: OnPreview,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._on_preview = on_preview
        self._clock = clock
        self._shown_at = clock()
        self._colours: torch.Tensor | None = torch.tensor(SD1)

    def follow(self, vae: Any, family: str) -> None:
        """The next pictures are decoded by this VAE, from latents of this family."""
        if family in UNETS and vae.config.block_out_channels[0] != _FULL_VAE_CHANNELS:
            family = "demo"
        colours = COLOURS.get(family)
        self._colours = None if colours is None else torch.tensor(colours)

    @property
    def is_on(self) -> bool:
        """Whether there is to be any preview of what it follows."""
        return self.seconds > 0 and self._colours is not None

    def is_due(self) -> bool:
        """Whether it is time for a preview. Cheap, because it is called at each step."""
        return self.is_on and self._clock() - self._shown_at >= self.seconds

    def show(
        self, scheduler: Any, scaled: torch.Tensor, predicted: torch.Tensor, timestep: torch.Tensor
    ) -> None:
        """Show what the UNet's prediction means for its first image: the picture without noise."""
        self.show_latents(_without_noise(scheduler, scaled[0, :4], predicted[0], timestep))

    def show_latents(self, latents: torch.Tensor) -> None:
        """Show latents without noise, channels x height x width."""
        self._shown_at = self._clock()
        if self._colours is None or len(latents) != len(self._colours) - 1:
            return
        colours, here = self._colours, latents.float().cpu()  # the one copy that waits for a GPU
        picture = torch.einsum("chw,cr->hwr", here, colours[:-1]) + colours[-1]
        pixels = ((picture + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8).numpy()
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


class FlowPreview:
    """Looks at one pass; it only reads, so it changes no pixel.

    A flow leads straight from noise to picture, in the latents' own numbers: what is left to go at
    the noise level of a step follows from that step ("Flow Matching for Generative Modeling",
    https://arxiv.org/abs/2210.02747, section 4.1).
    """

    def __init__(self, previewer: Previewer, width: int, height: int) -> None:
        self._previewer = previewer
        self._side = (height // _FACTOR, width // _FACTOR)
        self._before: tuple[torch.Tensor, float] | None = None

    def after_step(self, scheduler: Any, latents: torch.Tensor) -> None:
        """Keep the first picture's latents, and show what they lead to if it is time."""
        if not self._previewer.is_on:
            return
        sigma = float(scheduler.sigmas[scheduler.step_index])
        now = latents[0].float()
        before, self._before = self._before, (now, sigma)
        if before and self._previewer.is_due():
            earlier, noisier = before
            velocity = (now - earlier) / (sigma - noisier)
            self._previewer.show_latents(self._unpacked(now - sigma * velocity))

    def _unpacked(self, latents: torch.Tensor) -> torch.Tensor:
        """Channels x height x width: some pipelines keep patches of 2 x 2 as rows, some frames."""
        if latents.ndim == 2:
            height, width = (side // 2 for side in self._side)
            patches = latents.view(height, width, -1, 2, 2).permute(2, 0, 3, 1, 4)
            return patches.reshape(-1, 2 * height, 2 * width)
        return latents[:, 0] if latents.ndim == 4 else latents
