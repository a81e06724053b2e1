"""What words find in pictures: masks of start images, and details, which are drawn again.

A mask is found once for each picture, and kept for later images. A detail is a thing that is found
in a picture that was drawn, or given; it is enlarged in its own part.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFilter

from picowatch.engine.drawing.canvas import (
    Canvas,
    Size,
    decoded,
    fit,
    grown,
    part_of,
    read_canvas,
    redrawn_area,
)
from picowatch.engine.drawing.models import Networks
from picowatch.engine.drawing.work import Drawn, Work, timed
from picowatch.engine.networks.find import Found
from picowatch.engine.protocol import Place, RgbPicture
from picowatch.files.decoding import WHITE, Original, decode_picture, on_white
from picowatch.recipe.converters import SEEDS
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.parts import Detail, Find
from picowatch.recipe.request import DetailUse, ImageRequest

_KEPT = 500  # masks, of a few kB each
_HALF = 0.5  # from here on a pixel belongs to what was found


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
                wanted = request.found_mask
                if wanted and not self._of(request).places:
                    # The start image, or the first reference, in the size of the request.
                    canvas = self.canvas_of(request, request.size_before_upscale)
                    assert canvas
                    picture = Original(canvas.under(canvas.picture.convert("RGB")))
                    drawn = Drawn(picture, batch_size=0)
                    work.pictures[at] = drawn.warned(nothing_found(wanted))
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
        Image.fromarray(mask >= _HALF).save(file, "PNG")
        return Mask(tuple(Place("mask", *place) for place in places), file.getvalue())

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


class Part(NamedTuple):
    """A thing to draw again: the index of its picture, and what is drawn where."""

    at: int
    request: ImageRequest  # its start image and mask are the canvas, and its `image_hash` is own
    canvas: Canvas


class Details:
    """The details of a batch that an entry of `detail` names: found, then drawn again."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.parts: list[Part] = []

    def find(self, networks: Networks, work: Work) -> None:
        """Find the things in the pictures, and plan a part for each."""
        work.begin("find", len(work.requests))
        with timed(work.timings, "find"):
            for at in range(len(work.requests)):
                self._find_in(networks, work, at)
                work.step()

    def _find_in(self, networks: Networks, work: Work, at: int) -> None:
        """Find the things in a picture, and plan a part for each, the largest first."""
        request, drawn = work.requests[at], work.picture(at)
        use, picture = request.detail[self._number], on_white(drawn.picture)
        things: list[Found] = networks.use(
            "segmentation",
            use.model,
            use.finder_hash,
            lambda finder, halvings: finder.find(picture, use.find, use.confidence, halvings),
        )
        places = (Place("detail", thing.score, thing.box) for thing in things)
        drawn = drawn._replace(places=(*(drawn.places or ()), *places))
        work.pictures[at] = drawn if things else drawn.warned(nothing_found(use))
        areas = sorted((thing.mask >= _HALF for thing in things), key=lambda area: -area.sum())
        begin = len(self.parts)
        for area in areas[: use.count]:
            large = Image.fromarray(area).convert("L").resize(picture.size)
            redrawn = grown(large.point(lambda grey: 255 if grey >= WHITE else 0), use.grow)
            if not redrawn.getbbox():  # nothing is left of it
                continue
            soft = redrawn.filter(ImageFilter.GaussianBlur(use.mask_blur))
            canvas = part_of(picture, redrawn, soft, use.mask_padding, use.sides)
            number = len(self.parts) - begin
            part = _request(request, use, number, f"{at}.{number}")
            self.parts.append(Part(at, part, canvas))

    def canvas_of(self, request: ImageRequest, size: Size) -> Canvas:
        """Return a part's canvas, which is pasted later: a picture may have several."""
        key = request.image_hash
        canvas = next(part.canvas for part in self.parts if part.request.image_hash == key)
        assert canvas.redrawn
        return canvas._replace(  # smaller where memory is short
            picture=fit(canvas.picture, size, "stretch"),
            redrawn=fit(canvas.redrawn, size, "stretch", Image.Resampling.NEAREST),
            opacity=None,
        )

    def paste(self, drawn: Sequence[Drawn], work: Work) -> None:
        """Put the parts, drawn in their order, into their pictures, which tell how."""
        for part, new in zip(self.parts, drawn, strict=True):
            before = work.picture(part.at)
            canvas = part.canvas._replace(whole=before.picture.convert("RGB"))
            picture = canvas.under(new.picture.convert("RGB"))
            if before.picture.mode == "RGBA":
                picture.putalpha(before.picture.getchannel("A"))
            work.pictures[part.at] = new._replace(
                original=Original(picture),
                control_maps=before.control_maps,
                places=before.places,
                chunks=max(before.chunks, new.chunks),
                batch_size=before.batch_size or new.batch_size,
                warnings=tuple(dict.fromkeys((*before.warnings, *new.warnings))),
            )


def _request(request: ImageRequest, use: DetailUse, number: int, key: str) -> ImageRequest:
    """Return the request for a part, which has the `key` as its start image and mask."""
    has_own = use.prompt or use.negative_prompt
    width, height = use.sides
    return replace(
        request,
        prompt=use.prompt or request.prompt or use.find,
        negative_prompt=use.negative_prompt or request.negative_prompt,
        loras=use.loras if has_own else request.loras,
        embeddings=use.embeddings if has_own else request.embeddings,
        width=width,
        height=height,
        seed=(request.seed + number) % SEEDS,
        steps=use.steps or request.steps,
        denoising_strength=use.denoising_strength,
        image=key,
        image_hash=key,
        mask=key,
        mask_padding=None,
        extend="",
        references=(),
        control=(),
        hires=None,
        detail=(),
        tiling=False,
        variation_seed=None,
        variation_strength=0.0,
    )
