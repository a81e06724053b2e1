"""A batch in progress: what its passes gave so far, how far it is, and what it took."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import NamedTuple

from PIL import Image

from picowatch.engine import protocol
from picowatch.errors import EngineStopped
from picowatch.files.decoding import Original
from picowatch.recipe.passes import PassKind
from picowatch.recipe.request import ImageRequest

Interrupted = Callable[[], bool]


class Drawn(NamedTuple):
    """A picture, and how it was drawn, by RenderedImage's names; by default, no model drew it."""

    original: Original
    control_maps: tuple[protocol.RgbPicture, ...] = ()
    places: tuple[protocol.Place, ...] | None = None
    chunks: int = 0
    batch_size: int = 1
    precision: str = "float32"
    compiled: protocol.CompileState = False
    memory_rung: str = "full"
    warnings: tuple[str, ...] = ()

    @property
    def picture(self) -> Image.Image:
        """The picture without the lower bytes of 16 bits."""
        return self.original.picture

    def warned(self, *warnings: str) -> "Drawn":
        return self._replace(warnings=(*self.warnings, *warnings))

    def as_rendered(
        self, device: str, timings: dict[str, float], memory: protocol.MemoryUse | None
    ) -> protocol.RenderedImage:
        """Return the picture as the daemon gets it; alpha is empty if all of it is opaque."""
        told = self._asdict()
        picture, low, profile = told.pop("original")
        return protocol.RenderedImage(
            width=picture.width,
            height=picture.height,
            pixels=(picture if picture.mode == "RGB" else picture.convert("RGB")).tobytes(),
            alpha=picture.getchannel("A").tobytes() if picture.mode == "RGBA" else b"",
            low=low.tobytes() if low else b"",
            profile=profile,
            device=device,
            timings=timings,
            versions=protocol.versions(),
            memory=memory,
            **told,
        )


@dataclass(eq=False)
class Work:
    """The requests of a batch, and the `pictures` that its passes gave, None before the first."""

    requests: Sequence[ImageRequest]
    _on_progress: protocol.OnProgress
    interrupted: Interrupted
    has_masks: bool = False  # those that words find

    def __post_init__(self) -> None:
        self.pictures: list[Drawn | None] = [None] * len(self.requests)
        self.timings: dict[str, float] = {}  # seconds by phase of what is done for all images
        self.own: list[dict[str, float]] = [{} for _ in self.requests]  # … for each image
        self._now = protocol.Progress("draw", 0, 0)

    def picture(self, at: int) -> Drawn:
        """Return what the last pass gave of an image."""
        found = self.pictures[at]
        assert found
        return found

    def begin(self, kind: PassKind, parts: int, done: int = 0, steps: int = 1) -> None:
        """Begin a pass of so many parts, each of so many steps; some parts may be done."""
        total, done = parts * steps, done * steps
        if (kind, total) != (self._now.kind, self._now.total) or done < self._now.done:
            self._now = protocol.Progress(kind, done, total)
        self.look()

    def step(self) -> None:
        """Report that another step of the pass is done."""
        self._now = replace(self._now, done=min(self._now.done + 1, self._now.total))
        self._on_progress(self._now)

    def look(self) -> None:
        """Report that the engine is alive, and raise EngineStopped if the batch is to end."""
        self._on_progress(self._now)
        self.raise_if_interrupted()

    def raise_if_interrupted(self) -> None:
        """Raise EngineStopped if the batch is to end."""
        if self.interrupted():
            raise EngineStopped("The batch was interrupted.")

    def timings_of(self, at: int) -> dict[str, float]:
        """Return the seconds of an image: its own, and its share of what was done for all."""
        shared = {phase: seconds / len(self.requests) for phase, seconds in self.timings.items()}
        return shared | self.own[at]


@contextmanager
def timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    """Add the seconds spent inside to a phase."""
    start = perf_counter()
    yield
    timings[phase] = timings.get(phase, 0.0) + perf_counter() - start
