"""The device to compute on, its memory, and the precision."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from picowatch.engine.failures import out_of_memory
from picowatch.engine.model.memory import Room
from picowatch.engine.private import computes_bfloat16
from picowatch.engine.protocol import MemoryUse, Precision
from picowatch.errors import RenderFailed

CARDS = ("cuda", "xpu")  # devices with memory of their own
LARGE_NATIVE_SIZE = 512
_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


@dataclass(frozen=True, slots=True)
class Target:
    """A device, the type its models compute in, and the device's name for people."""

    device: torch.device
    dtype: torch.dtype
    large_unet_dtype: torch.dtype  # for the UNet of a full-size checkpoint
    flow_dtype: torch.dtype  # for all parts of a flow family
    name: str

    def for_unet(self, native_size: int) -> "Target":
        """Return the target with the type for a UNet of this native size."""
        large = native_size >= LARGE_NATIVE_SIZE
        return replace(self, dtype=self.large_unet_dtype) if large else self


def choose_target(device: str, precision: Precision, ordinal: int = 0) -> Target:
    """Return the target for the settings. Device "auto" is CUDA, XPU, MPS, or the CPU.

    If the settings give a card no number, engine number `ordinal` of this machine takes the
    device of that number; more engines than devices share them. The card becomes this thread's
    current card, for which torch reports events and memory.

    Precision "auto" is float16 on cards. Elsewhere it is float32 (with some checkpoints float16
    gives black pictures on MPS), except for the UNet of a full-size checkpoint on a CPU that
    computes bfloat16: a step of Stable Diffusion 1.5 at 256x256 took 3 seconds instead of 7 on two
    such cores, and the UNet took half the memory. The demo model gains nothing from it. Flow
    families are trained in bfloat16, and many overflow in float16: they compute in bfloat16 unless
    the device only emulates it, then in float32.
    """
    if device == "auto":
        cards = (card for card in CARDS if getattr(torch, card).is_available())
        device = next(cards, "mps" if torch.backends.mps.is_available() else "cpu")
    chosen = torch.device(device)
    card = _card(chosen)
    if card and chosen.index is None:
        chosen = torch.device(chosen.type, ordinal % max(1, card.device_count()))
    _use(chosen)
    if precision != "auto":
        dtype = large = flow = getattr(torch, precision)
    elif card:
        dtype = large = torch.float16
        able = card.is_bf16_supported(including_emulation=False)
        flow = torch.bfloat16 if able else torch.float32
    else:
        dtype = torch.float32
        large = torch.bfloat16 if chosen.type == "cpu" and computes_bfloat16() else dtype
        flow = torch.bfloat16 if chosen.type == "mps" else large
    name = f"{chosen} ({card.get_device_name(chosen)})" if card else chosen.type
    return Target(chosen, dtype, large, flow, name)


@contextmanager
def compute_exactly(*, exact: bool, all_bits: bool) -> Iterator[None]:
    """Use deterministic algorithms and full float32 while an exact image is rendered.

    Others may use TF32's ten bits for convolutions, unless `all_bits` are wanted.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    torch.backends.cudnn.allow_tf32 = not (exact or all_bits)
    torch.backends.cuda.matmul.allow_tf32 = False
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(exact)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _use(device: torch.device) -> None:
    """Make a device this thread's current device. RenderFailed if it cannot compute.

    A driver or device may be missing, and a build of torch supports only some GPUs: it warns about
    others, and fails at the first picture.

    torch takes cuBLAS for deterministic, as it is with the workspaces that torch gives it, if a
    variable says so at the first product of matrices. Until 2.11 it also parsed it at each product,
    for 75 microseconds: with it an H200 took 37 ms instead of 23 for a step of Stable Diffusion 1.5
    (aten/src/ATen/cuda/CublasHandlePool.cpp).
    https://docs.nvidia.com/cuda/cublas/index.html#results-reproducibility
    """
    try:
        torch.ones(1, device=device).add(1).cpu()
        if card := _card(device):
            card.set_device(device)
        if device.type == "cuda":
            os.environ[_CUBLAS] = ":4096:8"
            matrix = torch.ones(1, 1, device=device)
            matrix.mm(matrix)
            del os.environ[_CUBLAS]
    except (RuntimeError, AssertionError) as error:
        if out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise RenderFailed(
            f"torch {torch.__version__} cannot compute on {device}: {reason}.",
            "Set device: auto or device: cpu, or install a build of torch for your GPU: "
            "https://pytorch.org/get-started/locally/ (for Maxwell, Pascal and Volta the one for "
            "CUDA 12.6, cu126).",
        ) from error


def held_memory() -> MemoryUse | None:
    """Return the GPU memory that torch holds in this process, else its main memory (Linux)."""
    cuda: Any = torch.cuda
    if cuda.is_initialized():  # torch's own counters do not wait for kernels
        free = cuda.mem_get_info()[0] + cuda.memory_reserved() - cuda.memory_allocated()
        return MemoryUse(cuda.memory_reserved(), cuda.max_memory_reserved(), int(free))
    try:
        lines = Path("/proc/self/status").read_text()
    except OSError:
        return None
    kilobytes = re.findall(r"^Vm(?:RSS|HWM):\s*(\d+) kB$", lines, re.MULTILINE)
    peak, now = (int(number) * 1024 for number in kilobytes)
    return MemoryUse(now, max(now, peak))  # the kernel updates the peak a little later


def room_on(device: torch.device) -> Room:
    """Return the memory that this process could use with a device."""
    memory, left = psutil.virtual_memory(), _left_to_container()
    main = min(int(memory.available), left) + int(psutil.Process().memory_info().rss)
    card = _card(device)
    if card is None:  # a container cannot swap
        return Room(main, None, main if left < memory.available else int(memory.total))
    return Room(main, card.mem_get_info(device)[0] + card.memory_reserved(device))


def free_bytes(device: torch.device) -> tuple[int, int]:
    """Return the free bytes of a device and of main memory; a CPU's are the same."""
    card, main = _card(device), min(int(psutil.virtual_memory().available), _left_to_container())
    if card is None:
        return main, main
    cached = card.memory_reserved(device) - card.memory_allocated(device)
    return int(card.mem_get_info(device)[0] + cached), main


def empty_cache(device: torch.device) -> None:
    """Return the memory that torch keeps for later tensors to the device."""
    if device.type in (*CARDS, "mps"):
        getattr(torch, device.type).empty_cache()


def _card(device: torch.device) -> Any:
    """Return torch's module for a card, None for other devices."""
    return getattr(torch, device.type) if device.type in CARDS else None


def _left_to_container(cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes left to the container's limit (cgroup v2), not counting its page cache."""
    with suppress(OSError, ValueError):  # the limit is "max" if there is none
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        lines = (cgroup / "memory.stat").read_text().splitlines()
        files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, limit - used + files)
    return 2**63
