"""What benchmarks share: rows with their spread, and the machine in words."""

import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path


def compared(what: str, ours: Sequence[float], others: Sequence[float], unit: str = "s") -> str:
    """A row: medians, and their ratio by rounds, since what slows a round slows both."""
    ratios = [other / own for own, other in zip(ours, others, strict=True) if own]
    medians = (f"{number(statistics.median(values))} {unit}" for values in (ours, others))
    return " | ".join((f"| {what}", *medians, f"{spread(ratios) if ratios else '–'} |"))


def spread(values: Sequence[float]) -> str:
    """The median with the least and the most: "2.31 (2.25 to 2.4)"; of one value that value."""
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """The value with three significant digits, more if they are before the point."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    libraries = [f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers")]
    parts = [f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, load {load()}"]
    return ", ".join([*parts, f"Python {platform.python_version()}", *libraries])


def _processor() -> str:
    """The processor's model, and the instructions that decide how fast a model runs on it."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    lines = [line.split(":", 1) for line in info.read_text().splitlines() if ":" in line]
    values = {key.strip(): value.strip() for key, value in lines}
    flags = values.get("flags", "").split()
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return " ".join([values.get("model name", platform.machine()), *known])


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def wait_until(
    condition: Callable[[], object], what: str, patience: float, look_seconds: float
) -> None:
    """Look until the condition holds. Raises TimeoutError if it does not."""
    pause, deadline = threading.Event(), time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {patience:.0f} s: {what}")
        pause.wait(look_seconds)
