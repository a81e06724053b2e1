"""Messages for how an engine failed. Imports no torch: names and texts suffice."""

import re
import signal
from collections.abc import Sequence

from picowatch.errors import EngineDied, RenderFailed

SMALLER = "Try a smaller size or batch_size: 1."
_BY_SIGNAL: dict[int, tuple[str, str]] = {
    signal.SIGKILL: (
        "The engine was killed (SIGKILL); most often the system ran out of memory.",
        "Try a smaller size or batch_size: 1, or close other programs.",
    ),
    signal.SIGBUS: (
        "The engine crashed (SIGBUS); most often a file was cut short while it was read.",
        "If a model file is being copied, wait until it is complete, then save the recipe again.",
    ),
}
_CRASHED = "Most often a driver or a library of torch is at fault: update or install them again."
_LONGEST = 300


def explain_exit(status: int | None, stderr: Sequence[str]) -> tuple[str, str]:
    """Return message and remedy for a process' exit code (negative: a signal).

    `stderr` are the last lines that it wrote. Exit code None means that it did not end by itself.
    """
    if status is not None and status < 0:
        name = next((sig.name for sig in signal.Signals if sig == -status), f"signal {-status}")
        return _BY_SIGNAL.get(-status, (f"The engine crashed ({name}).", _CRASHED))
    ended = f"ended by itself (exit status {status})"
    if status is None:
        ended = "stopped answering and was ended"
    lines = ("".join(filter(str.isprintable, line)).strip() for line in reversed(stderr))
    last = next(filter(None, lines), "")[:_LONGEST].rstrip(".")
    return f"The engine {ended}." + (f" It said: {last}." if last else ""), _CRASHED


def explain_error(error: Exception, trace: str, broken: str = "") -> RenderFailed | EngineDied:
    """Return the error for the daemon: EngineDied if this process can no longer use the GPU.

    `broken` is the error of the GPU when it was used afterwards, "" if it still works: a kernel's
    failure may appear only as an error of some library.
    """
    text = str(error)
    said = as_clause(next(iter((broken or text).strip().splitlines()), "no reason given"))
    if not broken and (short_of_memory := out_of_memory(error)):
        return RenderFailed(short_of_memory, SMALLER, trace)
    # All GPU errors but out-of-memory errors make the context unusable:
    # https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
    if broken or type(error).__name__ == "AcceleratorError" or "CUDA error" in text:
        return EngineDied(
            f"The GPU reported an error and the engine was ended: {said}.",
            "If it happens again, restart the computer, and update the GPU's driver and torch.",
        )
    if isinstance(error, ImportError):
        what = f"The engine's libraries cannot be imported: {said}."
        return RenderFailed(what, "Install picowatch again.", trace)
    what = f"The engine failed: {type(error).__name__}: {said}."
    return RenderFailed(what, "`picowatch run --debug` logs where.", trace)


# Messages about full GPU memory, of torch's allocator, drivers and libraries:
# c10/cuda/CUDACachingAllocator.cpp, c10/cuda/CUDAException.cpp, aten/src/ATen/cuda/Exceptions.h
# and aten/src/ATen/mps/MPSAllocator.mm of https://github.com/pytorch/pytorch.
_GPU_MEMORY = re.compile(
    r"\b(CUDA|HIP|MPS)\b.* out of memory|_STATUS_ALLOC_FAILED|^Invalid buffer size"
)
_MEMORY_TEXTS = ("not enough memory", "can't allocate memory", "std::bad_alloc")


def out_of_memory(error: Exception) -> str:
    """Return a sentence about whose memory ran out; "" for every other error."""
    text = str(error)
    if isinstance(error, MemoryError) or any(each in text for each in _MEMORY_TEXTS):
        return "The computer does not have enough memory for this image."
    if _GPU_MEMORY.search(text) or type(error).__name__ == "OutOfMemoryError":
        return "The GPU does not have enough memory for this image."
    return ""


def as_clause(said: object) -> str:
    """Return an error's text for the end of a sentence: short, on one line, without a stop."""
    return " ".join(str(said).split())[:_LONGEST].rstrip(".: ")
