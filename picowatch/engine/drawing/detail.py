"""Draws details again: each thing that words find in a picture, enlarged in its own part."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from PIL import Image, ImageFilter

from picowatch.engine.drawing.canvas import Canvas, Size, grown, part_of
from picowatch.engine.drawing.draw import Drawn
from picowatch.engine.drawing.finishing import Finishing, NetworkOf
from picowatch.engine.drawing.masks import HALF, nothing_found
from picowatch.engine.networks.find import Finder, Found
from picowatch.engine.protocol import Place
from picowatch.files.pictures import WHITE, on_white
from picowatch.recipe.converters import SEEDS
from picowatch.recipe.request import DetailUse, ImageRequest


class Part(NamedTuple):
    """A thing to draw again: the index of its picture, and what is drawn where.

    The request's start image and mask are the canvas, and its `image_hash` is the part's own.
    """

    at: int
    request: ImageRequest
    canvas: Canvas


def canvases_of(parts: Sequence[Part]) -> Callable[[ImageRequest, Size], Canvas]:
    """Return what gives a part's canvas, which is pasted later: a picture may have several."""
    canvases = {part.request.image_hash: part.canvas._replace(opacity=None) for part in parts}
    return lambda request, size: canvases[request.image_hash]


def redrawn(
    batch: Sequence[ImageRequest],
    pictures: Sequence[Drawn],
    network_of: NetworkOf,
    finishing: Finishing,
    draw: Callable[[Sequence[Part]], list[Drawn]],
) -> list[Drawn]:
    """Return the pictures after all passes; `draw` draws the things of one pass together."""
    found = list(pictures)
    for number in range(len(batch[0].detail)):
        parts: list[Part] = []
        for at, request in enumerate(batch):
            use, picture = request.detail[number], on_white(found[at].picture)
            with finishing.timed("find"):
                finder: Finder = network_of("segmentation", use.model, use.finder_hash)
                things = finder.find(picture, use.find, use.confidence)
            found[at] = _told(found[at], use, things)
            parts += _parts(at, request, use, picture, things)
        for part, drawn in zip(parts, draw(parts) if parts else (), strict=True):
            found[part.at] = _pasted(found[part.at], part.canvas, drawn)
    return found


def _told(drawn: Drawn, use: DetailUse, things: Sequence[Found]) -> Drawn:
    """Add what was found to a picture, or that nothing was."""
    places = tuple(Place("detail", one.score, one.box) for one in things)
    nothing = () if things else (nothing_found(use),)
    return drawn._replace(
        places=(*(drawn.places or ()), *places), warnings=(*drawn.warnings, *nothing)
    )


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
        picture=picture,
        control_maps=before.control_maps,
        places=before.places,
        chunks=max(before.chunks, drawn.chunks),
        batch_size=before.batch_size or drawn.batch_size,
        warnings=tuple(dict.fromkeys((*before.warnings, *drawn.warnings))),
    )
