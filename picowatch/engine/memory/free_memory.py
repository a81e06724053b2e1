"""How much memory more weights could take."""

from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import torch

_CGROUP = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """What is free on the device; on one that shares the computer's memory, there.

    A container's own limit counts (cgroup v2): the kernel kills what goes beyond it.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + cached)
    return min(int(psutil.virtual_memory().available), _left_to_container())


def _left_to_container(cgroup: Path = _CGROUP) -> int:
    """Bytes below the container's limit, files in its page cache not counted."""
    with suppress(OSError, ValueError):
        limit = (cgroup / "memory.max").read_text().strip()
        if limit != "max":
            used = int((cgroup / "memory.current").read_text())
            lines = (cgroup / "memory.stat").read_text().splitlines()
            files = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
            return max(0, int(limit) - used + files)
    return 2**63
