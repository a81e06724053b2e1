"""The device, number formats, memory and failures, on simulated machines."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
import torch

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.failures import explain_error, explain_exit
from picowatch.engine.model import devices
from picowatch.engine.model.devices import choose_target, compute_exactly
from picowatch.engine.process import child_main
from picowatch.engine.protocol import EngineOptions
from picowatch.errors import EngineDied, RenderFailed

F16, BF16, F32 = torch.float16, torch.bfloat16, torch.float32
CARDS = {"NVIDIA GeForce RTX 4090": 8, "NVIDIA GeForce RTX 2060": 7, "NVIDIA GeForce GTX 1080": 6}
RTX, RTX_20, GTX_10 = CARDS


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let torch see the named GPUs, and return those that were chosen."""
    chosen = [torch.device("cuda:0")]

    def see(*names: str) -> list[torch.device]:
        def name_of(device: torch.device) -> str:
            return names[device.index or 0]

        def properties(device: Any) -> Mock:
            return Mock(major=CARDS[name_of(device)], total_memory=24 * 2**30)

        values = {
            "is_available": lambda: True,
            "device_count": lambda: len(names),
            "set_device": chosen.append,
            "current_device": lambda: chosen[-1],
            "get_device_name": name_of,
            "get_device_properties": properties,
        }
        for name, value in values.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(torch.version, "cuda", "12.6")
        monkeypatch.setattr(torch, "ones", Mock())
        return chosen

    return see


@pytest.mark.parametrize(("card", "flow"), [(RTX, BF16), (RTX_20, F32), (GTX_10, F32)])
def test_a_card_takes_the_types_that_it_computes(cards: Any, card: str, flow: torch.dtype) -> None:
    """torch emulates bfloat16 on older cards; the engine's own card is asked, not the first one."""
    cards(RTX_20, card)
    target = choose_target("cuda:1", "auto")
    assert (target.dtype, target.large_unet_dtype, target.flow_dtype) == (F16, F16, flow)
    assert choose_target("cuda:1", "float16").flow_dtype == F16, "the setting's word counts"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_does_not_compute_is_refused(device: str) -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        pytest.skip("it is there")
    with pytest.raises(RenderFailed, match=rf"cannot compute on {device}.*: \w+.*Set device: auto"):
        choose_target(device, "auto")


def test_each_engine_addresses_its_own_card_everywhere(cards: Any, tmp_path: Path) -> None:
    """Events and memory figures, which name no device, are the engine's."""
    chosen = cards(RTX, RTX)
    for device, ordinal in (("cuda", 1), ("cuda:0", 1), ("cuda", 2), ("cpu", 1)):
        Renderer(EngineOptions(models=tmp_path, device=device, ordinal=ordinal))
    assert chosen[1:] == [torch.device("cuda", index) for index in (1, 0, 0)]


def test_what_lets_cublas_be_exact_does_not_stay(cards: Any) -> None:
    """torch reads the variable at the first product; older ones parse it anew at each further."""
    cards(RTX)
    seen, tensor = [], cast(Mock, torch.ones).return_value
    tensor.mm.side_effect = lambda _: seen.append(os.environ["CUBLAS_WORKSPACE_CONFIG"])
    choose_target("cuda", "auto")
    assert seen == [":4096:8"]
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.parametrize(
    ("exact", "all_bits"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_only_inexact_pictures_take_ten_bits_for_convolutions(exact: bool, all_bits: bool) -> None:
    """TF32's; with `precision: float32` these do not, either."""
    with compute_exactly(exact=exact, all_bits=all_bits):
        assert torch.backends.cudnn.allow_tf32 == (not exact and not all_bits)


def test_a_gpu_that_no_longer_works_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error appears at the next call that waits for it."""
    assert child_main.broken_gpu() == ""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(torch.cuda, "synchronize", Mock(side_effect=error))
    assert "illegal memory access" in child_main.broken_gpu()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux reports it in /proc")
def test_the_system_reports_a_process_on_the_cpu() -> None:
    code = (
        "from picowatch.engine.model.devices import held_memory as held; kept = bytearray(10**8);"
        "del kept; found = held(); assert 10**6 < found.now < found.peak - 5 * 10**7"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("limit", "left"), [(str(3 * 2**30), 2 * 2**30 + 2**28), ("max", 2**63), (None, 2**63)]
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str | None, left: int) -> None:
    """Memory in use is subtracted, pages of files are not: 1 GiB with a quarter of those."""
    if limit:
        (tmp_path / "memory.max").write_text(limit + "\n")
        (tmp_path / "memory.current").write_text(f"{2**30}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {2**28}\nactive_file 7\n")
    assert devices._left_to_container(tmp_path) == left


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
        (RuntimeError("std::bad_alloc"), COMPUTER),
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
    daemon = Mock(recv=lambda: ())
    failing = Mock(render=Mock(side_effect=RuntimeError("expected scalar type Half")))
    monkeypatch.setattr(child_main, "broken_gpu", lambda: "CUDA error: unknown error")
    child_main.serve(daemon, lambda: False, lambda _: failing)
    died = daemon.send.call_args.args[0]
    assert isinstance(died, EngineDied)
    assert "unknown error" in died.message
