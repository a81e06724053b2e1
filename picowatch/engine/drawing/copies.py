"""Copies of pictures, in which no model has a part: resized, or only written again. No torch."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from picowatch.engine.drawing.canvas import decoded
from picowatch.engine.drawing.work import Drawn, Interrupted, Work, timed
from picowatch.engine.light import deep_in_srgb
from picowatch.engine.protocol import EngineOptions, OnPreview, OnProgress, RenderedImage
from picowatch.engine.resize import resized
from picowatch.files.decoding import Original, decode_original, decode_with_alpha, has_deep_colours
from picowatch.recipe.converters import SAME
from picowatch.recipe.passes import PassKind
from picowatch.recipe.request import ImageRequest

_PHASE: PassKind = "resize"


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
            work.begin(_PHASE, len(batch), at)
            # Reading is most of the work. Where nothing is resized, it counts as writing.
            with timed(work.own[at] if request.resize_to else {}, _PHASE):
                work.pictures[at] = given_picture(request, self._start_images)
            resize_picture(work, at)
            copy = work.picture(at).as_rendered("cpu", work.timings_of(at), None)
            yield replace(copy, versions={})  # of libraries that have no part in it
            work.pictures[at] = None
            work.step()


def given_picture(request: ImageRequest, start_images: Path | None) -> Drawn:
    """Return a start image as if it had been drawn."""
    is_kept = request.colour == SAME and not request.draws
    read = decode_original if is_kept else _in_srgb
    return Drawn(decoded(read, start_images, request.image_hash, request.image))


def _in_srgb(content: bytes) -> Original:
    if has_deep_colours(content):
        original = decode_original(content)
        if original.low and original.profile and (picture := deep_in_srgb(original)):
            return Original(picture)
    return Original(decode_with_alpha(content))


def resize(work: Work) -> Iterator[int]:
    """Resize the pictures, and yield the index of each that is done."""
    for at in range(len(work.requests)):
        work.begin(_PHASE, len(work.requests), at)
        resize_picture(work, at)
        work.step()
        yield at


def resize_picture(work: Work, at: int) -> None:
    """Resize a picture, if its request says so."""
    if wanted := work.requests[at].resize_to:
        with timed(work.own[at], _PHASE):
            drawn = work.picture(at)
            work.pictures[at] = drawn._replace(original=resized(drawn.original, wanted))
