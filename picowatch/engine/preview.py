"""Previews of a picture in progress: latents to colours by one small matrix.

Where its latents are going is what a UNet predicts, or what two steps of a flow tell.
"""

from collections.abc import Callable
from math import sqrt
from time import monotonic
from typing import Any

import torch

from picowatch.engine.latents import LATENT_FACTOR
from picowatch.engine.protocol import OnPreview, Preview
from picowatch.families import DEMO, DEMO_WIDTH, Family

# What each latent channel adds to red, green and blue, from -1 to 1; the last row is the constant.
# From ComfyUI at a125cd8, comfy/latent_formats.py, `latent_rgb_factors` of the classes SD15, SDXL,
# SD3, Flux and Wan21; comfy/supported_models.py says which families have which. By the names that
# the rows of `picowatch.families` have; other families have no preview.
COLOURS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "sd1": (
        (0.3512, 0.2297, 0.3227),
        (0.3250, 0.4974, 0.2350),
        (-0.2829, 0.1762, 0.2721),
        (-0.2120, -0.2616, -0.7177),
        (0.0, 0.0, 0.0),
    ),
    "sdxl": (
        (0.3651, 0.4232, 0.4341),
        (-0.2533, -0.0042, 0.1068),
        (0.1076, 0.1111, -0.0362),
        (-0.3165, -0.2492, -0.2188),
        (0.1084, -0.0175, -0.0011),
    ),
    "sd3": (
        (-0.0922, -0.0175, 0.0749),
        (0.0311, 0.0633, 0.0954),
        (0.1994, 0.0927, 0.0458),
        (0.0856, 0.0339, 0.0902),
        (0.0587, 0.0272, -0.0496),
        (-0.0006, 0.1104, 0.0309),
        (0.0978, 0.0306, 0.0427),
        (-0.0042, 0.1038, 0.1358),
        (-0.0194, 0.0020, 0.0669),
        (-0.0488, 0.0130, -0.0268),
        (0.0922, 0.0988, 0.0951),
        (-0.0278, 0.0524, -0.0542),
        (0.0332, 0.0456, 0.0895),
        (-0.0069, -0.0030, -0.0810),
        (-0.0596, -0.0465, -0.0293),
        (-0.1448, -0.1463, -0.1189),
        (0.2394, 0.2135, 0.1925),
    ),
    "flux": (
        (-0.0346, 0.0244, 0.0681),
        (0.0034, 0.0210, 0.0687),
        (0.0275, -0.0668, -0.0433),
        (-0.0174, 0.0160, 0.0617),
        (0.0859, 0.0721, 0.0329),
        (0.0004, 0.0383, 0.0115),
        (0.0405, 0.0861, 0.0915),
        (-0.0236, -0.0185, -0.0259),
        (-0.0245, 0.0250, 0.1180),
        (0.1008, 0.0755, -0.0421),
        (-0.0515, 0.0201, 0.0011),
        (0.0428, -0.0012, -0.0036),
        (0.0817, 0.0765, 0.0749),
        (-0.1264, -0.0522, -0.1103),
        (-0.0280, -0.0881, -0.0499),
        (-0.1262, -0.0982, -0.0778),
        (-0.0329, -0.0718, -0.0851),
    ),
    "wan": (
        (-0.1299, -0.1692, 0.2932),
        (0.0671, 0.0406, 0.0442),
        (0.3568, 0.2548, 0.1747),
        (0.0372, 0.2344, 0.1420),
        (0.0313, 0.0189, -0.0328),
        (0.0296, -0.0956, -0.0665),
        (-0.3477, -0.4059, -0.2925),
        (0.0166, 0.1902, 0.1975),
        (-0.0412, 0.0267, -0.1364),
        (-0.1293, 0.0740, 0.1636),
        (0.0680, 0.3019, 0.1128),
        (0.0032, 0.0581, 0.0639),
        (-0.1251, 0.0927, 0.1699),
        (0.0060, -0.0633, 0.0005),
        (0.3477, 0.2275, 0.2950),
        (0.1984, 0.0913, 0.1861),
        (-0.1835, -0.0868, -0.3360),
    ),
    # The demo model's VAE has latents of its own. Ridge regression fitted these to
    # drawings; they explain 73 % of the colours of 8x8 pixels.
    DEMO: (
        (0.2486, 0.1663, 0.2076),
        (-0.4898, -0.2013, 0.2605),
        (-0.1255, 0.1265, -0.1159),
        (-0.1343, 0.2653, 0.2863),
        (0.2458, -0.0410, -0.0489),
    ),
}


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
        self._colours: torch.Tensor | None = torch.tensor(COLOURS["sd1"])

    def follow(self, row: Family, denoiser: Any) -> None:
        """The next pictures are drawn by this denoiser, in latents of this family."""
        # To the loader, the demo model is a Stable Diffusion 1.x of another width.
        demo = row.kind == "unet" and denoiser.config.cross_attention_dim == DEMO_WIDTH
        colours = DEMO if demo else row.preview
        self._colours = torch.tensor(COLOURS[colours]) if colours in COLOURS else None

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
        """Show what the UNet's prediction means for one image: the picture without noise."""
        self.show_latents(_without_noise(scheduler, scaled, predicted, timestep))

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
        self._side = (height // LATENT_FACTOR, width // LATENT_FACTOR)
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
