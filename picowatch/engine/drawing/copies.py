"""What no model draws: copies of pictures, and the own bits and colours of photos. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path

from PIL import ImageChops

from picowatch.engine.colours import bands, deep_in_srgb, resized
from picowatch.engine.drawing.canvas import decoded
from picowatch.engine.drawing.work import Drawn, Interrupted, Work, timed
from picowatch.engine.protocol import EngineOptions, OnPreview, OnProgress, RenderedImage
from picowatch.files import decoding
from picowatch.recipe.converters import SAME
from picowatch.recipe.request import ImageRequest

_NO_EFFECT = "colour: same had no effect, because"


class CopyRenderer:
    """Makes copies, a picture at a time."""

    def __init__(self, options: EngineOptions, on_preview: OnPreview) -> None:
        self._start_images = options.start_images

    def render(
        self, batch: Sequence[ImageRequest], on_progress: OnProgress, interrupted: Interrupted
    ) -> Iterator[RenderedImage]:
        """Yield the copies in the batch's order, without keeping any of them."""
        work = Work(batch, on_progress, interrupted)
        for at, request in enumerate(batch):
            work.begin("resize", len(batch), at)
            # Reading is most of the work. Where nothing is resized, it counts as writing.
            with timed(work.own[at] if request.resize_to else {}, "resize"):
                work.pictures[at] = given_picture(request, self._start_images)
                _resize(work, at)
            work.step()
            copy = work.picture(at).as_rendered("cpu", work.timings_of(at), None)
            yield replace(copy, versions={})  # of libraries that have no part in it
            work.pictures[at] = None


def given_picture(request: ImageRequest, start_images: Path | None) -> Drawn:
    """Return a start image as if it had been drawn."""
    read = decoding.decode_original if request.colour == SAME and not request.draws else _in_srgb
    return Drawn(decoded(read, start_images, request.image_hash, request.image))


def _in_srgb(content: bytes) -> decoding.Original:
    if decoding.has_deep_colours(content):
        original = decoding.decode_original(content)
        if original.low and original.profile and (picture := deep_in_srgb(original)):
            return decoding.Original(picture)
    return decoding.Original(decoding.decode_with_alpha(content))


def resize(work: Work, at: int) -> None:
    """Resize a picture as a pass."""
    work.begin("resize", len(work.requests), at)
    _resize(work, at)
    work.step()


def _resize(work: Work, at: int) -> None:
    if wanted := work.requests[at].resize_to:
        drawn = work.picture(at)
        work.pictures[at] = drawn._replace(original=resized(drawn.original, wanted))


def in_own_colours(drawn: Drawn, request: ImageRequest, start_images: Path | None) -> Drawn:
    """Return a photo that was drawn in part with its own bits and colours, if it keeps these.

    A pixel that is as it was is the photo's own. The others have 8 bits, in the photo's colours.
    """
    if request.colour != SAME or not request.leaves_a_part:
        return drawn
    named = start_images, request.image_hash, request.image
    photo = decoded(decoding.decode_original, *named)
    picture, low, profile = photo
    if picture.mode == "RGBA":
        return drawn.warned(f"{_NO_EFFECT} the photo is transparent.")
    if picture.size != drawn.picture.size:
        return drawn.warned(f"{_NO_EFFECT} the picture has another size than the photo.")
    if not low and not profile:
        return drawn
    if request.only_details:
        before = given_picture(request, start_images).picture
    else:
        before = decoded(decoding.decode_picture, *named)
    for top, bottom in bands(*picture.size):
        box = 0, top, picture.width, bottom
        shown = drawn.picture.crop(box).convert("RGB")
        if not (new := decoding.in_profile(shown, profile)):
            why = "nothing can be written in the colours of the photo's profile"
            return drawn.warned(f"{_NO_EFFECT} {why}.")
        change = ImageChops.difference(before.crop(box), shown)
        planes = change.point(lambda level: 255 if level else 0).split()
        changed = reduce(ImageChops.lighter, planes)  # white where any colour is another
        photo.paste(decoding.Original(new, new), (0, top), changed)  # of 257 * n both bytes are n
    return drawn._replace(original=photo)
