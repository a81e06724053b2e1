"""What drawing a batch needs besides its checkpoint, and what it gives. Imports no torch."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

from picowatch.engine.protocol import ControlMap, OnStep

if TYPE_CHECKING:
    import torch

    from picowatch.engine.control.hints import GuessDepth
    from picowatch.engine.previewer import Previewer

Interrupted = Callable[[], bool]


class Picture(NamedTuple):
    """One picture's pixels and their size, and the maps that are to be shown beside it."""

    width: int
    height: int
    pixels: bytes
    control_maps: tuple[ControlMap, ...] = ()


class Drawn(NamedTuple):
    """A picture, and how it was drawn; see RenderedImage."""

    picture: Picture
    chunks: int
    batch_size: int
    compiled: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """How a batch is drawn: where, and whom to tell.

    `start_images` has the start images and masks under their hashes. `timings` are added to.
    `alone`: each image by itself. `eager`: nothing compiled. `waiting` as in `Engine.render`.
    """

    device: "torch.device"
    start_images: Path | None
    on_step: OnStep
    interrupted: Interrupted
    timings: dict[str, float]
    previewer: "Previewer"
    guess_depth: "GuessDepth"
    alone: bool
    eager: bool
    waiting: int


@contextmanager
def timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    """Add the seconds spent inside to a phase."""
    start = perf_counter()
    yield
    timings[phase] = timings.get(phase, 0.0) + perf_counter() - start
