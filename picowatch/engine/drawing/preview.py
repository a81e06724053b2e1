"""Previews of a picture in progress: latents turned into colours by one small matrix.

The final latents are estimated from a UNet's prediction, or from a step of a flow.
"""

from math import sqrt
from time import monotonic
from typing import Any

import torch
from torch.nn.functional import pixel_shuffle

from picowatch.engine.model.vae import LATENT_FACTOR
from picowatch.engine.protocol import OnPreview, RgbPicture
from picowatch.families import DEMO_WIDTH, row

# The factors of each latent channel for red, green and blue, from -1 to 1, and three constants.
# From ComfyUI at a125cd8, comfy/latent_formats.py, `latent_rgb_factors` of the classes SD15, SDXL,
# SD3, Flux and Wan21; comfy/supported_models.py has the families of each. The keys are `preview` of
# families' rows. The demo model's VAE has its own latents: its factors were fitted to drawings by
# ridge regression, and explain 73 % of the colours of 8x8 pixels. FLUX.2's are for latents that are
# not normalised; fitted to photos, they explain 57 % of the colours of others.
COLOURS = {
    family: torch.tensor([float(number) for number in numbers.split()]).view(-1, 3)
    for family, numbers in {
        "sd1": """
             .3512  .2297  .3227   .3250  .4974  .2350  -.2829  .1762  .2721  -.2120 -.2616 -.7177
             .0000  .0000  .0000
        """,
        "sdxl": """
             .3651  .4232  .4341  -.2533 -.0042  .1068   .1076  .1111 -.0362  -.3165 -.2492 -.2188
             .1084 -.0175 -.0011
        """,
        row.SD3_VAE: """
            -.0922 -.0175  .0749   .0311  .0633  .0954   .1994  .0927  .0458   .0856  .0339  .0902
             .0587  .0272 -.0496  -.0006  .1104  .0309   .0978  .0306  .0427  -.0042  .1038  .1358
            -.0194  .0020  .0669  -.0488  .0130 -.0268   .0922  .0988  .0951  -.0278  .0524 -.0542
             .0332  .0456  .0895  -.0069 -.0030 -.0810  -.0596 -.0465 -.0293  -.1448 -.1463 -.1189
             .2394  .2135  .1925
        """,
        row.FLUX_VAE: """
            -.0346  .0244  .0681   .0034  .0210  .0687   .0275 -.0668 -.0433  -.0174  .0160  .0617
             .0859  .0721  .0329   .0004  .0383  .0115   .0405  .0861  .0915  -.0236 -.0185 -.0259
            -.0245  .0250  .1180   .1008  .0755 -.0421  -.0515  .0201  .0011   .0428 -.0012 -.0036
             .0817  .0765  .0749  -.1264 -.0522 -.1103  -.0280 -.0881 -.0499  -.1262 -.0982 -.0778
            -.0329 -.0718 -.0851
        """,
        row.QWEN_VAE: """
            -.1299 -.1692  .2932   .0671  .0406  .0442   .3568  .2548  .1747   .0372  .2344  .1420
             .0313  .0189 -.0328   .0296 -.0956 -.0665  -.3477 -.4059 -.2925   .0166  .1902  .1975
            -.0412  .0267 -.1364  -.1293  .0740  .1636   .0680  .3019  .1128   .0032  .0581  .0639
            -.1251  .0927  .1699   .0060 -.0633  .0005   .3477  .2275  .2950   .1984  .0913  .1861
            -.1835 -.0868 -.3360
        """,
        row.FLUX2_VAE: """
            -.0409 -.0176 -.0182  -.0096 -.0260  .0186  -.0237  .0071  .0650   .2120  .2636  .3129
            -.0062 -.0453 -.0478  -.0171 -.0105 -.0411  -.0706  .1246 -.0479   .0054  .0035  .0060
            -.2939 -.2517 -.1832  -.0023 -.0428 -.0606   .0022 -.0104 -.0270   .0767 -.0043 -.1288
             .0284  .0276  .0361  -.0163 -.0362 -.0355   .0140  .0395  .0384  -.0434  .0087  .0143
             .0173  .0120  .0034   .0428  .0035 -.0351  -.0065 -.0220 -.0121   .0594 -.0372 -.0003
            -.0288 -.0076  .0088   .0314  .0248  .0155   .0021  .0137 -.0281   .0176  .0158  .0248
            -.0156  .0287  .0200   .0155 -.0186 -.0589  -.0105 -.0285  .0009  -.0255 -.0022  .0062
            -.0279 -.0362 -.0191  -.0674 -.0085  .0217   .0042 -.0028 -.0152   .0240 -.0009 -.0008
             .0126 -.0653 -.1628
        """,
        row.DEMO: """
             .2486  .1663  .2076  -.4898 -.2013  .2605  -.1255  .1265 -.1159  -.1343  .2653  .2863
             .2458 -.0410 -.0489
        """,
    }.items()
}
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
    and their noise levels, give the final ones ("Flow Matching for Generative Modeling",
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
