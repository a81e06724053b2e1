"""The memory ladder: each rung renders a batch in less memory than the last. Imports no torch.

A rung is chosen as a whole before a batch and never changed within it: when memory runs out, the
batch is rendered again, from its first step, on the next rung. So a picture says exactly how it was
rendered, and the noise of its seed is the same on every rung.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Literal

from picowatch.engine.options import Memory
from picowatch.recipe.request import ImageRequest

SMALLEST_SIDE = 384
FEWEST_STEPS = 25
_SHRINK = 0.75
# Sides of smaller pictures are multiples of this, which every family of models takes.
_SIDE_MULTIPLE = 32
_SMALL_GPU_BYTES = 6 * 2**30

Offload = Literal["", "model", "sequential"]


@dataclass(frozen=True, slots=True)
class Rung:
    """How a batch is rendered; each rung keeps what the rungs before it save.

    `alone`: images go through the UNet one by one. `tiled`: the VAE works in tiles. `sliced`:
    attention works on a part of the picture at a time. `offload`: weights stay in the
    computer's memory until they are needed, by model or by layer. `shrunk` counts reductions of
    the size.
    """

    name: str = "full"
    alone: bool = False
    tiled: bool = False
    sliced: bool = False
    offload: Offload = ""
    shrunk: int = 0


_FULL = Rung()
_ALONE = Rung("smaller batch", alone=True)
_TILED = replace(_ALONE, name="VAE tiling", tiled=True)
_SLICED = replace(_TILED, name="attention slicing", sliced=True)
_MODEL = replace(_SLICED, name="model offload", offload="model")
_SEQUENTIAL = replace(_MODEL, name="sequential offload", offload="sequential")
LADDER = (_FULL, _ALONE, _TILED, _SLICED, _MODEL, _SEQUENTIAL)
# On a CPU there is nowhere to offload weights to.
CPU_LADDER = LADDER[:4]

_Key = tuple[object, ...]


class MemoryLadder:
    """Which rungs a batch may try, and which one worked for others like it.

    It begins with the rung that worked last for the checkpoint and size; but if images had to be
    rendered alone, fewer of them are tried together. Otherwise the setting decides: "full" begins
    at the top, "low" with model offload (on a CPU with sliced attention), "auto" at the top, too,
    but with the VAE's tiling on GPUs of less than 6 GB.
    """

    def __init__(self, setting: Memory, ladder: Sequence[Rung], gpu_bytes: int | None) -> None:
        self._ladder = ladder
        if setting == "low":
            self._first = min(ladder.index(_SLICED) + 1, len(ladder) - 1)
        elif setting == "auto" and gpu_bytes is not None and gpu_bytes < _SMALL_GPU_BYTES:
            self._first = ladder.index(_TILED)
        else:
            self._first = 0
        self._worked: dict[_Key, tuple[Rung, int]] = {}

    def rungs(self, batch: Sequence[ImageRequest]) -> Iterator[Rung]:
        """The rungs to try in turn, each once. Smaller pictures only with `shrink_to_fit`."""
        rungs = [*self._ladder, *_shrinking(batch[0], self._ladder[-1])]
        start, images = self._worked.get(_key(batch[0]), (self._ladder[self._first], len(batch)))
        if start == _ALONE and 1 < len(batch) < images:
            start = self._ladder[0]  # fewer may fit together
        # With fewer steps a picture may have fewer sizes than the one that was remembered.
        begin = rungs.index(start) if start in rungs else len(rungs) - 1
        for rung in rungs[begin:]:
            if len(batch) > 1 or rung != _ALONE or rung == start:
                yield rung

    def worked(self, batch: Sequence[ImageRequest], rung: Rung) -> None:
        """Remember this rung for images of this checkpoint and size."""
        self._worked[_key(batch[0])] = rung, len(batch)


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
    return (request.checkpoint_hash, *size, request.shrink_to_fit)


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
