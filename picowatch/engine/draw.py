"""Draws a batch: encode, group, one or two passes through a pipeline of diffusers, decode, paste.

Two kinds of families differ in what a pass gives: latents of ours (`unet.py`), or pictures
(`flow.py`). Everything else is here.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import count
from typing import Any, NamedTuple

import torch

from picowatch.engine.callbacks import interruptible
from picowatch.engine.canvas import Canvas, read_canvases
from picowatch.engine.job import Drawn, Job, Picture, timed
from picowatch.engine.latents import Decoded
from picowatch.engine.loaded import Loaded
from picowatch.engine.preview import Previewer
from picowatch.engine.protocol import unseen
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest

OnEvaluation = Callable[[], None]


class Group(NamedTuple):
    """Images that go through a pipeline together, by their places in the batch.

    `conditions` is what guides each of them, as `Passes.encode` gave it.
    """

    indexes: list[int]
    requests: list[ImageRequest]
    conditions: list[Any]

    def part(self, places: Sequence[int]) -> "Group":
        """Some of its images, by their places in the group."""
        return Group(
            [self.indexes[place] for place in places],
            [self.requests[place] for place in places],
            [self.conditions[place] for place in places],
        )


class Pass(NamedTuple):
    """One run from noise to pictures, at one size. `strength` is 1 without a start image."""

    number: int
    width: int
    height: int
    steps: int
    strength: float

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class Passes(ABC):
    """How a kind of family draws: what guides it, and one pass."""

    def __init__(self, loaded: Loaded, job: Job) -> None:
        self.loaded = loaded
        self.job = job

    @abstractmethod
    def encode(self, batch: Sequence[ImageRequest]) -> list[Any]:
        """What guides each image."""

    @abstractmethod
    def key(self, conditions: Any) -> object:
        """Equal for what can go through the denoiser together, and change no picture by it."""

    @abstractmethod
    def evaluations(self, request: ImageRequest) -> int:
        """How many steps are reported for an image."""

    @abstractmethod
    def run(
        self,
        group: Group,
        one: Pass,
        before: Any,
        canvases: Sequence[Canvas | None],
        on_step: OnEvaluation,
    ) -> Any:
        """One pass; `before` is the result of the one before, None in the first."""

    @abstractmethod
    def decode(self, result: Any) -> list[Decoded]:
        """The pictures of the last pass."""

    def warnings(self, request: ImageRequest) -> tuple[str, ...]:
        """What of an image's prompts could not be used."""
        return ()

    def chunks(self, conditions: Any) -> int:
        """How many chunks the prompts have."""
        return 1

    def prepared(self) -> AbstractContextManager[None]:
        """What holds while the batch is drawn."""
        return nullcontext()

    def watched(self) -> AbstractContextManager[None]:
        """What holds while the models in memory compute: the batch may be interrupted."""
        # What is compiled has no places to look from.
        models = [] if self.job.compiled else self.loaded.modules
        return interruptible(models, self.job.interrupted)

    @property
    def parts(self) -> int:
        """How many parts of a group are drawn at once, each by a core of its own."""
        return 1


def draw(passes: Passes, batch: Sequence[ImageRequest]) -> list[Drawn]:
    """The pictures of a batch, in its order.

    Images whose prompts have other shapes are drawn group after group: to pad a prompt to its
    neighbour's length would change its picture.
    """
    job = passes.job
    with timed(job.timings, "encode"):
        conditions = passes.encode(batch)
    places: dict[object, list[int]] = {}
    for index, each in enumerate(conditions):
        places.setdefault((passes.key(each), index if job.alone else 0), []).append(index)
    numbers, total = count(1), len(places) * passes.evaluations(batch[0])
    drawn: dict[int, Drawn] = {}
    for indexes in places.values():
        group = Group(list(range(len(batch))), list(batch), conditions).part(indexes)
        with passes.prepared():
            pictures = _drawn_in_parts(passes, group, lambda: job.on_step(next(numbers), total))
        for index, picture in zip(indexes, pictures, strict=True):
            chunks, warnings = passes.chunks(conditions[index]), passes.warnings(batch[index])
            drawn[index] = Drawn(picture, chunks, len(indexes), warnings)
    return [drawn[index] for index in range(len(batch))]


