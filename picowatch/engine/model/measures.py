"""Measurements of memory."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import torch

from picowatch.engine.model.memory import Room
from picowatch.engine.protocol import MemoryUse

_CGROUP = Path("/sys/fs/cgroup")


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


CARDS = ("cuda", "xpu")  # devices with memory of their own


def room_on(device: torch.device) -> Room:
    """Return the memory that this process could use with a device."""
    memory = psutil.virtual_memory()
    free = min(int(memory.available), _left_to_container())
    main = free + int(psutil.Process().memory_info().rss)
    card = _card(device)
    if card is None:  # a container cannot swap
        return Room(main, None, main if free < memory.available else int(memory.total))
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


def _left_to_container(cgroup: Path = _CGROUP) -> int:
    """Return the bytes left to the container's limit (cgroup v2), not counting its page cache."""
    with suppress(OSError, ValueError):  # the limit is "max" if there is none
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        lines = (cgroup / "memory.stat").read_text().splitlines()
        files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, limit - used + files)
    return 2**63
