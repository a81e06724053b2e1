"""Draws the images of a batch: encode, group, run a sampler once or twice, decode, paste.

The two kinds of families differ in the result of a run: latents (unet.py) or pictures (flow.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from PIL import Image

from picowatch.engine.drawing.canvas import Canvas
from picowatch.engine.drawing.latents import Previewer
from picowatch.engine.drawing.work import Drawn, Work, timed
from picowatch.engine.model.loaded import Loaded
from picowatch.engine.model.memory import Rung, shrunken, shrunken_hires
from picowatch.engine.protocol import unseen
from picowatch.files.decoding import Original
from picowatch.recipe.passes import PassKind, Sampling, samplings
from picowatch.recipe.request import ControlUse, ImageRequest

# Small pictures on a CPU: a part of the batch on each core. Their layers are too small to be split
# among threads, which would wait for each other, and for other programs, some thousand times a
# second. So every core renders some of the pictures by itself (benchmarks/RESULTS.md). A single
# picture of this many pixels has layers that are worth splitting.
_SPLIT_PIXELS = 384 * 384

R = TypeVar("R")
# Returns the start image and mask of an image in another size, None without any.
CanvasOf = Callable[[ImageRequest, tuple[int, int]], Canvas | None]


@dataclass(frozen=True, slots=True)
class Job:
    """How images are drawn: the device, the files and the callbacks."""

    device: torch.device
    start_images: Path | None  # start images and masks under their hashes
    work: Work  # is told of steps and timings
    previewer: Previewer
    guess_depth: Callable[[Any, ControlUse], Any]  # returns an RGB picture's depth in grey
    canvas_of: CanvasOf  # start image and mask in a size, with what words found
    alone: bool  # each image by itself
    accelerated: Callable[..., tuple[torch.Tensor, ...]] | None = None  # called for the denoiser
    cached: bool = False  # steps reuse others' results


class Prompted(NamedTuple):
    key: object  # images with equal keys can share a call without changing each other
    conditions: Any
    chunks: int = 1
    warnings: tuple[str, ...] = ()  # about parts of the prompts that could not be used


class Group(NamedTuple):
    """Images that go through a pipeline together, with their encoded prompts and start images."""

    requests: list[ImageRequest]
    conditions: list[Any]
    canvases: list[Canvas | None]


@dataclass(eq=False)
class Denoising(ABC):
    """How a kind of family encodes prompts, runs a sampler and decodes."""

    loaded: Loaded
    job: Job
    parts = 1  # the most of a group that are drawn at once, each by a core of its own

    @abstractmethod
    def encode(self, request: ImageRequest) -> Prompted:
        """Return an image's encoded prompts."""

    @abstractmethod
    def steps(self, sampling: Sampling) -> int:
        """Return the number of steps that a run reports."""

    @abstractmethod
    def run(self, group: Group, sampling: Sampling, before: list[Any]) -> list[Any]:
        """Run the sampler; `before` has the results of the run before, [] in the first."""

    @abstractmethod
    def decode(self, results: list[Any]) -> list[Drawn]:
        """Return the pictures that a run's results are, or are decoded to."""


