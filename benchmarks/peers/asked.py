"""What a peer is asked for, and what it says at its end: one JSON line."""

import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_IMPORTED_AT = time.monotonic()


def asked() -> dict[str, Any]:
    """The job in the file that the first argument names: benchmarks/jobs.py writes it."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    return job


def seconds_since_start() -> float:
    """Since this process began, its imports included."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # macOS
        return time.monotonic() - _IMPORTED_AT
    began = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # since the system's boot; proc(5)
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began


def resident_peak() -> int:
    """The most main memory this process held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def tell(start_up: float, seconds: Sequence[float], peak_bytes: int) -> None:
    """The answer: seconds until it was ready, seconds of each picture, peak memory."""
    print(json.dumps({"start_up": start_up, "pictures": list(seconds), "peak_bytes": peak_bytes}))
