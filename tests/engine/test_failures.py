"""What torch raises, as messages."""

import subprocess
import sys
from queue import SimpleQueue
from unittest.mock import Mock

import pytest
from picowatch.engine.process.wire import Render

from picowatch.engine import child_main
from picowatch.engine.failures import StderrTail, explain_error
from picowatch.errors import EngineDied, RenderFailed
from tests.engine.requests import PATIENCE


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class AcceleratorError(RuntimeError):
    """Named as torch's."""


COMPUTER = "The computer does not have enough memory for this image."
GPU = "The GPU does not have enough memory for this image."


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), COMPUTER),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9"), COMPUTER),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate "
                "memory: you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
            ),
            COMPUTER,
        ),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), GPU),
        (OutOfMemoryError("HIP out of memory. Tried to allocate 2.00 GiB."), GPU),
        (AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"), GPU),
        (RuntimeError("CUDA driver error: out of memory"), GPU),
        (
            RuntimeError(
                "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"
            ),
            GPU,
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), GPU),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), GPU),
        (RuntimeError("Invalid buffer size: 12.00 GiB"), GPU),
        (ImportError("No module named 'torch'"), "cannot be imported: No module named 'torch'."),
        (KeyError("x"), "The engine failed: KeyError: 'x'"),
        (
            RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
            "The engine failed: RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED.",
        ),
    ],
)
def test_a_failed_batch_says_what_happened(error: Exception, said: str) -> None:
    """And what to do about it."""
    failure = explain_error(error, "trace")
    assert isinstance(failure, RenderFailed)
    assert said in failure.message
    assert failure.remedy
    assert failure.trace == "trace"


@pytest.mark.parametrize(
    "error",
    [
        AcceleratorError("CUDA error: an illegal memory access was encountered\nmore"),
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx()`"),
    ],
)
def test_a_poisoned_gpu_ends_the_engine(error: Exception) -> None:
    """Nothing works in its process any more."""
    failure = explain_error(error, "trace")
    assert isinstance(failure, EngineDied)
    assert "CUDA error" in failure.message
    assert "\n" not in failure.message


@pytest.mark.parametrize(
    "error", [KeyError("x"), OutOfMemoryError("CUDA out of memory."), RuntimeError("cuDNN error")]
)
def test_whatever_failed_a_gpu_that_is_broken_afterwards_ends_the_engine(error: Exception) -> None:
    """The images are rendered by another process; none fails for this one."""
    failure = explain_error(error, "trace", broken="CUDA error: unspecified launch failure")
    assert isinstance(failure, EngineDied)
    assert "unspecified launch failure" in failure.message


def test_the_gpu_is_asked_after_an_unknown_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel that failed may have been queued long before."""
    monkeypatch.setattr(child_main, "broken_gpu", lambda: "CUDA error: unknown error")
    batches: SimpleQueue[Render] = SimpleQueue()
    batches.put(Render(0, (), 0))
    replies = Mock()
    failing = Mock(side_effect=RuntimeError("expected scalar type Half"))
    with pytest.raises(SystemExit):
        child_main._Server(replies, lambda: Mock(begin=failing), batches, lambda _: False).serve()
    ended, _ = replies.send.call_args.args
    assert isinstance(ended.outcome, EngineDied)
    assert "unknown error" in ended.outcome.message


def test_after_an_error_of_the_gpu_its_memory_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """That raises, too, and the reason would be lost."""
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    failing = Mock(side_effect=error)
    monkeypatch.setattr(child_main, "gpu_memory", failing)
    batches: SimpleQueue[Render] = SimpleQueue()
    batches.put(Render(0, (), 0))
    replies = Mock()
    with pytest.raises(SystemExit):
        child_main._Server(replies, lambda: Mock(begin=failing), batches, lambda _: False).serve()
    ended, _ = replies.send.call_args.args
    assert isinstance(ended.outcome, EngineDied)
    assert "illegal memory access" in ended.outcome.message


SPEECH = "import sys; sys.stderr.write('first words ' + 'no line ends ' * 500_000 + 'last words')"


def test_the_end_is_kept_of_megabytes_without_a_line_end() -> None:
    """Progress bars write like this for months; the daemon's memory stays small."""
    with subprocess.Popen([sys.executable, "-c", SPEECH], stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        tail = StderrTail(process.stderr)
        tail.wait(PATIENCE)
    (line,) = tail.lines()
    assert line.endswith("last words")
    assert len(line) < 20_000


def test_waiting_ends_though_somebody_holds_the_pipe() -> None:
    """As a process does that the engine started and that outlives it."""
    command = [sys.executable, "-c", "import sys; print('here', file=sys.stderr); sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None and process.stdin is not None
        tail = StderrTail(process.stderr)
        tail.wait(0.01)
        assert process.poll() is None
        process.stdin.close()
        tail.wait(PATIENCE)
    assert tail.lines() == ["here"]
