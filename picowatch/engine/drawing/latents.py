"""Latents: their initial noise, their conversion from and to pixels, and previews of them.

Every image has noise of its own, so a picture does not depend on its neighbours. Its random numbers
are used as in A1111 (modules/rng.py, ImageRNG): a pass begins with the first numbers of its seed,
mixed with the variation seed's, and its steps take those that follow, or with `ensd` another's.

A small matrix turns latents into the colours of a preview. The final latents are estimated from a
UNet's prediction, or from a step of a flow.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from time import monotonic
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import pixel_shuffle

from picowatch.catalog.parts import ASSETS
from picowatch.engine.model.vae import LATENT_CHANNELS, LATENT_FACTOR
from picowatch.engine.private import renew_group_offloading
from picowatch.engine.protocol import OnPreview, RgbPicture
from picowatch.errors import RenderFailed
from picowatch.families import DEMO_WIDTH, row
from picowatch.recipe.converters import NVIDIA
from picowatch.recipe.request import ImageRequest

_PARALLEL = 0.9995  # above this cosine of their angle, A1111 takes two noises as equal


def noise_of(
    requests: Sequence[ImageRequest], width: int, height: int, device: torch.device
) -> tuple[torch.Tensor, list[torch.Generator]]:
    """Draw a pass' noise, a row for each image, and return the generators for that of its steps."""
    shape = (1, LATENT_CHANNELS, height // LATENT_FACTOR, width // LATENT_FACTOR)
    start, generators = [], generators_for(requests, device)
    for at, request in enumerate(requests):
        noise = _drawn(generators[at], shape)
        if request.variation_strength:
            assert request.variation_seed is not None
            goal = _drawn(_generator(request, request.variation_seed, device), shape)
            noise = slerp(noise[0], goal[0], request.variation_strength)[None]
        start.append(noise)
        if request.ensd:
            generators[at] = _generator(request, request.seed + request.ensd, device)
    return torch.cat(start).to(device), generators


def generators_for(requests: Iterable[ImageRequest], device: torch.device) -> list[torch.Generator]:
    """Return a generator for each image, from its seed; `device` renders them."""
    return [_generator(request, request.seed, device) for request in requests]


def _generator(request: ImageRequest, seed: int, device: torch.device) -> torch.Generator:
    """Return a generator on the CPU or, with `noise: nvidia`, on the GPU: its numbers differ."""
    if request.noise != NVIDIA:
        return torch.Generator("cpu").manual_seed(seed)
    if device.type != "cuda" or torch.version.hip:
        raise RenderFailed(
            "noise: nvidia needs an NVIDIA card, and none renders here.",
            "Set noise: cpu, or render on such a card.",
        )
    return torch.Generator(device).manual_seed(seed)


def _drawn(generator: torch.Generator, shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def slerp(start: torch.Tensor, goal: torch.Tensor, share: float) -> torch.Tensor:
    """Interpolate channels x height x width on a sphere, so that noise stays noise.

    "Animating rotation with quaternion curves", K. Shoemake, https://doi.org/10.1145/325334.325242,
    for the vectors along the second axis, as A1111 has it: a vector for each channel and column.
    """
    lengths = (noise / noise.norm(dim=1, keepdim=True) for noise in (start, goal))
    cosine = torch.linalg.vecdot(*lengths, dim=1)
    if cosine.mean() > _PARALLEL:
        return start
    angle = cosine.acos()
    weights = (((1 - share) * angle).sin(), (share * angle).sin())
    kept, taken = ((weight / angle.sin()).unsqueeze(1) for weight in weights)
    mixed: torch.Tensor = kept * start + taken * goal
    return mixed


def decode(vae: Any, latents: torch.Tensor) -> list[Image.Image]:
    """Decode images one by one: that saves memory, and no picture depends on its neighbours."""

    def compute(latents: torch.Tensor) -> Any:
        return vae.decode(latents).sample

    scaled = latents[:, None] / vae.config.scaling_factor
    return [as_picture((_widened(vae, latent, compute)[0] + 1) / 2) for latent in scaled]


def as_picture(image: torch.Tensor) -> Image.Image:
    """Return an image, RGB x height x width, 0 to 1, as a picture. RenderFailed if it has NaNs."""
    _check_finite(image)
    levels = (image * 255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()
    return Image.fromarray(levels.cpu().numpy())


def _check_finite(numbers: torch.Tensor) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise RenderFailed(
            "The picture came out as invalid numbers (NaN): the checkpoint or its VAE overflowed.",
            "Set precision: float32, or precision: bfloat16 on a newer GPU.",
        )


def encode(vae: Any, pixels: Any, device: torch.device) -> torch.Tensor:
    """Return the latents of a picture or its pixels, 1 x 4 x height/8 x width/8, in float32."""
    image = torch.from_numpy(np.array(pixels)).to(device)
    image = (image.permute(2, 0, 1)[None].float() / 127.5) - 1

    def compute(image: torch.Tensor) -> Any:
        found = vae.encode(image)  # a sample would use random numbers
        return found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents

    found = _widened(vae, image, compute)
    _check_finite(found)
    return found * float(vae.config.scaling_factor)


def _widened(vae: Any, given: torch.Tensor, compute: Callable[[torch.Tensor], Any]) -> torch.Tensor:
    """Compute in the VAE's type, again in float32 if it overflowed; return float32."""
    narrow = vae.dtype
    result: torch.Tensor = compute(given.to(narrow)).float()
    if narrow != torch.float32 and not bool(torch.isfinite(result).all()):
        try:
            _change_type(vae, torch.float32)
            result = compute(given.float()).float()
        finally:
            _change_type(vae, narrow)  # the next picture must not depend on this
    return result


def _change_type(vae: Any, dtype: torch.dtype) -> None:
    vae.to(dtype)
    renew_group_offloading(vae)


# A1111's names (modules/shared_items.py, latent_upscale_modes): fast, and blurred or blocky until
# the second pass redraws them.
LATENT: dict[str, dict[str, Any]] = {
    "Latent": {"mode": "bilinear"},
    "Latent (nearest)": {"mode": "nearest"},
    "Latent (nearest-exact)": {"mode": "nearest-exact"},
    "Latent (bicubic)": {"mode": "bicubic"},
    "Latent (antialiased)": {"mode": "bilinear", "antialias": True},
    "Latent (bicubic antialiased)": {"mode": "bicubic", "antialias": True},
}


def resized(picture: Image.Image, upscaler: str, size: tuple[int, int]) -> Image.Image:
    """Return a picture in this size; but for A1111's "Nearest" by Lanczos, also after a model."""
    by = Image.Resampling
    return picture.resize(size, by.NEAREST if upscaler == "Nearest" else by.LANCZOS)


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
