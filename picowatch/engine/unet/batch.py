"""Draws a batch with a UNet: groups of equal prompts' lengths, in parts where that is faster."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Any

import torch

from picowatch.engine.batches import evaluations
from picowatch.engine.compiled.compiled import BatchUnets, CompiledUnets
from picowatch.engine.devices import LARGE_NATIVE_SIZE
from picowatch.engine.drawn import Drawn, Job, Picture, timed
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.protocol import OnStep
from picowatch.engine.unet.draw import Denoised, Drawing
from picowatch.engine.unet.parallel import draw_parts, equal_parts
from picowatch.engine.unet.tiling import seamless
from picowatch.recipe.request import ImageRequest

# The number of chunks, and a number that is an image's own where each is drawn by itself.
_Group = tuple[int, int]


def draw_batch(
    loaded: Loaded, batch: Sequence[ImageRequest], job: Job, compiled: CompiledUnets
) -> list[Drawn]:
    """The pictures of a batch, in its order.

    Images whose prompts differ in their number of chunks are drawn group after group: to pad a
    prompt to its neighbour's length would change its picture. All groups are encoded before the
    first is denoised, and decoded after the last: models that take turns on a GPU go there once.
    """
    job.previewer.follow(loaded.vae, loaded.family)
    groups = _groups(batch, loaded, alone=job.alone)
    repeats = batch[0].tiling
    # A compiled UNet has the edges that it was compiled with.
    unets = BatchUnets(compiled, loaded, eager=job.eager or repeats or not loaded.can_be_compiled)
    drawing = Drawing(
        loaded,
        job.device,
        job.start_images,
        job.guess_depth,
        unets,
        _counted(job.on_step, len(groups) * evaluations(batch[0])),
        job.interrupted,
        job.timings,
        job.previewer,
        job.enlarge_for_hires(batch[0]),
    )
    finished: dict[int, tuple[Picture, int, int]] = {}
    with seamless(_repeating(loaded) if repeats else ()):
        for (chunks, _), indexes, pictures in _drawn(drawing, batch, groups):
            for index, picture in zip(indexes, pictures, strict=True):
                finished[index] = picture, chunks, len(indexes)
    unets.consider(job.timings["denoise"], job.waiting / len(batch))
    return [Drawn(*drawn, compiled=unets.all_compiled) for _, drawn in sorted(finished.items())]


def _repeating(loaded: Loaded) -> list[Any]:
    """What draws pictures that repeat; a VAE with tiles of its own must not: `tiling.wrapped`."""
    models = [loaded.unet, *loaded.controlnets.values()]
    return models if loaded.vae.use_tiling else [*models, loaded.vae]


def _drawn(
    drawing: Drawing, batch: Sequence[ImageRequest], groups: dict[_Group, list[int]]
) -> Iterator[tuple[_Group, list[int], list[Picture]]]:
    """The pictures of each group, in parts where that is faster."""
    requests = {group: [batch[index] for index in indexes] for group, indexes in groups.items()}
    with timed(drawing.timings, "encode"):
        encode = drawing.loaded.prompts.schedules
        schedules = {group: encode(requests[group], group[0]) for group in groups}
    denoised: dict[_Group, Denoised] = {}
    for group, indexes in groups.items():
        parts = equal_parts(len(indexes), _cores(drawing))
        if len(parts) > 1:
            pictures = draw_parts(drawing, requests[group], schedules[group], parts)
            yield group, indexes, pictures
        else:
            denoised[group] = drawing.denoise(requests[group], schedules[group])
    for group, latents in denoised.items():
        yield group, groups[group], drawing.decode(latents)


def _cores(drawing: Drawing) -> int:
    """How many parts of a batch to draw at a time."""
    loaded = drawing.loaded
    small = loaded.native_size < LARGE_NATIVE_SIZE and loaded.unet.dtype == torch.float32
    return torch.get_num_threads() if small and drawing.device.type == "cpu" else 1


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
