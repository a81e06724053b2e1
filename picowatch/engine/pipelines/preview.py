"""Previews of what a pipeline draws: where its latents are going, from two steps of their flow."""

from typing import Any

import torch

from picowatch.engine.previewer import Previewer

_FACTOR = 8  # pixels of a side for one of the latents'


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
