"""Draws a batch with a UNet: groups of equal prompts' lengths, in parts where that is faster."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import torch

from picowatch.engine.drawn import Drawn, Job, Picture, timed
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.previewer import Previewer
from picowatch.engine.protocol import OnStep, unseen
from picowatch.engine.unet.conditions import ConditionSchedule
from picowatch.engine.unet.denoise import EagerUnet
from picowatch.engine.unet.draw import Decoding, Drawing, Group
from picowatch.engine.unet.tiling import seamless
from picowatch.recipe.passes import evaluations
from picowatch.recipe.request import ImageRequest

# The number of chunks, and a number that is an image's own where each is drawn by itself.
_Group = tuple[int, int]
# A group, its images' indexes, and their pictures.
_Part = tuple[_Group, list[int], list[Picture] | Decoding]


def draw_batch(loaded: Loaded, batch: Sequence[ImageRequest], job: Job) -> "BatchDecoding":
    """The pictures of a batch, in its order.

    Images whose prompts differ in their number of chunks are drawn group after group: to pad a
    prompt to its neighbour's length would change its picture. All groups' prompts are encoded
    before the first is denoised, and all are decoded after the last, as `Drawing.denoise` says.
    """
    job.previewer.follow(loaded.vae, loaded.family)
    groups = _groups(batch, loaded, alone=job.alone)
    repeats = batch[0].tiling
    eager = EagerUnet(loaded.unet)
    on_step = _counted(job.on_step, len(groups) * evaluations(batch[0]))
    drawing = Drawing(
        loaded, job, lambda shape, steps: eager, on_step, job.enlarge_for_hires(batch[0])
    )
    with seamless(_repeating(loaded) if repeats else ()):
        parts = list(_drawn(drawing, batch, groups))
        decoding = BatchDecoding(parts)
        if job.beside is None:
            decoding.pictures()
    return decoding


class BatchDecoding:
    """The pictures of a batch, which a GPU may still be decoding."""

    def __init__(self, parts: Sequence["_Part"]) -> None:
        self._parts = parts
        self._pictures: list[Drawn] = []

    def has_come(self) -> bool:
        """Whether `pictures` would not wait for the GPU."""
        return all(isinstance(part, list) or part.has_come() for *_, part in self._parts)

    def pictures(self) -> list[Drawn]:
        """They, as soon as they have come."""
        if not self._pictures:
            found: dict[int, Drawn] = {}
            for (chunks, _), indexes, part in self._parts:
                pictures = part if isinstance(part, list) else part.pictures()
                for index, picture in zip(indexes, pictures, strict=True):
                    found[index] = Drawn(picture, chunks, len(indexes))
            self._pictures = [drawn for _, drawn in sorted(found.items())]
        return self._pictures


def _repeating(loaded: Loaded) -> list[Any]:
    """What draws pictures that repeat; a VAE with tiles of its own must not: `tiling.wrapped`."""
    models = [loaded.unet, *loaded.controlnets.values()]
    return models if loaded.vae.use_tiling else [*models, loaded.vae]


def _drawn(
    drawing: Drawing, batch: Sequence[ImageRequest], groups: dict[_Group, list[int]]
) -> Iterator["_Part"]:
    """The pictures of each group, in parts where that is faster."""
    requests = {group: [batch[index] for index in indexes] for group, indexes in groups.items()}
    with timed(drawing.job.timings, "encode"):
        encode = drawing.loaded.prompts.schedules
        schedules = {group: encode(requests[group], group[0]) for group in groups}
    whole: list[_Group] = []
    for group, indexes in groups.items():
        parts = equal_parts(len(indexes), torch.get_num_threads() if drawing.is_small else 1)
        if len(parts) > 1:
            pictures = draw_parts(drawing, requests[group], schedules[group], parts)
            yield group, indexes, pictures
        else:
            whole.append(group)
    denoised = drawing.denoise([Group(requests[one], schedules[one]) for one in whole])
    for group, latents in zip(whole, denoised, strict=True):
        yield group, groups[group], drawing.decode(latents)


def _groups(
    batch: Sequence[ImageRequest], loaded: Loaded, *, alone: bool
) -> dict[_Group, list[int]]:
    """The indexes of images by their number of chunks; `alone`, each image by itself."""
    groups: dict[_Group, list[int]] = {}
    for index, request in enumerate(batch):
        key = (loaded.prompts.chunk_count(request), index if alone else 0)
        groups.setdefault(key, []).append(index)
    return groups


def _counted(on_step: OnStep, total: int) -> Callable[[], None]:
    """Counts the steps of all groups and passes together."""
    numbers = count(1)
    return lambda: on_step(next(numbers), total)


# Small pictures on a CPU: a part of the batch on each core. Their layers are too short to share
# out: with two threads on each, both wait for each other some thousand times a second, and for
# whatever else the computer does. So every core renders some of the pictures by itself
# (benchmarks/RESULTS.md).

# Five rendered as six take as long in two parts as in one, fifteen as sixteen little more than half
# of that; three rendered as four take longer (benchmarks/RESULTS.md).
_MOST_FILLED_UP = 1.25


def equal_parts(images: int, cores: int) -> list[list[int]]:
    """The images' indexes in as many parts of equal size as there are cores, or fewer.

    Equal, because a picture's last bit may depend on how many are rendered with it, and must not
    depend on its position among them. So if images are missing in the last part, the last one is
    repeated there; only if that would be too many, they are all in one part.
    """
    size = -(-images // cores)
    filled = -(-images // size) * size
    if filled > _MOST_FILLED_UP * images:
        size = filled = images
    indexes = [min(index, images - 1) for index in range(filled)]
    return [indexes[begin : begin + size] for begin in range(0, filled, size)]


def draw_parts(
    drawing: Drawing,
    requests: Sequence[ImageRequest],
    schedules: Sequence[ConditionSchedule],
    parts: Sequence[Sequence[int]],
) -> list[Picture]:
    """The requests' pictures: all parts at once, each in one thread.

    Steps and previews are those of the first part alone; times are the longest of all.
    """
    unseeing = replace(drawing.job, previewer=Previewer(unseen))
    silent = replace(drawing, job=unseeing, on_step=lambda: None)
    drawings = [drawing, *[silent] * (len(parts) - 1)]
    drawings = [replace(own, job=replace(own.job, timings={})) for own in drawings]
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(len(parts), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        drawn = [
            pool.submit(
                _draw,
                own,
                [requests[one] for one in part],
                [schedule.of_images(part) for schedule in schedules],
            )
            for own, part in zip(drawings, parts, strict=True)
        ]
    torch.set_num_threads(threads)  # MKL has one number for all threads
    for phase in ("denoise", "decode"):
        longest = max(own.job.timings.get(phase, 0.0) for own in drawings)
        timings = drawing.job.timings
        timings[phase] = timings.get(phase, 0.0) + longest
    return [picture for future in drawn for picture in future.result()][: len(requests)]


@torch.inference_mode()
def _draw(
    drawing: Drawing, requests: Sequence[ImageRequest], schedules: Sequence[ConditionSchedule]
) -> list[Picture]:
    """In a thread of its own, which the caller's inference mode does not reach."""
    return drawing.draw(requests, schedules)
