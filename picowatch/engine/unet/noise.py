"""Noise from seeds. One generator an image, on the CPU, in float32, whatever makes the rest.

So a seed gives the same noise on every device and beside whatever other images. Samplers that
draw noise at their steps (Euler a, DPM++ 2M SDE) get the same generators: diffusers'
`randn_tensor` takes a list of them, one for each image of the batch.
"""

from collections.abc import Sequence

import torch

LATENT_CHANNELS = 4
LATENT_FACTOR = 8


def generators_for(seeds: Sequence[int]) -> list[torch.Generator]:
    """One generator for each image."""
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


def initial_noise(generators: Sequence[torch.Generator], width: int, height: int) -> torch.Tensor:
    """What each image starts from: each generator's first numbers."""
    shape = (1, LATENT_CHANNELS, height // LATENT_FACTOR, width // LATENT_FACTOR)
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])
