"""What diffusers' pipelines do first and last: they encode start images, and decode.

Here all of a batch is encoded before its steps and decoded after them, so that a VAE that takes
turns with the transformer goes to a GPU twice at most.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from picowatch.engine.unet.latents import Decoded, is_flat
from picowatch.errors import ControlFlow, RenderFailed


class _Reached(ControlFlow):
    """A pipeline has come to a part that waits; `given` is what that part would compute with."""

    def __init__(self, given: Any) -> None:
        super().__init__()
        self.given = given


def encoded(vae: Any, transformer: Any, run: Callable[[], object]) -> list[Any]:
    """All that the VAE encodes in a pipeline's run, which ends where the transformer would begin.

    The run that follows it prepares everything else again, which costs little: what a pipeline
    makes of start images and masks is its own.
    """
    found: list[Any] = []
    encode = vae.encode

    def noted(*given: Any, **named: Any) -> Any:
        found.append(encode(*given, **named))
        return found[-1]

    def stop(_: Any, given: Any) -> None:
        raise _Reached(given)

    handle = transformer.register_forward_pre_hook(stop)
    vae.encode = noted
    try:
        run()
    except _Reached:
        return found
    finally:
        del vae.encode
        handle.remove()
    raise RuntimeError("the pipeline made no step")


def undecoded(
    vae: Any, run: Callable[[], object], codings: Sequence[Any] | None = None
) -> torch.Tensor:
    """What a pipeline's run would decode: its latents, as the VAE takes them.

    Each family unpacks and scales them in its own way, and only as a part of its run. `codings` are
    what `encoded` gave for it.
    """

    def decode(latents: torch.Tensor, **_: Any) -> None:
        raise _Reached(latents)

    vae.decode = decode
    if codings is not None:
        known = iter(codings)
        vae.encode = lambda *_, **__: next(known)
    try:
        run()
    except _Reached as reached:
        latents: torch.Tensor = reached.given
        return latents
    finally:
        del vae.decode
        if codings is not None:
            del vae.encode
    raise RuntimeError("the pipeline did not decode")


def decoded(vae: Any, groups: Sequence[torch.Tensor], size: tuple[int, int]) -> list[list[Decoded]]:
    """The pictures of each group's latents."""
    packed = [_packed(vae.decode(one, return_dict=False)[0]) for one in groups]
    width, height = size
    found = []
    for one in packed:
        pixels, flags = np.split(one.cpu().numpy(), [-2], axis=1)
        if not flags[:, 0].all():
            raise RenderFailed(
                "The picture came out as invalid numbers (NaN): the checkpoint overflowed.",
                "Set precision: bfloat16, or precision: float32.",
            )
        found.append(
            [
                Decoded(row.reshape(height, width, 3), bool(flat))
                for row, flat in zip(pixels, flags[:, 1], strict=True)
            ]
        )
    return found


def _packed(images: torch.Tensor) -> torch.Tensor:
    """A row for each: its pixels, and two bytes: all are numbers; `flat`, see Decoded.

    The arithmetic, and its type, are those of diffusers' VaeImageProcessor.postprocess.
    """
    if images.ndim == 5:  # VAEs for films; a picture is one frame
        images = images[:, :, 0]
    images = images * 0.5 + 0.5
    levels = images.clamp(0, 1)
    pixels = (levels.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).flatten(1)
    checks = [torch.isfinite(levels).flatten(1).all(1), is_flat(images)]
    return torch.cat([pixels, torch.stack(checks, dim=1).to(torch.uint8)], dim=1)
