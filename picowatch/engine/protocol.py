"""What the daemon knows of an engine. Imports no torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import Protocol

from picowatch.errors import EngineDied
from picowatch.recipe.request import ImageRequest

# Called after each denoising step with (steps done, steps in all) of the batch in progress; with 0
# steps done as a sign of life, while models that the batch needs are sent to its node.
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedImage:
    """One finished picture and how it was rendered.

    `pixels` are width x height RGB triples, 8 bits a channel, row by row from the top; `alpha` is a
    byte for each, or empty where nothing is transparent.
    `chunks` counts the prompt's chunks of 75 tokens. `timings` are seconds by phase
    ("encode", "denoise", "decode", and "load" in the batch that had to load something),
    each phase's time divided by the batch size. `memory_rung` names the rung of the memory
    ladder. `steps` are those of the first pass, if memory allowed fewer than requested.
    `peak_bytes` is the most memory that its batch took, if that is known. `node` names the
    machine, if it is not the daemon's. `control_maps` are those that its ControlNets followed and
    the request wants to see.
    """

    width: int
    height: int
    pixels: bytes
    device: str
    precision: str
    batch_size: int
    compiled: bool
    memory_rung: str
    chunks: int
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    steps: int | None = None
    peak_bytes: int | None = None
    node: str = ""
    alpha: bytes = b""
    control_maps: tuple["ControlMap", ...] = ()


@dataclass(frozen=True, slots=True)
class ControlMap:
    """What a ControlNet followed; `pixels` as in a RenderedImage."""

    width: int
    height: int
    pixels: bytes


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The bytes that an engine holds on its device now, and the most it held."""

    now: int
    peak: int


@dataclass(frozen=True, slots=True)
class Preview:
    """Roughly how a picture in progress will look; `pixels` as in a RenderedImage."""

    width: int
    height: int
    pixels: bytes


OnPreview = Callable[[Preview], None]


def unseen(preview: Preview) -> None:
    """Ignore a preview."""


class EngineCannotStart(EngineDied):
    """The engine ended before it looked at an image, or it got no threads: no image is at fault.

    Its libraries cannot be imported, the device was not found, memory ran out: every image would
    fail like this one.
    """


class EngineLost(EngineDied):
    """The engine's machine or the connection to it is gone: no image is at fault."""

    usual_remedy = "The images are rendered on another machine, or when this one is back."


class Engine(Protocol):
    """Renders requests that can share a batch (see `ImageRequest.batch_key`)."""

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_step: OnStep,
        waiting: int = 0,
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """Start a batch; the future gives its pictures in the order of the requests.

        The future raises RenderFailed, EngineDied (EngineCannotStart is one) or EngineStopped.
        Pictures have the requested size, or less with `shrink_to_fit`. One batch at a
        time: a second call before the first future is done, or `drawn`, is a programming error,
        and so is a third before the first one is done. `on_step` is
        called from a thread of the engine's own and must return quickly. So is
        `on_preview`, with how the batch looks so far, at least `preview_seconds` after the last
        time; 0 means never. `waiting` images are queued after this batch, which decides whether
        compiling for them is worth it.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Device, precision and versions, as far as known without starting anything.

        "node" names the machine, if it is not the daemon's.
        """
        ...

    def memory(self) -> MemoryUse | None:
        """What it holds, as far as known without communicating with it; None if unknown."""
        ...

    def prepare(self) -> None:
        """Start what the first batch needs, if nothing was started yet; returns at once.

        What goes wrong is reported by the next `render`.
        """
        ...

    def interrupt(self) -> None:
        """End the batch in progress, if there is one, at its next step with EngineStopped.

        One that is `drawn` has no more steps, and is finished.
        """
        ...

    def close(self) -> None:
        """End it within 2 s and free all memory; a running batch raises EngineStopped.

        A later `render` starts it again.
        """
        ...


class PicturesToCome(Future[list[RenderedImage]]):
    """The future of a batch, which runs already: `cancel` does nothing, `Engine.interrupt` does.

    `drawn` is set once it is done, or its steps are and its pictures are on their way from a GPU:
    the engine takes another batch then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()
        self.drawn = Event()
        self.add_done_callback(lambda _: self.drawn.set())


def resolve(
    future: Future[list[RenderedImage]], result: list[RenderedImage] | BaseException
) -> None:
    """Resolve the future with pictures or a failure; the first to do so wins."""
    with suppress(InvalidStateError):
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
