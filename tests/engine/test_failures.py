"""Messages for what torch raises and how processes end."""

from unittest.mock import Mock

import pytest
import torch

from picowatch.engine import child_main
from picowatch.engine.failures import explain_error, explain_exit
from picowatch.engine.protocol import Render
from picowatch.errors import EngineDied, RenderFailed

COMPUTER = "The computer does not have enough memory for this image."
GPU = "The GPU does not have enough memory for this image."


def test_an_end_by_a_signal_without_a_name_is_told_by_its_number() -> None:
    """Python names only the first and the last of Linux' real-time signals."""
    assert explain_exit(-40, [])[0] == "The engine crashed (signal 40)."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), COMPUTER),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), COMPUTER),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), COMPUTER),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), GPU),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"), GPU),
        (RuntimeError("CUDA driver error: out of memory"), GPU),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas"), GPU),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), GPU),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), GPU),
        (RuntimeError("Invalid buffer size: 12.00 GiB"), GPU),
        (ImportError("No module named 'torch'"), "cannot be imported: No module named 'torch'."),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
            "The engine failed: RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED.",
        ),
    ],
)
def test_a_failed_batch_says_what_happened(error: Exception, said: str) -> None:
    """It also says what to do."""
    failure = explain_error(error, "trace")
    assert isinstance(failure, RenderFailed)
    assert said in failure.message
    assert failure.remedy
    assert failure.trace == "trace"


GONE = "CUDA error: unspecified launch failure"


@pytest.mark.parametrize(
    ("error", "broken", "said"),
    [
        (torch.AcceleratorError("CUDA error: an illegal access\nmore"), "", "an illegal access"),
        (RuntimeError("CUDA error: device-side assert triggered"), "", "device-side assert"),
        (KeyError("x"), GONE, "unspecified launch failure"),
        (torch.OutOfMemoryError("CUDA out of memory."), GONE, "unspecified launch failure"),
    ],
)
def test_a_broken_gpu_ends_the_engine(error: Exception, broken: str, said: str) -> None:
    """Its process cannot continue, whatever failed; no other image fails because of it."""
    failure = explain_error(error, "trace", broken=broken)
    assert isinstance(failure, EngineDied)
    assert said in failure.message and "\n" not in failure.message


def test_the_gpu_is_asked_after_an_unknown_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that failed may have been queued long before."""
    daemon = Mock(recv=lambda: Render(()))
    failing = Mock(render=Mock(side_effect=RuntimeError("expected scalar type Half")))
    monkeypatch.setattr(child_main, "broken_gpu", lambda: "CUDA error: unknown error")
    child_main.serve(daemon, lambda: False, lambda _: failing)
    died = daemon.send.call_args.args[0]
    assert isinstance(died, EngineDied)
    assert "unknown error" in died.message
