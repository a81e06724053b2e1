"""Puts what torch raises into words for people. Imports no torch: names and texts suffice."""

from picowatch.engine.process.wire import Broken, Failed

SMALLER = "Try a smaller size or batch_size: 1."


def explain(error: Exception, trace: str) -> Failed | Broken:
    """What happened and what to do; Broken if the GPU cannot be used any more in this process."""
    text = str(error)
    short_of_memory = out_of_memory(error)
    if short_of_memory:
        return Failed(short_of_memory, SMALLER, trace)
    # A CUDA error other than that leaves the process' context unusable for good:
    # https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html
    if type(error).__name__ == "AcceleratorError" or "CUDA error" in text:
        return Broken(
            f"The GPU reported an error and the engine was ended: {_first_line(text)}.",
            "If it happens again, restart the computer, and update the GPU's driver and torch.",
        )
    if isinstance(error, ImportError):
        return Failed(
            f"The engine's libraries cannot be imported: {_first_line(text)}.",
            "Install picowatch again.",
            trace,
        )
    return Failed(
        f"The engine failed: {type(error).__name__}: {_first_line(text)}.",
        "`picowatch run --debug` writes into the log where.",
        trace,
    )


def out_of_memory(error: Exception) -> str:
    """Whose memory ran out, in a sentence; "" for every other error."""
    text = str(error)
    if isinstance(error, MemoryError) or "not enough memory" in text:
        return "The computer has not enough memory for this image."
    if type(error).__name__ == "OutOfMemoryError" or "MPS backend out of memory" in text:
        return "The GPU has not enough memory for this image."
    return ""


def _first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "no reason given")[:300].rstrip(".")
