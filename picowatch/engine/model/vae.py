"""VAEs: the shape of Stable Diffusion's latents, tiles where memory is short, and TAEF2."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderTiny
from diffusers.configuration_utils import register_to_config
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.unets.unet_2d_blocks import AutoencoderTinyBlock
from torch import nn

from picowatch.engine.failures import out_of_memory
from picowatch.engine.model.memory import TILE_SIDE

LATENT_CHANNELS, LATENT_FACTOR = 4, 8  # of Stable Diffusion


def begin_again_in_tiles(vae: Any) -> Any:
    """Let a VAE that runs out of memory compute again in tiles, unless pictures are `seamless`."""
    whole = getattr(vae, "tile_sample_min_size", 0)
    if whole > TILE_SIDE:
        vae.tile_latent_min_size = vae.tile_latent_min_size * TILE_SIDE // whole
        vae.tile_sample_min_size = TILE_SIDE
    kind: Any = type(vae)
    vae.__class__ = _beginning_again(kind)
    return vae


@cache
def _beginning_again(kind: Any) -> Any:
    def again(name: str) -> Callable[..., Any]:
        def computed(vae: Any, numbers: torch.Tensor, *given: Any, **named: Any) -> Any:
            # Some pipelines without a row pass pictures in another type.
            given, compute = (numbers.to(vae.dtype), *given), getattr(kind, name)
            try:
                return compute(vae, *given, **named)
            except Exception as error:
                if vae.use_tiling or vae.seamless or not out_of_memory(error):
                    raise
            # Only here are the tensors free that the traceback kept.
            vae.enable_tiling()
            return compute(vae, *given, **named)

        return computed

    changed = {"encode": again("encode"), "decode": again("decode"), "seamless": False}
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **changed})


class _PooledBlock(AutoencoderTinyBlock):  # type: ignore[misc]
    """A block that first adds what its group norm finds in the whole picture."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, "relu")
        inner = 4 * width
        self.pool = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            nn.GroupNorm(4, inner),
            nn.ReLU(),
            nn.Conv2d(inner, width, 1, bias=False),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = super().forward(x + self.pool(x))
        return found


class TinyFlux2(AutoencoderTiny):  # type: ignore[misc]
    """TAEF2 (https://github.com/madebyollin/taesd), in the place of FLUX.2's VAE.

    Pipelines read the statistics of the latents from `bn`, which are those of the full VAE. It is
    never tiled: the group norms would differ from tile to tile.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, batch_norm_eps: float = 1e-4, latent_channels: int = 32) -> None:
        super().__init__(latent_channels=latent_channels)
        self.bn = nn.BatchNorm1d(4 * latent_channels, eps=batch_norm_eps, affine=False)
        for layers, level in (
            (self.encoder.layers, slice(-4, -1)),
            (self.decoder.layers, slice(2, 5)),
        ):
            for at in range(len(layers))[level]:
                layers[at] = _PooledBlock(64)

    def enable_tiling(self, use_tiling: bool = True) -> None:
        """Leave tiles off."""

    def encode(self, x: torch.Tensor, return_dict: bool = True) -> Any:
        """Return a distribution, as the full VAE does; all of it is its mode."""
        (mode,) = super().encode(x, return_dict=False)
        parameters = torch.cat([mode, torch.zeros_like(mode)], dim=1)
        found = DiagonalGaussianDistribution(parameters, deterministic=True)
        return AutoencoderKLOutput(latent_dist=found) if return_dict else (found,)
