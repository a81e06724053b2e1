"""The memory ladder, and measurements of memory. Does not import torch itself.

Each rung of the ladder renders a batch in less memory than the last. A rung is chosen before a
batch and never changed during it: when memory runs out, the batch is rendered again from its first
step on the next rung. So a picture records exactly how it was rendered, and the noise of its seed
is the same on every rung.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import psutil  # type: ignore[import-untyped]

from picowatch.engine.protocol import Memory, MemoryUse
from picowatch.recipe.request import ImageRequest

if TYPE_CHECKING:
    import torch

SMALLEST_SIDE = 384
_SHRINK = 0.75
# Sides of smaller pictures are multiples of this, which every family of models takes.
_SIDE_MULTIPLE = 32

# Where weights are: all on the device; moved there one model or one layer at a time (diffusers'
# enable_model_cpu_offload and enable_group_offload); or, if the device computes in main memory,
# text encoders and denoiser in turn, read from their files.
Place = Literal["device", "models", "layers", "turns"]


@dataclass(frozen=True, slots=True)
class Rung:
    """How a batch is rendered.

    `tiled`: the VAE works in tiles, and images are rendered one by one. `shrunk` counts reductions
    of the size.
    """

    name: str = "full"
    tiled: bool = False
    place: Place = "device"
    shrunk: int = 0


FULL = Rung()
TILED = Rung("VAE tiling", tiled=True)
MODELS = replace(TILED, name="model offload", place="models")
LAYERS = replace(TILED, name="group offload", place="layers")
TURNS = replace(TILED, name="text encoders in turn", place="turns")
CUDA_LADDER = (FULL, TILED, MODELS, LAYERS)
# A device that computes in main memory cannot offload weights to it. A UNet's text encoders are
# small, and a short family's pipeline encodes prompts itself: in neither do parts take turns.
SHARED_LADDER = (FULL, TILED, TURNS)

# The least memory that a batch needs on a GPU besides weights: less is not worth a try.
_LEAST_WORKING_BYTES = 2**30
# The main memory that a batch needs. There is no error when it runs out: the kernel kills the
# process.
WORKING_BYTES = 3 * 2**30


@dataclass(frozen=True, slots=True)
class Weights:
    """The bytes of a checkpoint's parts in memory.

    `takes_turns`: its text encoders may make room for its denoiser.
    """

    encoders: int = 0
    denoiser: int = 0
    vae: int = 0
    takes_turns: bool = False

    @property
    def total(self) -> int:
        """The bytes of all parts."""
        return self.encoders + self.denoiser + self.vae

    def at_once(self, rung: Rung) -> int:
        """Return the most bytes of weights that are on the device at once."""
        match rung.place:
            case "device":
                return self.total
            case "models":
                return max(self.encoders, self.denoiser, self.vae)
            case "turns":
                return self.vae + max(self.encoders, self.denoiser)
            case "layers":
                return 0


# After so many batches on a rung the one above it is tried again: another program may have freed
# memory.
_CLIMB_AFTER = 32


class MemoryLadder:
    """The rungs that a batch may try, and those that worked for similar batches.

    It begins with the rung that worked last for the checkpoint and size, and on a GPU now and then
    with the one above it. Otherwise the setting decides: "full" begins at the top, "low" with the
    third rung, "auto" with the first whose weights fit into the GPU's or main memory.
    `gpu_bytes` is the memory of the GPU; None means that the device computes in main memory.
    """

    def __init__(self, setting: Memory, gpu_bytes: int | None) -> None:
        self._setting = setting
        self._gpu_bytes = gpu_bytes
        # The rung that worked last, and the number of batches on it since.
        self._worked: dict[tuple[object, ...], tuple[Rung, int]] = {}

    def rungs(self, request: ImageRequest, weights: Weights, main_bytes: int) -> Iterator[Rung]:
        """Yield the rungs to try in turn; those of smaller pictures only with `shrink_to_fit`.

        `main_bytes` is the main memory that this process can use.
        """
        ladder: Sequence[Rung] = CUDA_LADDER
        if self._gpu_bytes is None:
            ladder = SHARED_LADDER if weights.takes_turns else SHARED_LADDER[:2]
        rungs = [*ladder, *_shrinking(request, ladder[-1])]
        begin = first = rungs.index(self._first(ladder, weights, main_bytes))
        if known := self._worked.get(_key(request)):
            rung, batches = known
            begin = rungs.index(rung)
            # Main memory is not tried out: the kernel kills the process that takes too much.
            if begin > first and batches >= _CLIMB_AFTER and self._gpu_bytes is not None:
                begin -= 1
        yield from rungs[begin:]

    def worked(self, request: ImageRequest, rung: Rung) -> None:
        """Remember this rung for images of this checkpoint and size."""
        before, batches = self._worked.get(_key(request), (None, 0))
        again = before == rung and batches < _CLIMB_AFTER
        self._worked[_key(request)] = rung, batches + 1 if again else 0

    def _first(self, ladder: Sequence[Rung], weights: Weights, main_bytes: int) -> Rung:
        """Return the first rung for a checkpoint and size that was not rendered before."""
        if self._setting == "full":
            return ladder[0]
        if self._setting == "low":
            return ladder[min(2, len(ladder) - 1)]
        if self._gpu_bytes is not None:
            room = self._gpu_bytes - _LEAST_WORKING_BYTES
        # For a checkpoint smaller than a batch, there is nothing to save.
        elif weights.total <= WORKING_BYTES or ladder[-1].place == "device":
            return ladder[0]
        else:
            room = main_bytes - WORKING_BYTES
        return next((rung for rung in ladder if weights.at_once(rung) <= room), ladder[-1])


def _shrinking(request: ImageRequest, last: Rung) -> Iterator[Rung]:
    """Yield the rungs of smaller pictures down to the smallest, if the image allows any."""
    for times in count(1):
        smaller = shrunken(request, times) != shrunken(request, times - 1)
        if not request.shrink_to_fit or not smaller:
            return
        yield replace(last, name="smaller picture", shrunk=times)


def _key(request: ImageRequest) -> tuple[object, ...]:
    hires = request.hires.scale if request.hires else 1
    # Photos have many sizes, but are edited in about the same number of pixels.
    size = ("editing",) if request.references else (request.width, request.height, hires)
    controls = tuple(use.model_hash for use in request.control)
    return (request.checkpoint_hash, *size, request.shrink_to_fit, *controls)


def shrunken(request: ImageRequest, times: int) -> ImageRequest:
    """Return the request with smaller sides: a quarter less each time, but at least 384."""
    shorter = min(request.width, request.height)
    scale = max(_SHRINK**times, min(1.0, SMALLEST_SIDE / shorter))
    if scale == 1:
        return request
    width, height = (
        int(side * scale) // _SIDE_MULTIPLE * _SIDE_MULTIPLE
        for side in (request.width, request.height)
    )
    return replace(request, width=width, height=height)


def shrink_warning(requested: ImageRequest, rendered: ImageRequest) -> tuple[str, ...]:
    """Return a warning if the picture is smaller than requested, otherwise ()."""
    if rendered == requested:
        return ()
    return (
        f"Memory ran out, so this picture was rendered at {rendered.width}x{rendered.height} "
        f"instead of {requested.width}x{requested.height}.",
    )


_CGROUP = Path("/sys/fs/cgroup")


def held_memory() -> MemoryUse | None:
    """Return the GPU memory that torch holds in this process, else its main memory (Linux).

    The counters are torch's own, so reading them does not wait for kernels. torch is not imported
    here: an engine that computes on a GPU has imported it.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return MemoryUse(torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved())
    try:
        lines = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kilobytes = re.findall(r"^Vm(?:RSS|HWM):\s*(\d+) kB$", lines, re.MULTILINE)
    peak, now = (int(number) * 1024 for number in kilobytes)
    return MemoryUse(now, max(now, peak))  # the kernel updates the peak a little later


def broken_gpu() -> str:
    """Return the error of a GPU that this process can no longer use, "" for one that works.

    It waits until all queued kernels are done, because an error of one appears at some later call.
    Like `held_memory`, it does not import torch.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return ""
    try:
        torch.cuda.synchronize()
    # Its class differs by version of torch.
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def free_bytes(device: "torch.device") -> int:
    """Return the free bytes of a GPU, or of the main memory."""
    import torch

    if device.type != "cuda":
        return min(int(psutil.virtual_memory().available), _left_to_container())
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def main_memory() -> int:
    """Return the main memory that this process could use, including what it holds now."""
    free = min(int(psutil.virtual_memory().available), _left_to_container())
    return free + int(psutil.Process().memory_info().rss)


def _left_to_container(cgroup: Path = _CGROUP) -> int:
    """Return the bytes left to the container's limit (cgroup v2), not counting its page cache.

    The kernel kills processes that exceed the limit.
    """
    with suppress(OSError, ValueError):  # the limit is "max" if there is none
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        lines = (cgroup / "memory.stat").read_text().splitlines()
        files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, limit - used + files)
    return 2**63
