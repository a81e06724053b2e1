"""How much memory an engine holds, told without asking it."""

import mmap
import os
import sys
from types import SimpleNamespace

import pytest

from picowatch.engine.child import ChildEngine
from picowatch.engine.memory_use import gpu_memory, process_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import MemoryUse
from tests.house import House


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells it in /proc")
def test_a_process_on_the_cpu_is_told_by_the_system() -> None:
    """What it holds, and the most it held; nothing of one that is gone."""
    before = process_memory(os.getpid())
    # Pages of its own: an allocator may give back what the process holds already.
    with mmap.mmap(-1, 60_000_000) as ballast:
        ballast.write(b"\1" * len(ballast))
        during = process_memory(os.getpid())
    after = process_memory(os.getpid())
    assert before and during and after
    assert during.now - before.now > 50_000_000
    assert after.now < during.now
    assert during.peak >= during.now
    assert after.peak > after.now + 50_000_000
    assert process_memory(2**30) is None


def test_a_gpu_is_told_by_torch_s_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where torch computes on one."""
    cuda = SimpleNamespace(
        is_initialized=lambda: True, memory_reserved=lambda: 3, max_memory_reserved=lambda: 5
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu_memory() == MemoryUse(now=3, peak=5)
    cuda.is_initialized = lambda: False
    assert gpu_memory() is None
    monkeypatch.delitem(sys.modules, "torch")
    assert gpu_memory() is None


def test_an_engine_that_is_not_started_holds_none(house: House) -> None:
    """And needs no starting to say so."""
    engine = ChildEngine(EngineOptions(models=house.models))
    assert engine.memory() is None
    assert engine.process_id is None
