"""What torch raises, in words for people."""

import pytest

from picowatch.engine.process.mishaps import explain
from picowatch.engine.process.wire import Broken, Failed


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class AcceleratorError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "The computer has not enough memory for this image."),
        (
            RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
            "The computer has not enough memory for this image.",
        ),
        (OutOfMemoryError("CUDA out of memory."), "The GPU has not enough memory for this image."),
        (
            RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
            "The GPU has not enough memory for this image.",
        ),
        (ImportError("No module named 'torch'"), "cannot be imported: No module named 'torch'."),
        (KeyError("x"), "The engine failed: KeyError: 'x'"),
    ],
)
def test_a_failed_batch_says_what_happened(error: Exception, said: str) -> None:
    """And what to do about it."""
    answer = explain(error, "trace")
    assert isinstance(answer, Failed)
    assert said in answer.message
    assert answer.remedy
    assert answer.trace == "trace"


@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("CUDA error: an illegal memory access was encountered\nmore"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ],
)
def test_a_poisoned_gpu_ends_the_engine(error: Exception) -> None:
    """Nothing works in its process any more."""
    answer = explain(error, "trace")
    assert isinstance(answer, Broken)
    assert "CUDA error" in answer.message
    assert "\n" not in answer.message
