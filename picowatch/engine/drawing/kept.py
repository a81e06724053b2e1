"""What no model has drawn of a photo: it keeps its own bits and colours. Imports no torch."""

from pathlib import Path

from PIL import Image, ImageChops

from picowatch.engine.drawing.canvas import decoded
from picowatch.engine.drawing.copies import given_picture
from picowatch.engine.drawing.work import Drawn, Work, made_of
from picowatch.files.pictures import Original, decode_original, decode_picture, in_profile
from picowatch.recipe.converters import SAME
from picowatch.recipe.request import ImageRequest

_NO_EFFECT = "colour: same had no effect, because"
_OTHER_SIZE = f"{_NO_EFFECT} the picture has another size than the photo."
_TRANSPARENT = f"{_NO_EFFECT} the photo is transparent."
_ONE_WAY = f"{_NO_EFFECT} nothing can be written in the colours of the photo's profile."


def keep_colours(work: Work, start_images: Path | None) -> None:
    """Give the photos of a batch that are drawn in part their own bits and colours again.

    A pixel that is as it was is the photo's own. The others have 8 bits, in the photo's colours.
    """
    for at, request in enumerate(work.requests):
        if request.colour == SAME and request.leaves_a_part:
            work.pictures[at] = _kept(work.picture(at), request, start_images)


def _kept(drawn: Drawn, request: ImageRequest, start_images: Path | None) -> Drawn:
    named = start_images, request.image_hash, request.image
    picture, low, profile = decoded(decode_original, *named)
    if picture.mode == "RGBA":
        return _warned(drawn, _TRANSPARENT)
    if picture.size != drawn.picture.size:
        return _warned(drawn, _OTHER_SIZE)
    if not low and not profile:
        return drawn
    new = in_profile(drawn.picture.convert("RGB"), profile)
    if not new:
        return _warned(drawn, _ONE_WAY)
    if request.only_details:
        before = given_picture(request, start_images).picture
    else:
        before = decoded(decode_picture, *named)
    change = ImageChops.difference(before, drawn.picture.convert("RGB"))
    red, green, blue = change.point(lambda level: 255 if level else 0).split()
    changed = ImageChops.lighter(ImageChops.lighter(red, green), blue)
    high = Image.composite(new, picture, changed)
    # Of 257 times a number both bytes are that number.
    return made_of(drawn, Original(high, low and Image.composite(new, low, changed), profile))


def _warned(drawn: Drawn, why: str) -> Drawn:
    return drawn._replace(warnings=(*drawn.warnings, why))
