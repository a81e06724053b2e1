"""How much memory an engine holds, and how much is free."""

import platform
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]
import pytest
import torch

from picowatch.engine.child import ChildEngine
from picowatch.engine.memory import usage
from picowatch.engine.memory_usage import gpu_memory, main_memory, process_memory
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import MemoryUse
from tests.engine.requests import make, request
from tests.house import House

# Does its next step for each line it reads. A process of its own: in this one other threads and
# allocators take and give back memory at any time.
HOLDER = """
import mmap, sys
for step in "before", "during", "after":
    if step == "during":
        ballast = mmap.mmap(-1, 60_000_000)
        for page in range(0, len(ballast), 4096):
            ballast[page] = 1
    if step == "after":
        ballast.close()
    print(step, flush=True)
    sys.stdin.readline()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux reports it in /proc")
def test_the_system_reports_a_process_on_the_cpu() -> None:
    """What it holds, and the most it held; nothing for one that has ended."""
    found = {}
    command = [sys.executable, "-c", HOLDER]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as holder:
        assert holder.stdin and holder.stdout
        for step in holder.stdout:
            held = process_memory(holder.pid)
            assert held
            found[step.strip()] = held
            holder.stdin.write("go on\n")
            holder.stdin.flush()
    before, during, after = (found[step] for step in ("before", "during", "after"))
    assert during.now - before.now > 50_000_000
    assert after.now < during.now - 50_000_000
    assert during.peak >= during.now
    assert after.peak > after.now + 50_000_000
    assert process_memory(holder.pid) is None


def test_torch_s_counters_report_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
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
    """And is not started for that."""
    engine = ChildEngine(EngineOptions(models=house.models))
    assert engine.memory() is None
    assert engine.process_id is None


@pytest.mark.heavy
@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="other libraries manage memory")
def test_steps_take_no_memory_from_the_system(engine: ChildEngine) -> None:
    """The next step reuses what one step freed: new pages are zeroed, a fifth of a step."""
    few, many = ([request(seed=seed, steps=steps) for seed in range(8)] for steps in (2, 12))
    make(engine, *few)
    before = page_faults(engine)
    make(engine, *few)
    with_few = page_faults(engine) - before
    make(engine, *many)
    with_many = page_faults(engine) - before - with_few
    assert (with_many - with_few) / 10 < 1000


def page_faults(engine: ChildEngine) -> int:
    """Of the engine's process: the tenth field, counted after the name in brackets."""
    fields = Path(f"/proc/{engine.process_id}/stat").read_text().rpartition(")")[2].split()
    return int(fields[7])


def test_a_larger_batch_takes_more_memory(engine: ChildEngine) -> None:
    """It is measured for each batch, and its pictures say it."""
    small = make(engine, request(width=64, height=64, steps=1))
    four = (request(width=256, height=256, steps=1, seed=seed) for seed in range(1, 5))
    large = make(engine, *four)
    peaks = [image.peak_bytes or 0 for image in (*small, *large)]
    assert 50 << 20 < peaks[0] < peaks[1] < 64 << 30
    assert len(set(peaks[1:])) == 1


def cgroup(folder: Path, limit: str) -> Path:
    """A container's files: 1 GiB used, a quarter of it pages of files."""
    (folder / "memory.max").write_text(limit + "\n")
    (folder / "memory.current").write_text(f"{2**30}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {2**28}\nactive_file 7\n")
    return folder


@pytest.mark.parametrize(
    ("limit", "left"), [(str(3 * 2**30), 2 * 2**30 + 2**28), ("max", 2**63), ("junk", 2**63)]
)
def test_a_containers_limit_counts(tmp_path: Path, limit: str, left: int) -> None:
    """What is used is taken off it, pages of files are not."""
    assert usage._left_to_container(cgroup(tmp_path, limit)) == left


def test_without_a_container_the_computers_memory_counts(tmp_path: Path) -> None:
    """There is some."""
    assert usage._left_to_container(tmp_path) == 2**63
    assert 0 < usage.free_bytes(torch.device("cpu")) < 2**60


def test_what_a_process_can_have_counts_what_it_holds() -> None:
    """More than is free, and no more than the computer has."""
    free, total = psutil.virtual_memory().available, psutil.virtual_memory().total
    own = psutil.Process().memory_info().rss
    assert own < main_memory() <= total
    assert main_memory() == pytest.approx(min(free, usage._left_to_container()) + own, rel=0.2)
