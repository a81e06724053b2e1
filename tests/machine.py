"""How fast this machine is, for bounds of time and rates that hold on others, too."""

import json
import os
import time
from pathlib import Path

FIXED_WORK_SECONDS = 0.0043  # of processor time, on the machine that the goals were set on


class Slowness:
    """How many times as long this machine takes as the one that the goals were set on.

    It is taken again and again while something is measured: clocks and neighbours of a core change.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []

    def take(self) -> None:
        """Take the processor time of work like the daemon's: texts, mappings, system calls."""
        began = time.thread_time()
        for number in range(400):
            written = {"prompt": f"prompt: corgi\nseed: {number}\n", "sizes": [*range(20)]}
            found = json.loads(json.dumps(written))
            assert sorted(found["prompt"].split("\n"))[1] and Path(__file__).stat()
        self._seconds.append(time.thread_time() - began)

    def __float__(self) -> float:
        return sum(self._seconds) / len(self._seconds) / FIXED_WORK_SECONDS


def within(seconds: float) -> float:
    """Return a time limit, extended on a slow machine, and if more threads than cores run."""
    slowness = Slowness()
    slowness.take()
    return seconds * max(1.0, float(slowness)) + max(0.0, _wanting_a_core() / _cores() - 1)


def _cores() -> float:
    """Return how many cores this process may use: a container may have only some."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores or 1, int(quota) / int(period))
    except (OSError, ValueError):  # there is none, or it is "max"
        return cores or 1


def _wanting_a_core() -> float:
    """Return the number of runnable threads, now or on average over a minute, if that is more."""
    try:
        now = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except OSError:
        now = 0
    return max(os.getloadavg()[0], now)
