"""Draws a batch: encode, group, one or two passes through a pipeline of diffusers, decode, paste.

The two kinds of families differ in the result of a pass: latents (`unet.py`), or pictures
(`flow.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from PIL import Image

from picowatch.engine.drawing.canvas import Canvas
from picowatch.engine.drawing.latents import Enlarge
from picowatch.engine.drawing.preview import Previewer
from picowatch.engine.model.loaded import Loaded
from picowatch.engine.protocol import (
    CompileState,
    MemoryUse,
    OnStep,
    Place,
    RenderedImage,
    RgbPicture,
    unseen,
    versions,
)
from picowatch.recipe.passes import Pass, passes_of
from picowatch.recipe.request import ControlUse, ImageRequest

Interrupted = Callable[[], bool]


class Drawn(NamedTuple):
    """A picture, RGB or RGBA, and how it was drawn; see RenderedImage."""

    picture: Image.Image
    control_maps: tuple[RgbPicture, ...] = ()
    places: tuple[Place, ...] | None = None
    chunks: int = 0
    batch_size: int = 1
    precision: str = "float32"
    compiled: CompileState = False
    rung: str = ""
    warnings: tuple[str, ...] = ()

    def as_rendered(
        self, device: str, timings: dict[str, float], memory: MemoryUse | None
    ) -> RenderedImage:
        """Return the picture as the daemon gets it; alpha is empty if all of it is opaque."""
        picture = self.picture
        return RenderedImage(
            width=picture.width,
            height=picture.height,
            pixels=picture.convert("RGB").tobytes(),
            alpha=picture.getchannel("A").tobytes() if picture.mode == "RGBA" else b"",
            device=device,
            precision=self.precision,
            batch_size=self.batch_size,
            compiled=self.compiled,
            memory_rung=self.rung,
            chunks=self.chunks,
            timings=timings,
            versions=versions(),
            warnings=self.warnings,
            control_maps=self.control_maps,
            places=self.places,
            memory=memory,
        )


@dataclass(frozen=True, slots=True)
class Job:
    """How a batch is drawn: the device, the files and the callbacks.

    `start_images` has the start images and masks under their hashes, `canvas_of` returns those of
    an image in another size, with what words found. `enlarge_for_hires` returns the function that
    enlarges a picture for the second pass, `guess_depth` the depth of an RGB picture in grey.
    `timings` are added to. `alone`: each image by itself. `instead` is called in the denoiser's
    place, unless it is None. `cached`: steps reuse what others computed.
    """

    device: torch.device
    start_images: Path | None
    on_step: OnStep
    interrupted: Interrupted
    timings: dict[str, float]
    previewer: Previewer
    guess_depth: Callable[[Any, ControlUse], Any]
    canvas_of: Callable[[ImageRequest, tuple[int, int]], Canvas | None]
    enlarge_for_hires: Callable[[ImageRequest], Enlarge]
    alone: bool
    instead: Callable[..., tuple[torch.Tensor, ...]] | None = None
    cached: bool = False


@contextmanager
def timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    """Add the seconds spent inside to a phase."""
    start = perf_counter()
    yield
    timings[phase] = timings.get(phase, 0.0) + perf_counter() - start


class Prompted(NamedTuple):
    """The encoded prompts of one image.

    Images with equal keys can go through the denoiser together without changing each other.
    `warnings` say which parts of the prompts could not be used.
    """

    key: object
    conditions: Any
    chunks: int = 1
    warnings: tuple[str, ...] = ()


class Group(NamedTuple):
    """Images that go through a pipeline together, with their encoded prompts and start images."""

    requests: list[ImageRequest]
    conditions: list[Any]
    canvases: list[Canvas | None]


class Passes(ABC):
    """How a kind of family encodes prompts and draws a pass.

    `parts` is the most parts of a group that are drawn at once, each by a core of its own;
    `on_step` is called after each step.
    """

    parts = 1

    def __init__(self, loaded: Loaded, job: Job) -> None:
        self.loaded = loaded
        self.job = job
        self.on_step: Callable[[], None] = lambda: None

    @abstractmethod
    def encode(self, request: ImageRequest) -> Prompted:
        """Return the encoded prompts of an image."""

    @abstractmethod
    def evaluations(self, request: ImageRequest) -> int:
        """Return the number of steps that are reported for an image."""

    @abstractmethod
    def run(self, group: Group, one: Pass, before: Any) -> Any:
        """Run a pass; `before` is the result of the one before, None in the first."""

    @abstractmethod
    def decode(self, result: Any) -> list[Drawn]:
        """Return the pictures of the last pass."""


def draw(passes: Passes, batch: Sequence[ImageRequest]) -> list[Drawn]:
    """Return the pictures of a batch, in its order.

    Images whose prompts have different shapes are drawn in different groups: padding a prompt to
    its neighbour's length would change its picture.
    """
    job = passes.job
    with timed(job.timings, "encode"):
        prompted = [passes.encode(request) for request in batch]
    groups: dict[object, list[int]] = {}
    for index, each in enumerate(prompted):
        groups.setdefault((each.key, index if job.alone else 0), []).append(index)
    numbers, total = count(1), len(groups) * passes.evaluations(batch[0])
    passes.on_step = lambda: job.on_step(next(numbers), total)
    drawn: dict[int, Drawn] = {}
    for indexes in groups.values():
        pictures = _drawn_in_parts(passes, [(batch[i], prompted[i].conditions) for i in indexes])
        for index, picture in zip(indexes, pictures, strict=True):
            guided = prompted[index]
            drawn[index] = picture._replace(
                chunks=guided.chunks, batch_size=len(indexes), warnings=guided.warnings
            )
    return [drawn[index] for index in range(len(batch))]


Images = Sequence[tuple[ImageRequest, Any]]


@torch.inference_mode()  # a part is drawn in a thread of its own, which does not inherit this mode
def _drawn_group(passes: Passes, images: Images) -> list[Drawn]:
    """Draw images that go through a pipeline together, in one or two passes."""
    job, result = passes.job, None
    requests, conditions = ([*column] for column in zip(*images, strict=True))
    group = Group(requests, conditions, [])
    with timed(job.timings, "denoise"):
        for one in passes_of(requests[0]):
            canvases = [job.canvas_of(request, one.size) for request in requests]
            group = group._replace(canvases=canvases)
            result = passes.run(group, one, result)
    with timed(job.timings, "decode"):
        pictures = passes.decode(result)
    return [
        drawn._replace(picture=canvas.under(drawn.picture)) if canvas else drawn
        for drawn, canvas in zip(pictures, group.canvases, strict=True)
    ]


# Small pictures on a CPU: a part of the batch on each core. Their layers are too small to be split
# among threads, which would wait for each other, and for other programs, some thousand times a
# second. So every core renders some of the pictures by itself (benchmarks/RESULTS.md). A single
# picture of this many pixels has layers that are worth splitting.
_SPLIT_PIXELS = 384 * 384


def _drawn_in_parts(passes: Passes, images: Images) -> list[Drawn]:
    """Draw equal parts of the images at once, at most one per core, each in a thread.

    The parts are equal because a picture's last bit may depend on the number of pictures in its
    part, and must not depend on its position: the last one is filled up with images that are drawn
    for nothing. Steps, previews and times are the first part's.
    """
    if passes.parts == 1 or (len(images) == 1 and _is_worth_splitting(images[0][0])):
        return _drawn_group(passes, images)
    size = -(-len(images) // passes.parts)
    parts = -(-len(images) // size)
    filled = [*images, *[images[-1]] * (parts * size - len(images))]
    silent = replace(passes.job, previewer=Previewer(unseen), timings={})
    others = type(passes)(passes.loaded, silent)
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(parts, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            drawn = [
                pool.submit(_drawn_group, others if begin else passes, filled[begin : begin + size])
                for begin in range(0, len(filled), size)
            ]
    finally:
        torch.set_num_threads(threads)  # MKL has one number for all threads
    return [picture for future in drawn for picture in future.result()][: len(images)]


def _is_worth_splitting(request: ImageRequest) -> bool:
    """Return whether all cores draw this picture together; one alone is always exact."""
    width, height = passes_of(request)[-1].size
    return width * height >= _SPLIT_PIXELS and not request.exact
