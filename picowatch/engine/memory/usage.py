"""How much memory an engine holds: on a GPU as torch says, else as the system does."""

import sys
from pathlib import Path

from picowatch.engine.protocol import MemoryUse

_STATUS = "/proc/{process}/status"


def gpu_memory() -> MemoryUse | None:
    """What torch holds of the GPU in this process; None where it uses none.

    The counters are torch's own, so asking waits for no kernel. Imports nothing: an engine that
    computes on a GPU has imported torch.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return MemoryUse(torch.cuda.memory_reserved(), torch.cuda.max_memory_reserved())


def process_memory(process: int) -> MemoryUse | None:
    """What a process holds of the computer's memory, where the system tells (Linux)."""
    try:
        lines = Path(_STATUS.format(process=process)).read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    kilobytes = {name: fields[name].split()[0] for name in ("VmRSS", "VmHWM") if name in fields}
    if len(kilobytes) < 2:  # a process that is ending
        return None
    now, peak = (int(kilobytes[name]) * 1024 for name in ("VmRSS", "VmHWM"))
    return MemoryUse(now, max(now, peak))  # the kernel notes the peak a little later
