"""The interface of engines: options, pictures, messages and protocols. Imports no torch."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Protocol

from PIL import Image

from picowatch import __version__
from picowatch.errors import EngineDied, PicowatchError
from picowatch.files.decoding import Original
from picowatch.recipe.passes import PassKind
from picowatch.recipe.request import ImageRequest

Precision = Literal["auto", "float16", "bfloat16", "float32"]
Memory = Literal["auto", "full", "low"]
CompileState = bool | Literal["graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    models: Path  # the folder with checkpoints/, vae/, loras/ and embeddings/
    device: str = "auto"  # or "cuda", "cuda:N", "mps", "cpu"
    precision: Precision = "auto"
    hash_cache: Path | None = None  # the daemon's file of model hashes, which is only read
    threads: int | None = None  # of the CPU for a batch; None is this engine's share of the cores
    start_images: Path | None = None  # the folder of start images and masks by sha256
    memory: Memory = "auto"  # where the memory ladder begins
    compile: bool = False  # denoisers are compiled (compile.py), and stored in `cache`, if set
    graphs: bool = False  # on a card denoisers are recorded (compile.py)
    cache: Path | None = None
    preview_seconds: float = 0  # at least, from preview to preview; 0 means never
    ordinal: int = 0  # this engine's number
    engines: int = 1  # of this machine, which share its GPUs or cores
    debug: bool = False  # the engine sends lines for the log


def cache_folder() -> Path | None:
    """Return the folder of compiled models in XDG_CACHE_HOME or ~/.cache, None without a home."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user id without a user, as in containers
        return None
    return Path(root) / "picowatch" / "compiled"


@cache
def versions() -> dict[str, str]:
    """Return the versions of picowatch, torch, diffusers and transformers, where installed."""
    found = {"picowatch": __version__}
    for library in ("torch", "diffusers", "transformers"):
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


@dataclass(frozen=True, slots=True)
class Progress:
    """A message from the engine: `done` of `total` steps of a pass, over all images of the batch.

    A step is an evaluation of drawing, a tile of an upscaler, or a picture. It is repeated as a
    sign of life where a step takes long. A pass begins with 0 steps done.
    """

    kind: PassKind
    done: int
    total: int


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The bytes that an engine holds on its device after a batch, the peak, and free on a card."""

    now: int
    peak: int
    free: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedImage:
    """A finished picture and how it was rendered."""

    width: int
    height: int
    pixels: bytes  # RGB triples, 8 bits a channel, row by row from the top
    device: str
    precision: str
    batch_size: int  # 0 if it was not drawn: nothing was found where it should change
    compiled: CompileState
    memory_rung: str  # the name of the rung of the memory ladder
    chunks: int  # of 75 tokens in the prompt
    # Seconds by phase ("encode", "denoise", "decode", and where a batch has them "load", "find",
    # "enlarge", "hires", "detail", "upscale", "cutout" and "resize"): what is done for a batch
    # together is divided by its size.
    timings: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    node: str = ""  # the machine, if it is not the daemon's
    alpha: bytes = b""  # a byte for each pixel, or empty where nothing is transparent
    low: bytes = b""  # the lower bytes of colours of 16 bits, of which `pixels` are the higher
    profile: bytes = b""  # the ICC profile, empty for sRGB
    # What its ControlNets followed, and its mask, where the request wants to see them.
    control_maps: tuple["RgbPicture", ...] = ()
    places: tuple["Place", ...] | None = None  # that words found, None if nothing was looked for
    memory: MemoryUse | None = None  # the engine's, if it is known

    def decoded(self) -> Original:
        """Return the picture, which has its profile, too."""
        size = self.width, self.height
        picture = Image.frombytes("RGB", size, self.pixels)
        if self.alpha:
            picture.putalpha(Image.frombytes("L", size, self.alpha))
        if self.profile:
            picture.info["icc_profile"] = self.profile
        low = Image.frombytes("RGB", size, self.low) if self.low else None
        return Original(picture, low, self.profile)


@dataclass(frozen=True, slots=True)
class Place:
    """A place that a field's words found: how surely, and left, top, right and bottom in pixels."""

    field: str
    score: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class RgbPicture:
    """A preview of a picture in progress, or a ControlNet's map; `pixels` as in a RenderedImage."""

    width: int
    height: int
    pixels: bytes


OnPreview = Callable[[RgbPicture], None]

# Called at least every half second while a batch is rendered. Returns whether the batch is to end
# at its next step, with EngineStopped. An exception ends the engine, and is raised by `render`.
Look = Callable[[], bool]


def unseen(preview: RgbPicture) -> None:
    """Ignore a preview."""


def go_on() -> bool:
    """Let a batch be rendered to its end, as a `Look`."""
    return False


# The message to the engine: images to render together. It replies with Progress, previews and
# texts, which are lines for the daemon's log at debug level, and with an Outcome at the end.
Batch = tuple[ImageRequest, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """A message from the engine: it has started."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A message from the engine: all pictures of the batch were sent."""


# How a batch ended. After EngineDied the process ends.
Outcome = Finished | PicowatchError
# A batch's pictures come one by one, in its order.
FromEngine = Ready | Progress | str | RgbPicture | RenderedImage | Outcome


class BatchRenderer(Protocol):
    """Renders batches in the engine's process; see `picowatch.engine.drawing.renderer.Renderer`."""

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: OnProgress,
        interrupted: Callable[[], bool],
    ) -> Iterable[RenderedImage]:
        """Yield the pictures; raises EngineStopped, RenderFailed or whatever goes wrong."""
        ...


# Pickled by name for the engine process, so it must be a function or class of a module.
MakeRenderer = Callable[[EngineOptions, OnPreview], BatchRenderer]


class EngineCannotStart(EngineDied):
    """The engine ended before it rendered anything: no image is at fault.

    Its libraries cannot be imported, the device was not found, or memory ran out.
    """


class EngineLost(EngineDied):
    """The engine's machine or the connection to it is gone: no image is at fault."""

    usual_remedy = "The images are rendered on another machine, or when this one is back."


class Engine(Protocol):
    """Renders requests that can share a batch (see `ImageRequest.batch_key`), for one thread."""

    def render(
        self,
        batch: Sequence[ImageRequest],
        on_progress: OnProgress,
        on_preview: OnPreview = unseen,
        look: Look = go_on,
    ) -> list[RenderedImage]:
        """Return the pictures in the order of the requests.

        They have the requested size, or less with `shrink_to_fit`. Raises RenderFailed, EngineDied
        (EngineCannotStart is one) or EngineStopped, and what `look` raises. Like `look`,
        `on_progress` and `on_preview` must return quickly.
        """
        ...

    def close(self) -> None:
        """End the engine within 2 s and free all memory. A later `render` starts it again."""
        ...


class Executor(ABC):
    """Gives the worker pool its engines. Every call returns at once."""

    # Set by the caller: how many engines would have work now, those that are working included. A
    # cluster grows to it, and releases idle engines.
    wanted = 0
    trouble = ""  # why there are no or too few engines, "" if there are enough
    is_final = False  # none will join until that is fixed

    @abstractmethod
    def engines(self) -> Sequence[Engine]:
        """Return the engines that take batches now; the same objects for as long as they exist.

        New engines may join. An engine that leaves ends its batch with EngineLost.
        """

    @abstractmethod
    def close(self) -> None:
        """End all engines and free what they hold, within 2 seconds. None renders by then."""
