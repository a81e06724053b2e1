"""How much memory there is, and how much of it an engine holds. Imports no torch by itself."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]

from picowatch.engine.protocol import MemoryUse

if TYPE_CHECKING:
    import torch

_STATUS = "/proc/{process}/status"
_CGROUP = Path("/sys/fs/cgroup")


def gpu_memory() -> MemoryUse | None:
    """What torch holds of the GPU in this process; None if it uses none.

    The counters are torch's own, so reading them does not wait for kernels. Imports nothing: an
    engine that computes on a GPU has imported torch.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return MemoryUse(torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved())


def broken_gpu() -> str:
    """What a GPU that can no longer be used from this process says; "" for one that works.

    It is asked to finish all that was queued, because a kernel that failed says so at some later
    call. Imports nothing, like `gpu_memory`.
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


def process_memory(process: int) -> MemoryUse | None:
    """What a process holds of the computer's memory, where the system reports it (Linux)."""
    try:
        lines = Path(_STATUS.format(process=process)).read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    kilobytes = {name: fields[name].split()[0] for name in ("VmRSS", "VmHWM") if name in fields}
    if len(kilobytes) < 2:  # a process that is ending
        return None
    now, peak = (int(kilobytes[name]) * 1024 for name in ("VmRSS", "VmHWM"))
    return MemoryUse(now, max(now, peak))  # the kernel updates the peak a little later


def free_bytes(device: "torch.device") -> int:
    """What is free on a card; elsewhere what is free of the main memory."""
    import torch

    if device.type != "cuda":
        return min(int(psutil.virtual_memory().available), _left_to_container())
    free, _ = torch.cuda.mem_get_info(device)
    return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))


def main_memory() -> int:
    """What this process could have of the main memory, if it gave back all that it holds."""
    free = min(int(psutil.virtual_memory().available), _left_to_container())
    return free + int(psutil.Process().memory_info().rss)


def _left_to_container(cgroup: Path = _CGROUP) -> int:
    """Bytes below the container's limit (cgroup v2), files in its page cache not counted.

    The kernel kills what exceeds it.
    """
    with suppress(OSError, ValueError):  # the limit is "max" if there is none
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        lines = (cgroup / "memory.stat").read_text().splitlines()
        files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, limit - used + files)
    return 2**63


def forget_peak(device: "torch.device") -> None:
    """Count the peak from here on, where the system can."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # proc(5), /proc/pid/clear_refs: 5 resets the peak of the resident set.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: "torch.device") -> int | None:
    """The most that torch held of a card, or else this process of the main memory, on Linux."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    held = process_memory(os.getpid())
    return held.peak if held else None
