"""Draws details again: each thing that words find in a picture, enlarged in its own part."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from PIL import Image, ImageFilter

from picowatch.engine.drawing.canvas import Canvas, Size, fit, grown, part_of
from picowatch.engine.drawing.masks import HALF, nothing_found
from picowatch.engine.drawing.networks import Networks
from picowatch.engine.drawing.work import Drawn, Work, timed
from picowatch.engine.networks.find import Finder, Found
from picowatch.engine.protocol import Place
from picowatch.files.decoding import WHITE, Original, on_white
from picowatch.recipe.converters import SEEDS
from picowatch.recipe.request import DetailUse, ImageRequest


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
            for at, request in enumerate(work.requests):
                use, drawn = request.detail[self._number], work.picture(at)
                picture = on_white(drawn.picture)
                find = partial(_things_in, picture, use)
                things = networks.use("segmentation", use.model, use.finder_hash, find)
                work.pictures[at] = _told(drawn, use, things)
                self.parts += _parts(at, request, use, picture, things)
                work.step()

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
        """Put the parts, drawn in their order, into their pictures."""
        for part, new in zip(self.parts, drawn, strict=True):
            work.pictures[part.at] = _pasted(work.picture(part.at), part.canvas, new)


def _things_in(picture: Image.Image, use: DetailUse, finder: Finder, halvings: int) -> list[Found]:
    return finder.find(picture, use.find, use.confidence, halvings)


def _told(drawn: Drawn, use: DetailUse, things: Sequence[Found]) -> Drawn:
    """Add what was found to a picture, or that nothing was."""
    places = (Place("detail", thing.score, thing.box) for thing in things)
    found = drawn._replace(places=(*(drawn.places or ()), *places))
    return found if things else found.warned(nothing_found(use))


def _parts(
    at: int, request: ImageRequest, use: DetailUse, picture: Image.Image, things: Sequence[Found]
) -> list[Part]:
    """Return what to draw of a picture, the largest thing first."""
    areas = sorted((thing.mask >= HALF for thing in things), key=lambda area: -area.sum())
    canvases = (_canvas(use, picture, Image.fromarray(area)) for area in areas[: use.count])
    return [
        Part(at, _request(request, use, number, f"{at}.{number}"), canvas)
        for number, canvas in enumerate(filter(None, canvases))
    ]


def _canvas(use: DetailUse, picture: Image.Image, area: Image.Image) -> Canvas | None:
    """Return the part of a picture with a thing; None if nothing is left of that."""
    large = area.convert("L").resize(picture.size)
    redrawn = grown(large.point(lambda grey: 255 if grey >= WHITE else 0), use.grow)
    if not redrawn.getbbox():
        return None
    soft = redrawn.filter(ImageFilter.GaussianBlur(use.mask_blur))
    return part_of(Canvas(picture, redrawn, soft), use.mask_padding, use.sides)


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


def _pasted(before: Drawn, canvas: Canvas, drawn: Drawn) -> Drawn:
    """Return a picture with a part that was drawn, which tells how."""
    below, part = before.picture.convert("RGB"), drawn.picture.convert("RGB")
    picture = canvas._replace(whole=below).under(part)
    if before.picture.mode == "RGBA":
        picture.putalpha(before.picture.getchannel("A"))
    return drawn._replace(
        original=Original(picture),
        control_maps=before.control_maps,
        places=before.places,
        chunks=max(before.chunks, drawn.chunks),
        batch_size=before.batch_size or drawn.batch_size,
        warnings=tuple(dict.fromkeys((*before.warnings, *drawn.warnings))),
    )
