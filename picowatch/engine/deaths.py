"""Says in words how a process ended. Imports no torch."""

import signal
from collections.abc import Sequence

_KILLED = (
    "The engine was killed (SIGKILL); most often the system ran out of memory.",
    "Try a smaller size or batch_size: 1, or close other programs.",
)
_CRASHED = "Most often a driver or a library of torch is at fault: picowatch doctor shows versions."


def how_it_died(status: int, stderr: Sequence[str]) -> tuple[str, str]:
    """Message and remedy for a process' exit status, as subprocess gives it (negative: signal).

    `stderr` are the last lines the process wrote; a Python error's last line says what it was.
    """
    if status == -signal.SIGKILL:
        return _KILLED
    if status < 0:
        return f"The engine crashed ({_signal_name(-status)}).", _CRASHED
    last = next((line.strip() for line in reversed(stderr) if line.strip()), "")
    said = f" It said: {last}" if last else ""
    return f"The engine ended by itself (exit status {status}).{said}", ""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
