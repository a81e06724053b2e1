"""What the daemon knows of an engine. Imports no torch."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from picowatch.errors import EngineDied
from picowatch.recipe.request import ImageRequest

# Called after each denoising step with (steps done, steps in all) of the batch in progress.
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedImage:
    """One finished picture and how it was rendered.

    `pixels` are width x height RGB triples, 8 bits a channel, row by row from the top; `alpha` is a
    byte for each, or empty where nothing is transparent.
    `chunks` counts the prompt's chunks of 75 tokens. `timings` are seconds by phase
    ("encode", "denoise", "decode", and "load" in the batch that had to load something),
    each phase's time divided by the batch size. `memory_rung` names the rung of the memory
    ladder. `node` names the machine, if it is not the daemon's. `control_maps` are those that its
    ControlNets followed and the request wants to see.
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
        on_preview: OnPreview = unseen,
        preview_seconds: float = 0,
    ) -> Future[list[RenderedImage]]:
        """Start a batch; the future gives its pictures in the order of the requests.

        The future raises RenderFailed, EngineDied (EngineCannotStart is one) or EngineStopped.
        Pictures have the requested size, or less with `shrink_to_fit`. One batch at a time: a
        second call before the future is done is a programming error (RuntimeError). `on_step` is
        called from a thread of the engine and must return quickly. So is `on_preview`, with how
        the batch looks so far, at least `preview_seconds` after the last time; 0 means never.
        """
        ...

    def describe(self) -> dict[str, str]:
        """Return device, precision and versions, as far as known without starting anything.

        "node" names the machine, if it is not the daemon's.
        """
        ...

    def memory(self) -> MemoryUse | None:
        """Return the memory held, as far as known without asking the engine; None if unknown."""
        ...

    def prepare(self) -> None:
        """Start what the first batch needs, if nothing was started yet; returns at once.

        What goes wrong is reported by the next `render`.
        """
        ...

    def interrupt(self) -> None:
        """End the batch in progress, if there is one, at its next step with EngineStopped."""
        ...

    def close(self) -> None:
        """End the engine within 2 s and free all memory; a running batch raises EngineStopped.

        A later `render` starts it again.
        """
        ...


class Executor(Protocol):
    """Gives the worker pool its engines. Every call returns at once."""

    def engines(self) -> Sequence[Engine]:
        """Return the engines that take batches now; the same objects for as long as they exist.

        New ones may join and lost ones leave. One that leaves with a batch in progress ends it
        with EngineLost.
        """
        ...

    def want(self, engines: int) -> None:
        """Take the number of engines that would have work now, those that are working included.

        A hint: a cluster may grow for it, and release idle engines.
        """
        ...

    def trouble(self) -> str:
        """Say why there are no engines, or too few; "" if there are enough."""
        ...

    def is_final(self) -> bool:
        """Whether no engine will join until somebody fixes `trouble`."""
        ...

    def close(self) -> None:
        """End all engines and free what they hold, within 2 seconds."""
        ...


def resolve(
    future: Future[list[RenderedImage]], result: list[RenderedImage] | BaseException
) -> None:
    """Resolve the future with pictures or a failure; the first to do so wins."""
    with suppress(InvalidStateError):
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
