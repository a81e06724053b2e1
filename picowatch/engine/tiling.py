"""Pictures that repeat without seams: what lies beyond an edge is the opposite one."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

_LATENT_FACTOR = 8
# Latents beyond each edge: an eighth of a tile of a VAE's own.
_MARGIN = 8
_DOWN, _ACROSS = 2, 3


@contextmanager
def seamless(models: Iterable[nn.Module]) -> Iterator[None]:
    """Meanwhile, these models' convolutions continue at the opposite edge, as A1111's do.

    A1111: modules/sd_hijack.py, apply_circular.
    """
    found = [layer for model in models for layer in _padding(model)]
    for layer in found:
        layer.padding_mode = "circular"
    try:
        yield
    finally:
        for layer in found:
            layer.padding_mode = "zeros"


def _padding(model: nn.Module) -> Iterator[nn.Conv2d]:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and any(layer.padding) and layer.padding_mode == "zeros":
            yield layer


def wrapped(latents: torch.Tensor, decode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """The latents' pixels, by a VAE that decodes in tiles and so knows no opposite edge.

    The latents get a margin that continues at the opposite edge. Then each edge is mixed with its
    copy on the other side: a tile's colours depend on all of it, so cutting would leave a seam.
    """
    margin = min(_MARGIN, *(side // 2 for side in latents.shape[2:]))
    pixels = decode(functional.pad(latents, (margin,) * 4, mode="circular"))
    for axis in (_DOWN, _ACROSS):
        pixels = _joined(pixels, margin * _LATENT_FACTOR, axis)
    return pixels


def _joined(pixels: torch.Tensor, margin: int, axis: int) -> torch.Tensor:
    """The pixels without their margins on this axis, half of them at the edges."""
    size = pixels.shape[axis] - 2 * margin
    before, start, middle, end, after = torch.split(
        pixels, [margin, margin, size - 2 * margin, margin, margin], axis
    )
    own = (torch.arange(margin, device=pixels.device) + 0.5) / (2 * margin) + 0.5
    own = own.view([-1 if one == axis else 1 for one in range(pixels.ndim)]).to(pixels.dtype)
    start = own * start + (1 - own) * after
    own = own.flip(axis)
    end = own * end + (1 - own) * before
    return torch.cat([start, middle, end], axis)
