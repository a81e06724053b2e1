"""What the daemon and its engine process say to each other. Imports no torch.

The messages are pickled over a socket pair that only these two hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import MemoryUse, Preview, RenderedImage
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.resolve.hires import final_side


@dataclass(frozen=True, slots=True)
class Start:
    """To the engine, once and first."""

    options: EngineOptions


@dataclass(frozen=True, slots=True)
class Render:
    """To the engine: make these; `waiting` more wait.

    It replies with Steps, then one of the messages below.
    """

    number: int
    batch: tuple[ImageRequest, ...]
    waiting: int


@dataclass(frozen=True, slots=True)
class Interrupt:
    """To the engine: end the batch in progress at its next step. Meaningless when none is."""


@dataclass(frozen=True, slots=True)
class Ready:
    """From the engine, before anything else: it has started. It has looked at no image yet."""


@dataclass(frozen=True, slots=True)
class Step:
    """From the engine: one more denoising step is done."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Done:
    """From the engine: the batch's pictures, and the memory it holds on a GPU, if it has one."""

    images: list[RenderedImage]
    memory: MemoryUse | None = None


@dataclass(frozen=True, slots=True)
class Interrupted:
    """From the engine: the batch was ended by Interrupt."""


@dataclass(frozen=True, slots=True)
class Failed:
    """From the engine: the batch failed, the engine can go on."""

    message: str
    remedy: str
    trace: str


@dataclass(frozen=True, slots=True)
class Broken:
    """From the engine, its last words: it cannot go on (the GPU's driver gave up)."""

    message: str
    remedy: str


ToEngine = Start | Render | Interrupt
FromEngine = Ready | Step | Preview | Done | Interrupted | Failed | Broken


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine says of the batch with that number: no picture goes to another batch."""

    number: int
    message: FromEngine


def flaw(images: object, batch: Sequence[ImageRequest]) -> str:
    """What is wrong with the batch's pictures, in a sentence; "" if nothing is."""
    if not isinstance(images, list):
        return "The engine returned something other than pictures."
    if len(images) != len(batch):
        return f"The engine returned {len(images)} pictures, but {len(batch)} were requested."
    flaws = (_flaw_of(image, request) for image, request in zip(images, batch, strict=True))
    return next(filter(None, flaws), "")


def _flaw_of(image: object, request: ImageRequest) -> str:
    if not isinstance(image, RenderedImage):
        return "The engine returned something other than pictures."
    scale = request.hires.scale if request.hires else 1
    width, height = final_side(request.width, scale), final_side(request.height, scale)
    smaller = request.shrink_to_fit and 0 < image.width <= width and 0 < image.height <= height
    if (image.width, image.height) != (width, height) and not smaller:
        return (
            f"The engine returned a picture of {image.width}x{image.height} pixels, but "
            f"{width}x{height} were requested."
        )
    if not isinstance(image.pixels, bytes):
        return "The engine returned a picture without pixels."
    expected = 3 * image.width * image.height
    if len(image.pixels) != expected:
        return (
            f"The engine returned a picture of {len(image.pixels):,} bytes instead of {expected:,}."
        )
    return ""
