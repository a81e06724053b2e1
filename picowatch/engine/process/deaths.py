"""Says in words how a process ended. Imports no torch."""

import signal
from collections.abc import Sequence

_KILLED = (
    "The engine was killed (SIGKILL); most often the system ran out of memory.",
    "Try a smaller size or batch_size: 1, or close other programs.",
)
_CRASHED = "Most often a driver or a library of torch is at fault: update or install them again."
_TORN = (
    "The engine crashed (SIGBUS); most often a file was cut short while it was read.",
    "If a model file is being copied, wait until it is whole, then save the recipe again.",
)
_LONGEST = 300


def how_it_died(status: int, stderr: Sequence[str]) -> tuple[str, str]:
    """Message and remedy for a process' exit status, as subprocess gives it (negative: signal).

    `stderr` are the last lines the process wrote; a Python error's last line says what it was.
    """
    if status == -signal.SIGKILL:
        return _KILLED
    if status == -signal.SIGBUS:
        return _TORN
    if status < 0:
        return f"The engine crashed ({_signal_name(-status)}).", _CRASHED
    last = next((said for line in reversed(stderr) if (said := _printable(line))), "")
    said = f" It said: {last}." if last else ""
    return f"The engine ended by itself (exit status {status}).{said}", _CRASHED


def _printable(line: str) -> str:
    """The line without what steers a terminal, and not longer than a sentence may be."""
    return "".join(filter(str.isprintable, line)).strip()[:_LONGEST].rstrip(".")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
