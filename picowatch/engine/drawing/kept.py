"""What no model has drawn of a photo: it keeps its own bits and colours. Imports no torch."""

from pathlib import Path

from PIL import Image, ImageChops

from picowatch.engine.bits import bands
from picowatch.engine.drawing.canvas import decoded
from picowatch.engine.drawing.copies import given_picture
from picowatch.engine.drawing.work import Drawn, Work
from picowatch.files.decoding import Original, decode_original, decode_picture, in_profile
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
    photo = decoded(decode_original, *named)
    picture, low, profile = photo
    if picture.mode == "RGBA":
        return drawn.warned(_TRANSPARENT)
    if picture.size != drawn.picture.size:
        return drawn.warned(_OTHER_SIZE)
    if not low and not profile:
        return drawn
    if request.only_details:
        before = given_picture(request, start_images).picture
    else:
        before = decoded(decode_picture, *named)
    for top, bottom in bands(*picture.size):
        box = 0, top, picture.width, bottom
        shown = drawn.picture.crop(box).convert("RGB")
        if not (new := in_profile(shown, profile)):
            return drawn.warned(_ONE_WAY)
        changed = _where(ImageChops.difference(before.crop(box), shown))
        photo.paste(Original(new, new), (0, top), changed)  # of 257 * n both bytes are n
    return drawn._replace(original=photo)


def _where(change: Image.Image) -> Image.Image:
    """Return white where any colour is not black."""
    red, green, blue = change.point(lambda level: 255 if level else 0).split()
    return ImageChops.lighter(ImageChops.lighter(red, green), blue)