class Drawing:
    """Images on their way to pictures; what they have stays when memory runs out and rungs change.

    Images whose prompts have different shapes are drawn in different groups: padding a prompt to
    its neighbour's length would change its picture.
    """

    def __init__(self, requests: Sequence[ImageRequest], canvas_of: CanvasOf | None = None) -> None:
        # Returns the parts of details, which are drawn as many at once as have room.
        self.canvas_of, self.are_details = canvas_of, canvas_of is not None
        self.requested = self.requests = list(requests)  # the second smaller where memory is short
        self.rung: Rung | None = None  # on which the last run worked
        self._prompted: dict[int, Prompted] = {}
        self._results: tuple[dict[int, tuple[Any, Canvas | None]], ...] = {}, {}  # of each run
        self._sizes: dict[int, int] = {}  # of groups, by image
        self._pictures: dict[int, Drawn] = {}  # of the latest run

    @property
    def last_run(self) -> int:
        """The number of the sampler's last run."""
        return 0 if self.requests[0].hires is None else 1

    def _phase(self, name: str) -> str:
        """Return where a phase's time goes: that of details counts apart from the batch's."""
        return "detail" if self.are_details else name

    def shrink(self, given: Sequence[ImageRequest], number: int, times: int, multiple: int) -> None:
        """Let a run draw so many times smaller than the requests given to it said."""
        smaller = shrunken_hires if number else shrunken
        requests = [smaller(request, times, multiple) for request in given]
        if requests == self.requests:
            return
        self.requests = requests
        self._pictures.clear()
        for results in self._results[number:]:
            results.clear()
        if not number:
            self._prompted.clear()  # edits are seen in the size of drawing

    def run(self, denoising: Denoising, number: int, most: int) -> None:
        """Run the sampler for images without a result, in groups of at most so many, 0 for any."""
        work = denoising.job.work
        with timed(work.timings, self._phase("encode")):
            for at, request in enumerate(self.requests):
                if at not in self._prompted:
                    self._prompted[at] = denoising.encode(request)
        groups = self._groups(denoising.job.alone, most)
        rests = ([at for at in group if at not in self._results[number]] for group in groups)
        left = [rest for rest in rests if rest]
        steps = max(1, denoising.steps(samplings(self.requests[0])[number]))
        kind: PassKind = "detail" if self.are_details else "hires" if number else "draw"
        work.begin(kind, len(groups), len(groups) - len(left), steps)
        with timed(work.timings, self._phase("hires" if number else "denoise")):
            for group in left:
                results = self._in_parts(denoising, group, partial(self._results_of, number))
                for at, result in zip(group, results, strict=True):
                    self._results[number][at], self._sizes[at] = result, len(group)

    def enlarge(self, enlarge: Callable[[list[Image.Image]], list[Image.Image]]) -> None:
        """Replace the results of the first run by larger pictures."""
        images, first = sorted(self._pictures), self._results[0]
        larger = enlarge([self._pictures.pop(at).picture for at in images])
        for at, picture in zip(images, larger, strict=True):
            first[at] = picture, first[at][1]

    def decoded(self, denoising: Denoising, number: int) -> list[Drawn]:
        is_last = number == self.last_run
        with timed(denoising.job.work.timings, self._phase("decode" if is_last else "hires")):
            for group in self._groups(denoising.job.alone, 0):
                if left := [at for at in group if at not in self._pictures]:
                    pictures = self._in_parts(denoising, left, partial(self._pictures_of, number))
                    for at, drawn in zip(left, pictures, strict=True):
                        self._pictures[at] = drawn
        return [
            self._pictures[at]._replace(
                chunks=prompted.chunks, batch_size=self._sizes[at], warnings=prompted.warnings
            )
            for at, prompted in sorted(self._prompted.items())
        ]

    def _groups(self, alone: bool, most: int) -> list[list[int]]:
        """Return the indices of images that go through a pipeline together."""
        groups: dict[object, list[int]] = {}
        for at, prompted in sorted(self._prompted.items()):
            groups.setdefault((prompted.key, at if alone else 0), []).append(at)
        size = most or len(self.requests)
        return [
            group[at : at + size] for group in groups.values() for at in range(0, len(group), size)
        ]

    @torch.inference_mode()  # a part's thread does not inherit this mode
    def _results_of(
        self, number: int, denoising: Denoising, images: list[int]
    ) -> list[tuple[Any, Canvas | None]]:
        """Return what a run of the sampler gives for a group, with its canvases."""
        requests = [self.requests[at] for at in images]
        sampling = samplings(requests[0])[number]
        canvases = [denoising.job.canvas_of(request, sampling.size) for request in requests]
        conditions = [self._prompted[at].conditions for at in images]
        before = [self._results[number - 1][at][0] for at in images] if number else []
        found = denoising.run(Group(requests, conditions, canvases), sampling, before)
        return [*zip(found, canvases, strict=True)]

    @torch.inference_mode()
    def _pictures_of(self, number: int, denoising: Denoising, images: list[int]) -> list[Drawn]:
        """Return a run's pictures of a group; those of the last are over their start images."""
        found = [self._results[number][at] for at in images]
        pictures = denoising.decode([result for result, _ in found])
        if number != self.last_run:
            return pictures
        return [
            drawn._replace(original=Original(canvas.under(drawn.picture))) if canvas else drawn
            for drawn, (_, canvas) in zip(pictures, found, strict=True)
        ]

    def _in_parts(
        self,
        denoising: Denoising,
        images: list[int],
        compute: Callable[[Denoising, list[int]], list[R]],
    ) -> list[R]:
        """Compute a part of the images on each core, but on all a large image that is not exact.

        The parts are equal because a picture's last bit may depend on the number of pictures in its
        part, and must not depend on its position: the last part is filled up with images that are
        drawn for nothing. Only the first part reports steps, previews and timings.
        """
        width, height = samplings(self.requests[images[0]])[-1].size
        is_large = width * height >= _SPLIT_PIXELS and not self.requests[0].exact
        if denoising.parts == 1 or (is_large and len(images) == 1):
            return compute(denoising, images)
        size = -(-len(images) // denoising.parts)
        parts = -(-len(images) // size)
        filled = [*images, *[images[-1]] * (parts * size - len(images))]
        untold = Work((), lambda _: None, denoising.job.work.interrupted)
        silent = replace(denoising.job, previewer=Previewer(unseen), work=untold)
        others, threads = type(denoising)(denoising.loaded, silent), torch.get_num_threads()
        try:
            with ThreadPoolExecutor(parts, "", torch.set_num_threads, (1,)) as pool:
                computed = [
                    pool.submit(
                        compute, others if begin else denoising, filled[begin : begin + size]
                    )
                    for begin in range(0, len(filled), size)
                ]
        finally:
            torch.set_num_threads(threads)  # MKL has the same number for all threads
        return [found for future in computed for found in future.result()][: len(images)]
