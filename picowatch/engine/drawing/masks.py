"""Masks that words find in start images: found once for each picture, and kept for later images."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from picowatch.engine.drawing.canvas import Canvas, Size, decoded, read_canvas, redrawn_area
from picowatch.engine.drawing.draw import Drawn
from picowatch.engine.drawing.finishing import Finishing, NetworkOf
from picowatch.engine.protocol import Place, RgbPicture
from picowatch.files.pictures import decode_picture
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.parts import Detail, Find
from picowatch.recipe.request import ImageRequest

_KEPT = 500  # a few kB each
HALF = 0.5  # from here on a pixel belongs to what was found


class Mask(NamedTuple):
    """What was found in a picture, the surest first, and all of it in white, as a PNG."""

    places: tuple[Place, ...]
    png: bytes

    @property
    def picture(self) -> Image.Image:
        """The mask, in the picture's size."""
        return Image.open(BytesIO(self.png)).convert("L")


class Masks:
    """Finds the masks of requests with the networks that `network_of` returns."""

    def __init__(self, network_of: NetworkOf, start_images: Path | None) -> None:
        self._network_of, self._start_images = network_of, start_images
        self._kept = lru_cache(_KEPT)(self._found)

    def canvas_of(self, request: ImageRequest, size: Size) -> Canvas | None:
        """Return the request's start image, and its painted or found mask, in another size."""
        mask = self._of(request).picture if request.found_mask else None
        return read_canvas(self._start_images, request, size, mask)

    def search(self, batch: Sequence[ImageRequest], finishing: Finishing) -> None:
        """Find the masks of a batch."""
        for request in batch:
            if request.found_mask:
                with finishing.timed("find"):
                    self._of(request)

    def around(
        self, batch: Sequence[ImageRequest], draw: Callable[[list[ImageRequest]], list[Drawn]]
    ) -> list[Drawn]:
        """Return a batch that `draw` draws, but for pictures in which nothing was found."""
        left = [one for one in batch if self._redraws(one)]
        drawn = iter(draw(left) if left else ())
        pictures = (next(drawn) if self._redraws(one) else self._as_it_is(one) for one in batch)
        return [self._told(*pair) for pair in zip(batch, pictures, strict=True)]

    def _redraws(self, request: ImageRequest) -> bool:
        return not request.found_mask or bool(self._of(request).places)

    def _of(self, request: ImageRequest) -> Mask:
        wanted = request.found_mask
        assert wanted
        model = wanted.model, request.mask_finder_hash
        return self._kept(*request.masked, wanted.find, wanted.confidence, *model)

    def _found(
        self, path: str, digest: str, phrase: str, confidence: float, model: str, sha256: str
    ) -> Mask:
        picture = decoded(decode_picture, self._start_images, digest, path)
        network = self._network_of("segmentation", model, sha256)
        places, mask = network.search(picture, phrase, confidence)
        file = BytesIO()
        Image.fromarray(mask >= HALF).save(file, "PNG")
        return Mask(tuple(Place("mask", *one) for one in places), file.getvalue())

    def _as_it_is(self, request: ImageRequest) -> Drawn:
        """Return the start image, or the first reference, in the size of the request."""
        canvas = self.canvas_of(request, request.size_before_upscale)
        assert canvas and request.found_mask
        warnings = (nothing_found(request.found_mask),)
        picture = canvas.under(canvas.picture.convert("RGB"))
        return Drawn(picture, batch_size=0, warnings=warnings)

    def _told(self, request: ImageRequest, drawn: Drawn) -> Drawn:
        """Add what was found to a picture, and the mask if the request wants to see it."""
        if (wanted := request.found_mask) is None:
            return drawn
        mask = self._of(request)
        drawn = drawn._replace(places=mask.places)
        if not wanted.preview:
            return drawn
        size = request.size_before_upscale
        pixels = redrawn_area(mask.picture, request, size).convert("RGB").tobytes()
        return drawn._replace(control_maps=(*drawn.control_maps, RgbPicture(*size, pixels)))


def nothing_found(wanted: Find | Detail) -> str:
    """Return the warning about a picture that stays as it is."""
    return (
        f"Nothing was found for '{shown(wanted.find)}' with a confidence of {wanted.confidence:g}, "
        "so the picture stays as it is. Try other words, or a lower confidence."
    )
