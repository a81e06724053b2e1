"""Masks that words find in start images: found once for each picture, and kept for later images."""

from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from picowatch.engine.drawing.canvas import Canvas, Size, decoded, read_canvas, redrawn_area
from picowatch.engine.drawing.networks import Networks
from picowatch.engine.drawing.work import Drawn, Work, timed
from picowatch.engine.protocol import Place, RgbPicture
from picowatch.files.decoding import Original, decode_picture
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
    """Finds the masks of requests, and keeps them for later images."""

    def __init__(self, networks: Networks, start_images: Path | None) -> None:
        self._networks, self._start_images = networks, start_images
        self._found = lru_cache(_KEPT)(self._find)

    def canvas_of(self, request: ImageRequest, size: Size) -> Canvas | None:
        """Return the request's start image, and its painted or found mask, in another size."""
        mask = self._of(request).picture if request.found_mask else None
        return read_canvas(self._start_images, request, size, mask)

    def search(self, work: Work) -> None:
        """Find the masks of a batch; a picture in which nothing is found is not drawn."""
        work.has_masks = True
        work.begin("find", len(work.requests))
        with timed(work.timings, "find"):
            for at, request in enumerate(work.requests):
                if not self._of(request).places:
                    work.pictures[at] = self._as_it_is(request)
                work.step()

    def _of(self, request: ImageRequest) -> Mask:
        wanted = request.found_mask
        assert wanted
        model = wanted.model, request.mask_finder_hash
        return self._found(request.masked, wanted.find, wanted.confidence, model)

    def _find(
        self, masked: tuple[str, str], phrase: str, confidence: float, model: tuple[str, str]
    ) -> Mask:
        path, digest = masked
        picture = decoded(decode_picture, self._start_images, digest, path)
        places, mask = self._networks.use(
            "segmentation",
            *model,
            lambda finder, halvings: finder.search(picture, phrase, confidence, halvings),
        )
        file = BytesIO()
        Image.fromarray(mask >= HALF).save(file, "PNG")
        return Mask(tuple(Place("mask", *place) for place in places), file.getvalue())

    def _as_it_is(self, request: ImageRequest) -> Drawn:
        """Return the start image, or the first reference, in the size of the request."""
        canvas = self.canvas_of(request, request.size_before_upscale)
        assert canvas and request.found_mask
        picture = Original(canvas.under(canvas.picture.convert("RGB")))
        return Drawn(picture, batch_size=0).warned(nothing_found(request.found_mask))

    def told(self, request: ImageRequest, drawn: Drawn) -> Drawn:
        """Add what was found to a picture, and the mask if the request wants to see it."""
        if not (wanted := request.found_mask):
            return drawn
        mask = self._of(request)
        drawn = drawn._replace(places=(*mask.places, *(drawn.places or ())))
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
