"""Noise: what each image of a pass starts from, and what its steps add.

Every image has its own numbers, so a picture does not depend on its neighbours. They are used as
A1111 uses them (modules/rng.py, ImageRNG): a pass begins with the first numbers of its seed,
mixed with those of the variation seed, and its steps take those that follow, or with `ensd` those
of another seed.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from picowatch.errors import RenderFailed
from picowatch.recipe.fields import NVIDIA
from picowatch.recipe.request import ImageRequest

LATENT_CHANNELS = 4
LATENT_FACTOR = 8
# From here on A1111 takes two noises for the same, and does not divide by the angle between them.
_PARALLEL = 0.9995


class Noise(NamedTuple):
    """What the images of a pass start from, a row for each, and what their steps draw from."""

    start: torch.Tensor
    generators: list[torch.Generator]


def noise_of(
    requests: Sequence[ImageRequest], width: int, height: int, device: torch.device
) -> Noise:
    """Draw the noise of a pass at this size; each pass begins anew, as in A1111."""
    shape = (1, LATENT_CHANNELS, height // LATENT_FACTOR, width // LATENT_FACTOR)
    generators = generators_for(requests, device)
    start = [
        _varied(_drawn(generator, shape), request, device)
        for generator, request in zip(generators, requests, strict=True)
    ]
    generators = [
        _generator(request, request.seed + request.ensd, device) if request.ensd else generator
        for request, generator in zip(requests, generators, strict=True)
    ]
    return Noise(torch.cat(start).to(device), generators)


def generators_for(requests: Iterable[ImageRequest], device: torch.device) -> list[torch.Generator]:
    """Return a generator for each image, from its seed; `device` is what renders them."""
    return [_generator(request, request.seed, device) for request in requests]


def _generator(request: ImageRequest, seed: int, device: torch.device) -> torch.Generator:
    """A CPU's or, with `noise: nvidia`, that of the card, which draws other numbers."""
    if request.noise != NVIDIA:
        return torch.Generator("cpu").manual_seed(seed)
    if device.type != "cuda" or torch.version.hip:
        raise RenderFailed(
            "noise: nvidia takes the random numbers of an NVIDIA card, and none renders here.",
            "Set noise: cpu, or render on such a card.",
        )
    return torch.Generator(device).manual_seed(seed)


def _drawn(generator: torch.Generator, shape: Sequence[int]) -> torch.Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _varied(noise: torch.Tensor, request: ImageRequest, device: torch.device) -> torch.Tensor:
    """The noise on its way to that of the variation seed."""
    if not request.variation_strength:
        return noise
    assert request.variation_seed is not None
    goal = _drawn(_generator(request, request.variation_seed, device), noise.shape)
    return slerp(noise[0], goal[0], request.variation_strength)[None]


def slerp(start: torch.Tensor, goal: torch.Tensor, share: float) -> torch.Tensor:
    """Interpolate channels x height x width on a sphere, so that noise stays noise.

    "Animating rotation with quaternion curves", K. Shoemake, https://doi.org/10.1145/325334.325242,
    for the vectors along the second axis, as A1111 has it: one for each channel and column.
    """
    lengths = (one / one.norm(dim=1, keepdim=True) for one in (start, goal))
    cosine = torch.linalg.vecdot(*lengths, dim=1)
    if cosine.mean() > _PARALLEL:
        return start
    angle = cosine.acos()
    weights = (((1 - share) * angle).sin(), (share * angle).sin())
    kept, taken = ((weight / angle.sin()).unsqueeze(1) for weight in weights)
    mixed: torch.Tensor = kept * start + taken * goal
    return mixed
