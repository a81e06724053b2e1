"""Small pictures on a CPU: a part of the batch on each core.

A small picture's layers are too short to share out: with two threads on each, both wait for each
other some thousand times a second, and for whatever else the computer does. So every core renders
some of the pictures by itself (benchmarks/RESULTS.md).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch

from picowatch.engine.drawn import Picture
from picowatch.engine.previewer import Previewer
from picowatch.engine.protocol import unseen
from picowatch.engine.unet.conditions import ConditionSchedule
from picowatch.engine.unet.denoise import EagerUnet
from picowatch.engine.unet.draw import Drawing
from picowatch.recipe.request import ImageRequest

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

    Steps and previews are those of the first part alone; times are the longest of all. Compiled
    code is not used: torch runs it with Python's lock held, so that parts would take turns.
    """
    eager = EagerUnet(drawing.loaded.unet)
    drawing = replace(drawing, unet=lambda shape, steps: eager)
    silent = replace(drawing, on_step=lambda: None, previewer=Previewer(unseen))
    drawings = [replace(drawing if part is parts[0] else silent, timings={}) for part in parts]
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
        longest = max(own.timings.get(phase, 0.0) for own in drawings)
        drawing.timings[phase] = drawing.timings.get(phase, 0.0) + longest
    return [picture for future in drawn for picture in future.result()][: len(requests)]


@torch.inference_mode()
def _draw(
    drawing: Drawing, requests: Sequence[ImageRequest], schedules: Sequence[ConditionSchedule]
) -> list[Picture]:
    """In a thread of its own, which the caller's inference mode does not reach."""
    return drawing.draw(requests, schedules)
