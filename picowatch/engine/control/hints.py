"""The maps that ControlNets follow: control images, fitted to a pass and preprocessed."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from picowatch.engine.control.preprocess import preprocess
from picowatch.engine.control.residuals import Hint
from picowatch.engine.drawn import Job
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.protocol import ControlMap
from picowatch.engine.unet.canvas import Canvas, read_picture
from picowatch.recipe.request import ControlUse, ImageRequest

# A map's value where an inpainting ControlNet has to invent.
_UNKNOWN = -1.0


def hints_of(
    requests: Sequence[ImageRequest],
    canvases: Sequence[Canvas | None],
    size: tuple[int, int],
    loaded: Loaded,
    job: Job,
    *,
    second: bool,
) -> tuple[list[Hint], list[tuple[ControlMap, ...]]]:
    """The maps of a pass at this size: as each ControlNet takes them, and each image's to show.

    In the second pass the edges of canny are softened, as in A1111: at the larger size they would
    be drawn along as lines.
    """
    hints = []
    shown: list[list[ControlMap]] = [[] for _ in requests]
    for index, first in enumerate(requests[0].control):
        maps = []
        for request, canvas, own in zip(requests, canvases, shown, strict=True):
            use = request.control[index]
            found = _map(request, use, canvas, size, job)
            maps.append(found)
            if use.preview:
                own.append(_to_show(found))
        stacked = torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2)
        hints.append(
            Hint(
                loaded.controlnets[first.model_hash],
                first,
                stacked.to(job.device, loaded.unet.dtype),
                soft=second and first.preprocess == "canny",
            )
        )
    return hints, [tuple(own) for own in shown]


def _map(
    request: ImageRequest,
    use: ControlUse,
    canvas: Canvas | None,
    size: tuple[int, int],
    job: Job,
) -> NDArray[np.float32]:
    """Height x width x RGB, 0 to 1."""
    picture = read_picture(job.start_images, use.image_hash, use.image, size, request.resize)
    if use.preprocess == "depth":
        picture = job.guess_depth(picture, use)
    elif use.preprocess != "inpaint":
        picture = preprocess(picture, use)
    values: NDArray[np.float32] = picture.astype(np.float32) / np.float32(255)
    if use.preprocess == "inpaint" and canvas and canvas.redrawn is not None:
        values[canvas.redrawn > 0] = _UNKNOWN
    return values


def _to_show(values: NDArray[np.float32]) -> ControlMap:
    height, width = values.shape[:2]
    pixels = (values.clip(0, 1) * 255).round().astype(np.uint8).tobytes()
    return ControlMap(width, height, pixels)
