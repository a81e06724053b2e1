"""What drawing a batch needs besides its checkpoint, and what it gives."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from PIL import Image

from picowatch.engine.canvas import Bytes
from picowatch.engine.preview import Previewer
from picowatch.engine.protocol import ControlMap, OnStep
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

    `start_images` has the start images and masks under their hashes. `enlarge_for_hires` gives what
    makes the second pass' picture of the first one's, `guess_depth` the depth of an RGB picture as
    grey. `timings` are added to. `alone`: each image by itself. `compiled` is what computes in
    place of the denoiser, or None.
    """

    device: torch.device
    start_images: Path | None
    on_step: OnStep
    interrupted: Interrupted
    timings: dict[str, float]
    previewer: Previewer
    guess_depth: Callable[[Bytes, ControlUse], Bytes]
    enlarge_for_hires: Callable[[ImageRequest], Enlarge]
    alone: bool
    compiled: Callable[..., tuple[torch.Tensor, ...]] | None = None


@contextmanager
def timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    """Add the seconds spent inside to a phase."""
    start = perf_counter()
    yield
    timings[phase] = timings.get(phase, 0.0) + perf_counter() - start
