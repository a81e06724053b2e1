"""Pictures, drawn or given, enlarged as the field `upscale` says."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from picowatch.engine.callbacks import raise_if
from picowatch.engine.canvas import decoded
from picowatch.engine.draw import Drawn, Interrupted, Picture
from picowatch.engine.protocol import OnStep
from picowatch.engine.upscale import MOST_OVERLAP, Upscalers
from picowatch.files.pictures import decode_with_alpha
from picowatch.recipe.request import ImageRequest


class TileSteps:
    """Counts the steps of a batch together with the tiles that its pictures are enlarged in.

    Between two tiles it looks whether the batch is to end.
    """

    def __init__(
        self,
        upscalers: Upscalers,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted,
    ) -> None:
        self._tiles = sum(_tiles(upscalers, request) for request in batch)
        self._on_step = on_step
        self._interrupted = interrupted
        self._done, self._total = 0, self._tiles

    def drawn(self, done: int, total: int) -> None:
        """Report a step of drawing."""
        self._done, self._total = done, total + self._tiles
        self._on_step(self._done, self._total)

    def before_tile(self) -> None:
        """Give a sign of life before a tile for the second pass of hires."""
        self._on_step(self._done, self._total)
        raise_if(self._interrupted)

    def before_last_tile(self) -> None:
        """Report the steps before a tile of a finished picture."""
        self.before_tile()
        self._done = min(self._done + 1, self._total)


def _tiles(upscalers: Upscalers, request: ImageRequest) -> int:
    if request.upscale is None:
        return 0
    before = request.size_before_upscale
    model, hash_ = request.upscale.model, request.upscaler_hash
    return upscalers.tiles(model, hash_, before, request.published_size)


def given_picture(request: ImageRequest, start_images: Path | None) -> Drawn:
    """A start image as if it had been drawn."""
    image, alpha = decoded(decode_with_alpha, start_images, request.image_hash, request.image)
    transparency = alpha.tobytes() if alpha else b""
    picture = Picture(*image.size, image.tobytes(), alpha=transparency)
    return Drawn(picture, chunks=0, batch_size=1)


def enlarged_pictures(
    upscalers: Upscalers,
    batch: Sequence[ImageRequest],
    pictures: Sequence[Drawn],
    steps: TileSteps,
) -> list[Drawn]:
    """What was drawn or given, enlarged if the batch says so: its images agree in that.

    A picture that repeats is enlarged with a margin that continues at the opposite edge.
    """
    upscale = batch[0].upscale
    if upscale is None:
        return list(pictures)
    margin = MOST_OVERLAP if batch[0].tiling else 0
    edge = round(margin * (upscale.scale or 1))
    found = []
    for request, drawn in zip(batch, pictures, strict=True):
        one = drawn.picture
        array = np.frombuffer(one.pixels, np.uint8).reshape(one.height, one.width, 3)
        image = Image.fromarray(np.pad(array, [(margin,) * 2, (margin,) * 2, (0, 0)], "wrap"))
        large = upscalers.enlarged(
            image,
            upscale.model,
            request.upscaler_hash,
            upscale.size_of(*image.size),
            steps.before_last_tile,
        )
        size = upscale.size_of(one.width, one.height)
        large = large.crop((edge, edge, edge + size[0], edge + size[1]))
        alpha = one.alpha
        if alpha:
            grey = Image.frombytes("L", (one.width, one.height), alpha)
            alpha = grey.resize(size, Image.Resampling.BICUBIC).tobytes()
        enlarged = Picture(*size, large.tobytes(), one.control_maps, alpha)
        found.append(drawn._replace(picture=enlarged))
    return found
