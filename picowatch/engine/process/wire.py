"""What the daemon and its engine process say to each other. Imports no torch.

The messages are pickled over a socket pair that only these two hold.
"""

from dataclasses import dataclass

from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import MemoryUse, Preview, RenderedImage
from picowatch.recipe.request import ImageRequest


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
    """To the engine: end the batch in work at its next step. Meaningless when none is."""


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