def _drawn_group(passes: Passes, group: Group, on_step: OnEvaluation) -> list[Picture]:
    """The pictures of images that go through a pipeline together, in one or two passes."""
    job = passes.job
    result: Any = None
    canvases: Sequence[Canvas | None] = ()
    with timed(job.timings, "denoise"):
        for one in _passes_of(group.requests[0]):
            canvases = read_canvases(job.start_images, group.requests, *one.size)
            result = passes.run(group, one, result, canvases, on_step)
    with timed(job.timings, "decode"):
        decoded = passes.decode(result)
    return [_finished(each, canvas) for each, canvas in zip(decoded, canvases, strict=True)]


def _passes_of(request: ImageRequest) -> list[Pass]:
    """The first pass and, with hires, the second: img2img at the larger size."""
    strength = request.denoising_strength if request.image else 1.0
    passes = [Pass(0, request.width, request.height, request.steps, strength)]
    if hires := request.hires:
        steps = hires.steps or request.steps
        passes.append(Pass(1, *request.size_before_upscale, steps, hires.denoising_strength))
    return passes


def _finished(decoded: Decoded, canvas: Canvas | None) -> Picture:
    """The finished picture: only what its mask lets through."""
    array = decoded.pixels
    if decoded.flat and not (canvas and _of_one_colour(canvas)):
        raise RenderFailed(
            f"The picture came out as one single colour ({', '.join(map(str, array[0, 0]))}), "
            "which means that the checkpoint or VAE overflowed or is damaged.",
            "Set precision: float32; if that does not help, get the checkpoint or VAE again.",
        )
    pixels = canvas.paste(array.tobytes()) if canvas else array.tobytes()
    return Picture(array.shape[1], array.shape[0], pixels, decoded.control_maps)


def _of_one_colour(canvas: Canvas) -> bool:
    picture = canvas.picture
    return bool((picture == picture[0, 0]).all())


# Small pictures on a CPU: a part of the batch on each core. Their layers are too short to share
# out: with two threads on each, both wait for each other some thousand times a second, and for
# whatever else the computer does. So every core renders some of the pictures by itself
# (benchmarks/RESULTS.md).

# Five rendered as six take as long in two parts as in one, fifteen as sixteen little more than half
# of that; three rendered as four take longer (benchmarks/RESULTS.md).
_MOST_FILLED_UP = 1.25


def equal_parts(images: int, cores: int) -> list[list[int]]:
    """Split the images' places into as many parts of equal size as there are cores, or fewer.

    Equal, because a picture's last bit may depend on how many are rendered with it, and must not
    depend on its position among them. So if images are missing in the last part, the last one is
    repeated there; only if that would be too many, they are all in one part.
    """
    size = -(-images // cores)
    filled = -(-images // size) * size
    if filled > _MOST_FILLED_UP * images:
        size = filled = images
    places = [min(place, images - 1) for place in range(filled)]
    return [places[begin : begin + size] for begin in range(0, filled, size)]


def _drawn_in_parts(passes: Passes, group: Group, on_step: OnEvaluation) -> list[Picture]:
    """The group's pictures: all parts at once, each by a pipeline and a thread of its own.

    Steps and previews are those of the first part alone; times are the longest of all.
    """
    if passes.parts == 1:
        return _drawn_group(passes, group, on_step)
    parts = equal_parts(len(group.requests), passes.parts)
    silent = replace(passes.job, previewer=Previewer(unseen))
    jobs = [passes.job, *[silent] * (len(parts) - 1)]
    own = [type(passes)(passes.loaded, replace(job, timings={})) for job in jobs]
    steps = [on_step, *[lambda: None] * (len(parts) - 1)]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            len(parts), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            drawn = [
                pool.submit(_drawn_part, each, group.part(part), step)
                for each, part, step in zip(own, parts, steps, strict=True)
            ]
    finally:
        torch.set_num_threads(threads)  # MKL has one number for all threads
    for phase in ("denoise", "decode"):
        timings = passes.job.timings
        longest = max(each.job.timings.get(phase, 0.0) for each in own)
        timings[phase] = timings.get(phase, 0.0) + longest
    pictures = [picture for future in drawn for picture in future.result()]
    return pictures[: len(group.requests)]


@torch.inference_mode()
def _drawn_part(passes: Passes, group: Group, on_step: OnEvaluation) -> list[Picture]:
    """Draw a part in a thread of its own, which the caller's inference mode does not reach."""
    return _drawn_group(passes, group, on_step)
