"""The memory ladder: each rung renders a batch in less memory than the last. Imports no torch.

A rung is chosen as a whole before a batch and never changed within it: when memory runs out, the
batch is rendered again, from its first step, on the next rung. So a picture says exactly how it was
rendered, and the noise of its seed is the same on every rung.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal, NamedTuple

from picowatch.engine.options import Memory
from picowatch.recipe.request import ImageRequest

SMALLEST_SIDE = 384
FEWEST_STEPS = 25
_SHRINK = 0.75
# Sides of smaller pictures are multiples of this, which every family of models takes.
_SIDE_MULTIPLE = 32
_SMALL_GPU_BYTES = 6 * 2**30

Offload = Literal["", "encoders", "model", "encoder layers", "sequential", "group", "disk"]


@dataclass(frozen=True, slots=True)
class Rung:
    """How a batch is rendered; each rung keeps what the rungs before it save.

    `alone`: images go through the model one by one. `tiled`: the VAE works in tiles. `sliced`:
    attention works on a part of the picture at a time. `cast`: the transformer's weights are kept
    in 8 bits. `shrunk` counts reductions of the size.

    `offload` says which weights stay in the computer's memory until they are needed: those of the
    text encoders, or all, brought by model, by layer ("sequential"), or by layer with the next one
    on its way ("group"); with "encoder layers" by layer for the text encoders and by model for the
    rest. With "disk" text encoders and transformer take turns in memory, read from their files.
    """

    name: str = "full"
    alone: bool = False
    tiled: bool = False
    sliced: bool = False
    offload: Offload = ""
    cast: bool = False
    shrunk: int = 0


class Ladders(NamedTuple):
    """The rungs of one kind of device: for UNets, and for flow families."""

    unet: Sequence[Rung]
    flow: Sequence[Rung]


FULL = Rung()
_ALONE = Rung("smaller batch", alone=True)
_TILED = replace(_ALONE, name="VAE tiling", tiled=True)
_SLICED = replace(_TILED, name="attention slicing", sliced=True)
# On CUDA torch's attention holds no score matrix: slicing it saves nothing. Nor for transformers.
_MODEL = replace(_TILED, name="model offload", offload="model")
_SEQUENTIAL = replace(_MODEL, name="sequential offload", offload="sequential")
LADDER = (FULL, _ALONE, _TILED, _MODEL, _SEQUENTIAL)
# What computes in the computer's memory cannot offload weights to it.
SHARED_LADDER = (FULL, _ALONE, _TILED, _SLICED)
_ENCODERS = replace(_TILED, name="text encoders offloaded", offload="encoders")
_ENCODER_LAYERS = replace(_TILED, name="text encoders by layer", offload="encoder layers")
_GROUP = replace(_TILED, name="group offload", offload="group")
_CAST = replace(_GROUP, name="fp8 weights", cast=True)
FLOW_LADDER = (
    *(FULL, _ALONE, _TILED),
    *(_ENCODERS, _MODEL, _ENCODER_LAYERS, _GROUP, _CAST),
)
_UNLOADED = replace(_TILED, name="text encoders unloaded", offload="disk")
_CAST_UNLOADED = replace(_UNLOADED, name="fp8 weights", cast=True)
SHARED_FLOW_LADDER = (FULL, _ALONE, _TILED, _UNLOADED, _CAST_UNLOADED)
LADDERS = {
    "cuda": Ladders(LADDER, FLOW_LADDER),
    # Apple's GPUs share the computer's memory, too, and have no 8-bit floats.
    "mps": Ladders(SHARED_LADDER, SHARED_FLOW_LADDER[:-1]),
    "cpu": Ladders(SHARED_LADDER, SHARED_FLOW_LADDER),
}

# What a batch takes on a card besides weights, at the very least: less is not worth a try.
_LEAST_WORKING_BYTES = 2**30
# What it takes of main memory. Nobody says there that it ran out: the kernel ends the process.
WORKING_BYTES = 3 * 2**30


@dataclass(frozen=True, slots=True)
class Weights:
    """The bytes of a checkpoint's parts in memory.

    `encoders` are its text encoders together, `denoiser` is its UNet or transformer. `flow`:
    diffusers' pipelines render its family. `quantised`: its transformer has few bits already.
    """

    encoders: int = 0
    denoiser: int = 0
    vae: int = 0
    flow: bool = False
    quantised: bool = False

    def on_card(self, rung: Rung) -> int:
        """The most of them that is on the card at once."""
        if rung.offload in ("", "encoders"):  # the encoders return for each new prompt
            return self.encoders + self.denoiser + self.vae
        if rung.offload == "model":
            return max(self.encoders, self.denoiser, self.vae)
        if rung.offload == "encoder layers":
            return max(self.denoiser, self.vae)
        return 0

    def in_main_memory(self, rung: Rung) -> int:
        """The most of them that is there at once, for a device that computes there."""
        if rung.offload != "disk":
            return self.encoders + self.denoiser + self.vae
        return self.vae + max(self.encoders, self.denoiser // (2 if rung.cast else 1))


_UNKNOWN = Weights()
_Key = tuple[object, ...]


# After so many batches on a rung the one above it is tried again; after twice as many, and twice
# that, if it is still too much: another program's memory may come back, a card does not grow.
_FIRST_CLIMB = 8
_LAST_CLIMB = 1024


@dataclass(slots=True)
class _Known:
    """The rung that worked last, for how many images together, and how long it has.

    `climb_after` batches on it the rung above is tried; `climbing`: the last batch tried that.
    """

    rung: Rung
    images: int
    batches: int = 0
    climb_after: int = _FIRST_CLIMB
    climbing: bool = False


class MemoryLadder:
    """Which rungs a batch may try, and which one worked for others like it.

    It begins with the rung that worked last for the checkpoint and size, and on a GPU now and then
    with the one above it; but if images had to be rendered alone, fewer of them are tried together.
    Otherwise the setting decides: "full" begins
    at the top, "low" with model offload (on a CPU with the last rung), "auto" with the first whose
    weights the card or main memory has room for, and with the VAE's tiling on GPUs of less than
    6 GB.
    """

    def __init__(self, setting: Memory, ladders: Ladders, gpu_bytes: int | None) -> None:
        self._setting = setting
        self._ladders = ladders
        self._gpu_bytes = gpu_bytes
        self._worked: dict[_Key, _Known] = {}

    def rungs(
        self, batch: Sequence[ImageRequest], weights: Weights = _UNKNOWN, main_bytes: int = 0
    ) -> Iterator[Rung]:
        """The rungs to try in turn, each once. Smaller pictures only with `shrink_to_fit`.

        `main_bytes` is the main memory that this process can have.
        """
        ladder = self._ladders.flow if weights.flow else self._ladders.unet
        if batch[0].exact or weights.quantised:
            ladder = [rung for rung in ladder if not rung.cast]
        rungs = [*ladder, *_shrinking(batch[0], ladder[-1])]
        first = self._first(ladder, weights, main_bytes)
        known = self._worked.get(_key(batch[0])) or _Known(first, len(batch))
        start = known.rung
        if start == _ALONE and 1 < len(batch) < known.images:
            start = ladder[0]  # fewer may fit together
        # With fewer steps a picture may have fewer sizes than the one that was remembered.
        begin = rungs.index(start) if start in rungs else len(rungs) - 1
        known.climbing = known.batches >= known.climb_after and begin > rungs.index(first)
        if known.climbing:
            begin -= 1
            start = rungs[begin]
        for rung in rungs[begin:]:
            if len(batch) > 1 or rung != _ALONE or rung == start:
                yield rung

    def worked(self, batch: Sequence[ImageRequest], rung: Rung) -> None:
        """Remember this rung for images of this checkpoint and size."""
        known = self._worked.get(_key(batch[0]))
        if known is None or known.rung != rung:
            self._worked[_key(batch[0])] = _Known(rung, len(batch))
            return
        known.images = len(batch)
        # A processor's memory is not tried out: the kernel ends the process that takes too much.
        known.batches = known.batches + 1 if self._gpu_bytes is not None else 0
        if known.climbing:
            known.batches, known.climb_after = 0, min(2 * known.climb_after, _LAST_CLIMB)

    def _first(self, ladder: Sequence[Rung], weights: Weights, main_bytes: int) -> Rung:
        """Where it begins with a checkpoint and size of which it knows nothing."""
        if self._setting == "low":
            return next((rung for rung in ladder if rung.offload in ("model", "disk")), ladder[-1])
        if self._setting == "full":
            return ladder[0]
        if self._gpu_bytes is None:
            return _first_in_main_memory(ladder, weights, main_bytes)
        room = self._gpu_bytes - _LEAST_WORKING_BYTES
        fitting = (rung for rung in ladder if weights.on_card(rung) <= room)
        first = next(fitting, ladder[-1])
        small = self._gpu_bytes < _SMALL_GPU_BYTES
        return _TILED if small and not first.tiled else first


def _first_in_main_memory(ladder: Sequence[Rung], weights: Weights, main_bytes: int) -> Rung:
    """The first that leaves room for a batch, if some of the rungs need less than others."""
    needed = {rung: weights.in_main_memory(rung) + WORKING_BYTES for rung in ladder}
    # Of a checkpoint that takes less than a batch, there is nothing to save.
    if needed[ladder[0]] <= 2 * WORKING_BYTES or needed[ladder[-1]] == needed[ladder[0]]:
        return ladder[0]
    return next((rung for rung in ladder if needed[rung] <= main_bytes), ladder[-1])


def _shrinking(request: ImageRequest, last: Rung) -> Iterator[Rung]:
    """The rungs of smaller pictures, as long as each makes it smaller, if the image allows any."""
    for times in count(1):
        smaller = shrunken(request, times) != shrunken(request, times - 1)
        if not request.shrink_to_fit or not smaller:
            return
        yield replace(last, name="smaller picture", shrunk=times)


def _key(request: ImageRequest) -> _Key:
    hires = request.hires.scale if request.hires else 1
    size = (request.width, request.height, hires)
    controls = tuple(use.model_hash for use in request.control)
    return (request.checkpoint_hash, *size, request.shrink_to_fit, *controls)


def shrunken(request: ImageRequest, times: int) -> ImageRequest:
    """The request with smaller sides and fewer steps: a quarter less each time.

    No side becomes less than 384, and the steps not less than 25; what is less already stays.
    """
    if not times:
        return request
    shorter = min(request.width, request.height)
    scale = max(_SHRINK**times, min(1.0, SMALLEST_SIDE / shorter))
    steps = max(min(request.steps, FEWEST_STEPS), int(request.steps * _SHRINK**times))
    return replace(
        request,
        width=_scaled(request.width, scale),
        height=_scaled(request.height, scale),
        steps=steps,
    )


def _scaled(side: int, scale: float) -> int:
    return side if scale == 1 else int(side * scale) // _SIDE_MULTIPLE * _SIDE_MULTIPLE


def shrink_warning(requested: ImageRequest, rendered: ImageRequest) -> tuple[str, ...]:
    """What is smaller than requested, in a sentence; () if nothing is."""
    if rendered == requested:
        return ()
    return (
        f"Memory ran out, so this picture was rendered at {rendered.width}x{rendered.height} with "
        f"{rendered.steps} steps instead of {requested.width}x{requested.height} with "
        f"{requested.steps}.",
    )
