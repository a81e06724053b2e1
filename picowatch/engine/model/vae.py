"""The VAE: the shape of Stable Diffusion's latents, and tiles for one that runs out of memory."""

from collections.abc import Callable
from functools import cache
from typing import Any

from picowatch.engine.failures import out_of_memory
from picowatch.engine.model.memory import TILE_SIDE

# Those of Stable Diffusion.
LATENT_CHANNELS = 4
LATENT_FACTOR = 8


def begin_again_in_tiles(vae: Any) -> Any:
    """Let a VAE that runs out of memory compute again, from what it was given, in tiles.

    Tiles cannot continue at the opposite edge of `seamless` pictures.
    """
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
        def computed(vae: Any, *given: Any, **named: Any) -> Any:
            compute = getattr(kind, name)
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
