"""The life and death of the engine's process."""

import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue

import pytest

from picowatch.engine.child import ChildEngine
from picowatch.engine.failures import explain_exit
from picowatch.engine.options import EngineOptions
from picowatch.errors import EngineDied, EngineStopped
from tests.engine.requests import PATIENCE, ignore_steps, make, request
from tests.house import within

ROOT = Path(__file__).parents[3]


def wait_until(condition: Callable[[], bool]) -> None:
    """For what the system gives no event for."""
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.002)


@pytest.fixture
def digests(options: EngineOptions) -> Iterator[ChildEngine]:
    """An engine process without torch, for what does not depend on what the process does."""
    engine = ChildEngine(options, program="tests.storm.engine")
    yield engine
    engine.close()


def seconds_to_close(engine: ChildEngine) -> float:
    start = time.monotonic()
    engine.close()
    return time.monotonic() - start


def maps_torch(process_id: int | None) -> bool:
    """True once the process has begun to load torch's libraries."""
    if process_id is None:
        return False
    return "libtorch" in Path(f"/proc/{process_id}/maps").read_text()


def test_nothing_is_started_before_the_first_picture(options: EngineOptions) -> None:
    """The daemon idles small."""
    engine = ChildEngine(options)
    assert engine.process_id is None
    assert set(engine.describe()) >= {"device", "precision", "torch"}
    engine.close()


def test_a_killed_engine_is_explained_and_started_again(engine: ChildEngine) -> None:
    """As by the kernel's OOM killer, in the middle of a batch."""
    stepped = threading.Event()
    future = engine.render([request(steps=150)], lambda done, total: stepped.set())
    assert stepped.wait(PATIENCE)
    assert engine.process_id is not None
    os.kill(engine.process_id, signal.SIGKILL)
    died = future.exception(PATIENCE)
    assert isinstance(died, EngineDied)
    assert "killed (SIGKILL); most often the system ran out of memory" in died.message
    assert "batch_size: 1" in died.remedy
    assert make(engine, request(steps=1))


