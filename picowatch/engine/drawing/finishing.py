"""Finishes pictures, drawn or given: enlarges them and cuts them out."""

from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from picowatch.engine.drawing.models import Networks
from picowatch.engine.drawing.work import Drawn, Work, timed
from picowatch.engine.networks import cutout
from picowatch.engine.networks.upscale import MOST_OVERLAP, Network, enlarged
from picowatch.files.decoding import Original
from picowatch.recipe.parts import Cutout
from picowatch.recipe.request import ImageRequest


def enlarged_for_hires(
    networks: Networks, request: ImageRequest, work: Work, pictures: list[Image.Image]
) -> list[Image.Image]:
    """Return the pictures of the first run of hires in the size of the second."""
    assert request.hires is not None
    name, sha256 = request.hires.upscaler, request.hires_upscaler_hash

    def larger(at: int, network: Network, halvings: int) -> Image.Image:
        given, size = Original(pictures[at]), request.drawn_size
        begin = partial(work.begin, "enlarge", len(pictures), at)
        return enlarged(network, given, size, work.look, work.step, begin, halvings).picture

    with timed(work.timings, "enlarge"):
        return [
            networks.use("upscaler", name, sha256, partial(larger, at))
            for at in range(len(pictures))
        ]


def enlarge(networks: Networks, work: Work, at: int) -> None:
    upscale, sha256 = work.requests[at].upscale, work.requests[at].upscaler_hash
    assert upscale is not None
    large = networks.use("upscaler", upscale.model, sha256, partial(_enlarged, work, at))
    work.pictures[at] = work.picture(at)._replace(original=large)


def _enlarged(work: Work, at: int, network: Network, halvings: int) -> Original:
    """Return a picture, enlarged with `tiling` together with a margin from the opposite edges."""
    upscale, given = work.requests[at].upscale, work.picture(at).original
    assert upscale is not None
    margin = MOST_OVERLAP if work.requests[at].tiling else 0
    edge, picture = round(margin * (upscale.scale or 1)), given.picture
    if picture.mode == "RGBA":
        given = given._replace(picture=picture.convert("RGB"))
    if margin:  # only what is drawn is a tile, so it has 8 bits
        pixels = np.asarray(given.picture)
        padded = np.pad(pixels, [(margin,) * 2, (margin,) * 2, (0, 0)], "wrap")
        given = Original(Image.fromarray(padded), None, given.profile)
    target, size = upscale.size_of(*given.picture.size), upscale.size_of(*picture.size)
    begin = partial(work.begin, "upscale", len(work.requests), at)
    large = enlarged(network, given, target, work.look, work.step, begin, halvings)
    if margin:
        large = large.crop((edge, edge, edge + size[0], edge + size[1]))
    if picture.mode == "RGBA":
        large.picture.putalpha(picture.getchannel("A").resize(size, Image.Resampling.BICUBIC))
    return large


def cut_out(networks: Networks, work: Work, at: int) -> None:
    work.begin("cutout", len(work.requests), at)
    wanted, sha256 = work.requests[at].cutout, work.requests[at].cutout_hash
    assert wanted is not None
    cut = networks.use(*wanted.file, sha256, partial(_cut, work.picture(at), wanted))
    work.pictures[at] = cut._replace(original=cutout.framed(cut.original, wanted))
    work.step()


def _cut(drawn: Drawn, wanted: Cutout, network: Any, halvings: int) -> Drawn:
    original = drawn.original
    if wanted.find:
        cut, found = cutout.cut_out_by(network, drawn.picture, wanted, halvings)
        drawn = drawn._replace(places=(*(drawn.places or ()), *found))
    else:
        cut, told = cutout.cut_out(network, drawn.picture)
        drawn = drawn.warned(*told)
    if low := original.low:  # of a colour that changed, it repeats the higher byte
        own = cut.convert("RGB")
        change = ImageChops.difference(own, drawn.picture.convert("RGB"))
        changed = change.point(lambda level: 255 if level else 0)
        planes = zip(own.split(), low.split(), changed.split(), strict=True)
        low = Image.merge("RGB", [Image.composite(*plane) for plane in planes])
    return drawn._replace(original=original._replace(picture=cut, low=low))
