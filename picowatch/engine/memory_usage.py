"""How much memory there is, and how much of it an engine holds. Imports no torch by itself."""

import os
import resource
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
    """What is free on the device; on one that shares the computer's memory, there.

    A container's limit counts (cgroup v2), because the kernel kills what exceeds it.
    """
    import torch

    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    if device.type == "mps":  # a part of the computer's memory is all that Apple's GPUs may take
        left = torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
        return max(0, min(int(left), int(psutil.virtual_memory().available)))
    return min(int(psutil.virtual_memory().available), _left_to_container())


def total_bytes(device: "torch.device") -> int:
    """What the device has, whoever uses it now: the same at each call.

    Of a computer's memory what this process may take: a container's limit counts.
    """
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return min(int(psutil.virtual_memory().total), _limit_of_container() or sys.maxsize)


def main_memory() -> int:
    """What this process could have of the main memory, if it gave back all that it holds."""
    free = min(int(psutil.virtual_memory().available), _left_to_container())
    return free + int(psutil.Process().memory_info().rss)


def _left_to_container(cgroup: Path = _CGROUP) -> int:
    """Bytes below the container's limit, files in its page cache not counted."""
    with suppress(OSError, ValueError):
        limit = _limit_of_container(cgroup)
        if limit is not None:
            used = int((cgroup / "memory.current").read_text())
            lines = (cgroup / "memory.stat").read_text().splitlines()
            files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            return max(0, limit - used + files)
    return 2**63


def _limit_of_container(cgroup: Path = _CGROUP) -> int | None:
    with suppress(OSError, ValueError):  # it says "max" if there is no limit
        return int((cgroup / "memory.max").read_text())
    return None


def forget_peak(device: "torch.device") -> None:
    """Count the peak from here on, where the system can."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    # proc(5), /proc/pid/clear_refs: 5 resets the peak of the resident set.
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: "torch.device") -> int:
    """The most that torch held of the GPU, or else this process of the main memory."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if held := process_memory(os.getpid()):
        return held.peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
