"""What is done to the pictures of a batch at last: enlarged, and cut out.

They are those that were drawn, or the given ones of recipes that draw nothing.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from picowatch.engine.callbacks import raise_if
from picowatch.engine.canvas import decoded
from picowatch.engine.cutout import Cutouts
from picowatch.engine.draw import Drawn, Interrupted
from picowatch.engine.latents import Enlarge
from picowatch.engine.protocol import OnStep
from picowatch.engine.upscale import MOST_OVERLAP, Upscalers
from picowatch.files.pictures import decode_with_alpha
from picowatch.recipe.request import ImageRequest

# A1111's names of what resizes pixels for the second pass without an upscaler.
_RESAMPLING = {"Lanczos": Image.Resampling.LANCZOS, "Nearest": Image.Resampling.NEAREST}


class Finishing:
    """Finishes the pictures of a batch, and counts tiles and cutouts together with its steps.

    Between two of them it looks whether the batch is to end.
    """

    def __init__(
        self,
        upscalers: Upscalers,
        cutouts: Cutouts,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        interrupted: Interrupted,
    ) -> None:
        self._upscalers, self._cutouts = upscalers, cutouts
        self._batch = batch
        self._on_step = on_step
        self._interrupted = interrupted
        self._tiles = sum(
            upscalers.tiles(
                one.upscale.model,
                one.upscaler_hash,
                one.size_before_upscale,
                one.published_size,
            )
            for one in batch
            if one.upscale
        )
        self._tiles += sum(bool(one.cutout) for one in batch)
        self._done, self._total = 0, self._tiles

    def drawn(self, done: int, total: int) -> None:
        """Report a step of drawing."""
        self._done, self._total = done, total + self._tiles
        self._on_step(self._done, self._total)

    def for_hires(self, request: ImageRequest) -> Enlarge:
        """Return what makes the second pass' picture of the first one's."""
        assert request.hires is not None
        name, size = request.hires.upscaler, request.size_before_upscale
        if name in _RESAMPLING:
            return lambda picture: picture.resize(size, _RESAMPLING[name])
        hash_ = request.hires_upscaler_hash
        return lambda picture: self._upscalers.enlarged(
            picture, name, hash_, size, self._before_tile
        )

    def enlarged(self, pictures: Sequence[Drawn]) -> list[Drawn]:
        """Return what was drawn or given, enlarged if the batch says so: its images agree in that.

        A picture that repeats is enlarged with a margin that continues at the opposite edge.
        """
        return [
            self._enlarged(request, drawn) if request.upscale else drawn
            for request, drawn in zip(self._batch, pictures, strict=True)
        ]

    def cut_out(self, pictures: Sequence[Drawn]) -> list[Drawn]:
        """Return what was drawn or given, without its background if the batch says so."""
        return [
            self._cut_out(request, drawn) if request.cutout else drawn
            for request, drawn in zip(self._batch, pictures, strict=True)
        ]

    def _cut_out(self, request: ImageRequest, drawn: Drawn) -> Drawn:
        self._before_last_tile()
        return self._cutouts.cut_out(drawn, request.cutout, request.cutout_hash)

    def _enlarged(self, request: ImageRequest, drawn: Drawn) -> Drawn:
        upscale = request.upscale
        assert upscale is not None
        margin = MOST_OVERLAP if request.tiling else 0
        edge = round(margin * (upscale.scale or 1))
        array = np.frombuffer(drawn.pixels, np.uint8).reshape(drawn.height, drawn.width, 3)
        image = Image.fromarray(np.pad(array, [(margin,) * 2, (margin,) * 2, (0, 0)], "wrap"))
        large = self._upscalers.enlarged(
            image,
            upscale.model,
            request.upscaler_hash,
            upscale.size_of(*image.size),
            self._before_last_tile,
        )
        size = upscale.size_of(drawn.width, drawn.height)
        large = large.crop((edge, edge, edge + size[0], edge + size[1]))
        alpha = drawn.alpha
        if alpha:
            grey = Image.frombytes("L", (drawn.width, drawn.height), alpha)
            alpha = grey.resize(size, Image.Resampling.BICUBIC).tobytes()
        width, height = size
        return drawn._replace(width=width, height=height, pixels=large.tobytes(), alpha=alpha)

    def _before_tile(self) -> None:
        """Give a sign of life."""
        self._on_step(self._done, self._total)
        raise_if(self._interrupted)

    def _before_last_tile(self) -> None:
        """Report the steps before a tile of a finished picture."""
        self._before_tile()
        self._done = min(self._done + 1, self._total)


def given_picture(request: ImageRequest, start_images: Path | None) -> Drawn:
    """Return a start image as if it had been drawn."""
    return Drawn.of(decoded(decode_with_alpha, start_images, request.image_hash, request.image))
