"""The messages between the daemon and its engine process. Imports no torch.

They are pickled over a socket pair that only these two hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import MemoryUse, Preview, RenderedImage
from picowatch.errors import PicowatchError
from picowatch.recipe.request import ImageRequest


@dataclass(frozen=True, slots=True)
class Render:
    """To the engine: render these, with a Preview each so many seconds; `waiting` more are queued.

    It replies with Steps and Previews, perhaps StepsDone, then Ended.
    """

    number: int
    batch: tuple[ImageRequest, ...]
    waiting: int
    preview_seconds: float = 0


@dataclass(frozen=True, slots=True)
class Interrupt:
    """To the engine: end the batch of that number at its next step, if it has not ended."""

    number: int


@dataclass(frozen=True, slots=True)
class Ready:
    """From the engine, before anything else: it has started. It has not looked at an image yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """From the engine: another denoising step is done."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class StepsDone:
    """From the engine: the batch's steps are done. It takes another one before this has Ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """From the engine, the last of a batch: its pictures, or why there are none.

    After EngineDied it ends itself. `memory` comes with pictures: what it holds on a GPU, if any.
    """

    outcome: list[RenderedImage] | PicowatchError
    memory: MemoryUse | None = None


# Its options come first, once.
ToEngine = EngineOptions | Render | Interrupt
FromEngine = Ready | Step | Preview | StepsDone | Ended


@dataclass(frozen=True, slots=True)
class Reply:
    """A message about the batch with that number: no picture goes to another batch."""

    number: int
    message: FromEngine


_NO_PICTURES = "The engine returned something other than pictures."


def flaw(images: object, batch: Sequence[ImageRequest]) -> str:
    """What is wrong with the batch's pictures, in a sentence; "" if nothing is."""
    if not isinstance(images, list):
        return _NO_PICTURES
    if len(images) != len(batch):
        return f"The engine returned {len(images)} pictures, but {len(batch)} were requested."
    flaws = (_flaw_of(image, request) for image, request in zip(images, batch, strict=True))
    return next(filter(None, flaws), "")


def _flaw_of(image: object, request: ImageRequest) -> str:
    if not isinstance(image, RenderedImage):
        return _NO_PICTURES
    width, height = request.published_size
    smaller = request.shrink_to_fit and 0 < image.width <= width and 0 < image.height <= height
    if (image.width, image.height) != (width, height) and not smaller:
        return (
            f"The engine returned a picture of {image.width}x{image.height} pixels, but "
            f"{width}x{height} were requested."
        )
    if not isinstance(image.pixels, bytes):
        return "The engine returned a picture without pixels."
    count = image.width * image.height
    for found, expected in ((image.pixels, 3 * count), (image.alpha or bytes(count), count)):
        if len(found) != expected:
            return f"The engine returned a picture of {len(found):,} bytes instead of {expected:,}."
    return ""