def test_closing_an_engine_that_died_long_ago_kills_nobody(
    digests: ChildEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process was waited for: by now, the system may have given its number to another one."""
    threads: SimpleQueue[threading.Thread] = SimpleQueue()
    future = digests.render(
        [request(steps=150)], lambda done, total: threads.put(threading.current_thread())
    )
    thread, killed = threads.get(timeout=PATIENCE), []
    assert digests.process_id is not None
    os.kill(digests.process_id, signal.SIGKILL)
    assert isinstance(future.exception(PATIENCE), EngineDied)
    thread.join(PATIENCE)
    monkeypatch.setattr(os, "killpg", lambda *group: killed.append(group))
    digests.close()
    assert not killed


def test_an_engine_that_died_idle_is_started_again(digests: ChildEngine) -> None:
    """No image pays for it."""
    make(digests, request(steps=1))
    process_id = digests.process_id
    assert process_id is not None
    descriptor = os.pidfd_open(process_id)
    os.kill(process_id, signal.SIGKILL)
    assert select.select([descriptor], [], [], PATIENCE)[0]
    os.close(descriptor)
    assert make(digests, request(steps=1))
    assert digests.process_id not in (None, process_id)


def test_an_interrupted_batch_ends_at_its_next_step(engine: ChildEngine) -> None:
    """The engine and its model stay."""
    make(engine, request(steps=1))
    process_id, steps = engine.process_id, []

    def interrupt_at_the_second(done: int, total: int) -> None:
        steps.append(done)
        if done == 2:
            engine.interrupt()

    future = engine.render([request(steps=150)], interrupt_at_the_second)
    assert isinstance(future.exception(PATIENCE), EngineStopped)
    assert len(steps) < 100
    engine.interrupt()
    assert make(engine, request(steps=1))
    assert engine.process_id == process_id


def test_ctrl_c_and_sigterm_do_not_end_the_engine(engine: ChildEngine) -> None:
    """They reach every process of a terminal or service; the daemon decides."""
    make(engine, request(steps=1))
    process_id = engine.process_id
    assert process_id is not None
    os.kill(process_id, signal.SIGINT)
    os.kill(process_id, signal.SIGTERM)
    assert make(engine, request(steps=1))
    assert engine.process_id == process_id


def test_closing_in_the_steps_takes_less_than_2_seconds(engine: ChildEngine) -> None:
    """The batch goes back to the queue; the next test's batch starts the engine again."""
    stepped = threading.Event()
    future = engine.render([request(steps=150)], lambda done, total: stepped.set())
    assert stepped.wait(PATIENCE)
    assert seconds_to_close(engine) < within(2)
    assert isinstance(future.exception(0), EngineStopped)
    assert engine.process_id is None


def test_closing_from_a_step_is_allowed(digests: ChildEngine) -> None:
    """`on_step` runs in the thread that `close` would wait for."""
    future = digests.render([request(steps=150)], lambda done, total: digests.close())
    assert isinstance(future.exception(PATIENCE), EngineStopped)


def test_closing_at_once_takes_less_than_2_seconds(own_engine: ChildEngine) -> None:
    """Before the process has begun."""
    future = own_engine.render([request()], ignore_steps)
    assert seconds_to_close(own_engine) < within(2)
    assert isinstance(future.exception(0), EngineStopped)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says which libraries are loaded")
def test_closing_while_torch_is_imported_takes_less_than_2_seconds(
    own_engine: ChildEngine,
) -> None:
    """Native code holds Python's lock then; SIGKILL does not need it."""
    future = own_engine.render([request()], ignore_steps)
    wait_until(lambda: maps_torch(own_engine.process_id))
    assert not future.done()
    assert seconds_to_close(own_engine) < within(2)
    assert isinstance(future.exception(0), EngineStopped)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc counts open files")
def test_a_closed_engine_leaves_no_file_thread_or_process(digests: ChildEngine) -> None:
    """A daemon that unloads it every night stays small."""

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    before = held()
    digests.render([request()], ignore_steps)
    wait_until(lambda: digests.process_id is not None)
    process_id = digests.process_id
    digests.close()
    assert held() == before
    assert not Path(f"/proc/{process_id}").exists()


def test_a_second_batch_at_once_is_a_programming_error(digests: ChildEngine) -> None:
    """One batch at a time."""
    digests.render([request()], ignore_steps)
    with pytest.raises(RuntimeError, match="one batch at a time"):
        digests.render([request()], ignore_steps)


DAEMON = """
import sys, time
from picowatch.engine.child import ChildEngine
from picowatch.engine.options import EngineOptions
from tests.engine.requests import request
from pathlib import Path
engine = ChildEngine(EngineOptions(models=Path("nowhere"), device="cpu"))
engine.render([request(steps=150)], lambda done, total: print(engine.process_id, flush=True))
sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waits for a process by pidfd")
def test_the_engine_ends_with_a_killed_daemon() -> None:
    """`kill -9` of the daemon leaves no process with gigabytes of memory."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with daemon:
        assert daemon.stdout is not None
        descriptor = os.pidfd_open(int(daemon.stdout.readline()))
        daemon.kill()
        daemon.communicate()
    ended, _, _ = select.select([descriptor], [], [], PATIENCE)
    os.close(descriptor)
    assert ended


def test_importing_the_daemons_side_imports_no_torch() -> None:
    """Nor any of its companions."""
    code = (
        "import sys, picowatch.engine.process.child, picowatch.work.batch_sizes;"
        "import tests.digest_engine;"
        "import picowatch.catalog;"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_libraries_in_the_users_folder_are_not_imported(
    options: EngineOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A torch.py beside the recipes must not run instead of torch."""
    (tmp_path / "multiprocessing.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    engine = ChildEngine(options)
    try:
        failed = engine.render([request(sampler="none such", steps=1)], ignore_steps)
        assert "no sampler 'none such'" in str(failed.exception(PATIENCE))
    finally:
        engine.close()


TRACE = ["Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "    a()"]


@pytest.mark.parametrize(
    ("status", "stderr", "said"),
    [
        (-9, [], "The engine was killed (SIGKILL); most often the system ran out of memory."),
        (-11, ["noise"], "The engine crashed (SIGSEGV)."),
        (-200, [], "The engine crashed (signal 200)."),
        (1, ["noise", "the end", ""], "(exit status 1). It said: the end"),
        (1, [*TRACE, "KeyError: 'x'", ""], "(exit status 1). It said: KeyError: 'x'"),
        (
            1,
            [*TRACE, "KeyError: 'x'", "while it was sent"],
            "(exit status 1). It said: KeyError: 'x'",
        ),
        (1, [*TRACE, "ValueError: 1", "", *TRACE, "KeyError: 'x'"], "It said: KeyError: 'x'"),
        (1, ["a note", TRACE[0]], "(exit status 1). It said: Traceback"),
        (0, [], "The engine ended by itself (exit status 0)."),
    ],
)
def test_the_end_of_a_process_is_explained(status: int, stderr: list[str], said: str) -> None:
    """Signals by their names, errors by their own line: Python 3.14 adds notes to some."""
    assert said in explain_exit(status, stderr)[0]


def test_a_prepared_engine_starts_before_its_first_batch(digests: ChildEngine) -> None:
    """And the batch goes to that very process."""
    digests.prepare()
    wait_until(lambda: digests.process_id is not None)
    process = digests.process_id
    digests.prepare()
    make(digests, request(steps=1))
    assert digests.process_id == process


def test_what_an_apple_gpu_cannot_compute_is_computed_by_the_cpu(digests: ChildEngine) -> None:
    """torch reads the environment when it is imported."""
    digests.prepare()
    wait_until(lambda: digests.process_id is not None)
    environment = Path(f"/proc/{digests.process_id}/environ").read_text().split("\0")
    assert "PYTORCH_ENABLE_MPS_FALLBACK=1" in environment


def test_a_prepared_engine_that_died_is_started_again(digests: ChildEngine) -> None:
    """No image is at fault."""
    digests.prepare()
    wait_until(lambda: digests.process_id is not None)
    process = digests.process_id
    assert process is not None
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: digests._child is None or not digests._child.alive())
    make(digests, request(steps=1))
    assert digests.process_id != process


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="read in /proc")
@pytest.mark.parametrize(
    ("setting", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, None)],
)
def test_users_say_how_long_threads_spin(
    setting: dict[str, str],
    spins: str | None,
    digests: ChildEngine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libgomp does not read OMP_WAIT_POLICY where it finds a number of rounds."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    make(digests, request())
    environment = Path(f"/proc/{digests.process_id}/environ").read_text("utf-8").split("\0")
    found = dict(line.split("=", 1) for line in environment if line)
    assert found.get("GOMP_SPINCOUNT") == spins
