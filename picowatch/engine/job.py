"""What drawing a batch needs besides its checkpoint, and what it gives."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from PIL import Image

from picowatch.engine.canvas import RESAMPLING, Bytes
from picowatch.engine.preview import Previewer
from picowatch.engine.protocol import ControlMap, OnStep
from picowatch.engine.upscale import Upscalers
from picowatch.recipe.parts import UPSCALERS
from picowatch.recipe.request import ControlUse, ImageRequest

Interrupted = Callable[[], bool]
# Gives an RGB picture in another size.
Enlarge = Callable[[Image.Image], Image.Image]


class Picture(NamedTuple):
    """One picture: its pixels, size, control maps to show with it, and transparency if any."""

    width: int
    height: int
    pixels: bytes
    control_maps: tuple[ControlMap, ...] = ()
    alpha: bytes = b""


class Drawn(NamedTuple):
    """A picture, and how it was drawn; see RenderedImage."""

    picture: Picture
    chunks: int
    batch_size: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """How a batch is drawn: where, and whom to tell.

    `start_images` has the start images and masks under their hashes. `upscalers` enlarge pixels;
    `before_tile` is called before each of their tiles, and may raise. `guess_depth` gives the depth
    of an RGB picture as grey. `timings` are added to. `alone`: each image by itself. `compiled` is
    what computes in place of the denoiser, or None.
    """

    device: torch.device
    start_images: Path | None
    on_step: OnStep
    before_tile: Callable[[], None]
    interrupted: Interrupted
    timings: dict[str, float]
    previewer: Previewer
    guess_depth: Callable[[Bytes, ControlUse], Bytes]
    upscalers: Upscalers
    alone: bool
    compiled: Callable[..., tuple[torch.Tensor, ...]] | None = None

    def enlarge_for_hires(self, request: ImageRequest) -> Enlarge:
        """What makes the second pass' picture of the first one's."""
        assert request.hires is not None
        name, size = request.hires.upscaler, request.size_before_upscale
        if name in UPSCALERS:
            return lambda picture: picture.resize(size, RESAMPLING[name])
        hash_ = request.hires_upscaler_hash
        return lambda picture: self.upscalers.enlarged(picture, name, hash_, size, self.before_tile)


@contextmanager
def timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    """Add the seconds spent inside to a phase."""
    start = perf_counter()
    yield
    timings[phase] = timings.get(phase, 0.0) + perf_counter() - start
