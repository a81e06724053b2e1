"""Which device and which number formats, on machines with cards that stand-ins simulate."""

import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from picowatch.engine.unet.denoise import _StepQueue
from torch.utils import deterministic

from picowatch.engine.checkpoints import Checkpoints
from picowatch.engine.devices import choose_target
from picowatch.engine.memory_usage import broken_gpu, free_bytes
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed

CARDS = {
    "NVIDIA GeForce RTX 4090": (8, 9),
    "NVIDIA GeForce GTX 1660 SUPER": (7, 5),
    "NVIDIA GeForce RTX 2060": (7, 5),
    "NVIDIA GeForce GTX 1080": (6, 1),
}
BUILD = ["sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes torch see the named cards."""

    def see(*names: str) -> None:
        def name_of(device: torch.device) -> str:
            return names[device.index or 0]

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
        monkeypatch.setattr(torch.cuda, "get_device_name", name_of)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda one: CARDS[name_of(one)])
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: BUILD)
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda _: Mock(total_memory=24 * 2**30)
        )

    return see


RTX, GTX_16, RTX_20, GTX_10 = CARDS


def test_a_card_takes_float16_but_not_the_ones_it_overflows_on(cards: Any) -> None:
    """GTX 16 has no tensor cores, and its float16 gives black pictures.

    Flow families take bfloat16 where the card computes it: torch would emulate it on RTX 20.
    """
    cards(RTX, GTX_16, RTX_20)
    found = [choose_target("cuda", "auto", ordinal) for ordinal in range(3)]
    assert [one.dtype for one in found] == [torch.float16, torch.float32, torch.float16]
    assert [one.flow_dtype for one in found] == [torch.bfloat16, torch.float32, torch.float32]
    assert choose_target("cuda:1", "float16").dtype == torch.float16, "the setting's word counts"


def test_a_card_that_torch_has_no_code_for_is_refused_before_the_first_picture(
    cards: Any,
) -> None:
    """With the build to install."""
    cards(GTX_10)
    with pytest.raises(RenderFailed, match=r"compute capability 6\.1, .* built for 7\.5 to 9\.0"):
        choose_target("cuda", "auto")
    with pytest.raises(RenderFailed, match=r"cu126.*Or set device: cpu\."):
        choose_target("auto", "auto")


def test_each_engine_addresses_its_own_card_everywhere(
    cards: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What names no device, as events and memory figures, means the engine's."""
    cards(RTX, RTX)
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    Renderer(EngineOptions(models=tmp_path, device="cuda", ordinal=1))
    Renderer(EngineOptions(models=tmp_path, device="cuda:0", ordinal=1))
    Renderer(EngineOptions(models=tmp_path, device="cpu", ordinal=1))
    assert chosen == [torch.device("cuda:1"), torch.device("cuda:0")]


def test_what_torch_calls_exact_is_exact(tmp_path: Path) -> None:
    """Not TF32's ten bits in convolutions; and nothing is filled that is written anyway."""

    def states(engine: Renderer, *, exact: bool) -> tuple[bool, bool, bool, bool]:
        with engine._algorithms(exact=exact):
            return (
                torch.are_deterministic_algorithms_enabled(),
                torch.backends.cudnn.allow_tf32,
                torch.backends.cuda.matmul.allow_tf32,
                deterministic.fill_uninitialized_memory,  # type: ignore[attr-defined]
            )

    auto = Renderer(EngineOptions(models=tmp_path, device="cpu"))
    full = Renderer(EngineOptions(models=tmp_path, device="cpu", precision="float32"))
    assert states(auto, exact=False) == (False, True, False, False)
    assert states(auto, exact=True) == (True, False, False, False)
    assert states(full, exact=False) == (False, False, False, False)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_gpu_that_no_longer_works_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next call that waits for it."""
    assert broken_gpu() == ""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    assert broken_gpu() == ""
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(torch.cuda, "synchronize", Mock(side_effect=error))
    assert "illegal memory access" in broken_gpu()
    monkeypatch.delitem(sys.modules, "torch")
    assert broken_gpu() == ""


@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_gpu_has_one_step_queued_and_no_more(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress is true then, on Apple's GPUs, too."""
    events: list[Mock] = []

    def event() -> Mock:
        events.append(Mock())
        return events[-1]

    monkeypatch.setitem(sys.modules["picowatch.engine.unet.denoise"]._EVENTS, kind, event)
    queue = _StepQueue(torch.device(kind))
    for _ in range(3):
        queue.add()
    assert [one.record.call_count for one in events] == [1, 1, 1]
    assert [one.synchronize.call_count for one in events] == [1, 1, 0]


def test_an_apple_gpu_gets_memory_back_and_says_what_it_may_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A part of the computer's memory, which torch knows."""
    apple = Mock()
    apple.recommended_max_memory.return_value = 3 * 2**20
    apple.current_allocated_memory.return_value = 2**20
    monkeypatch.setattr(torch, "mps", apple)
    assert free_bytes(torch.device("mps")) == 2 * 2**20
    target = Mock(device=torch.device("mps"))
    Checkpoints(Mock(), target).give_memory_back()
    apple.empty_cache.assert_called_once()
