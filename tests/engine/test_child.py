"""The start and end of the engine's process; tests/faults tests failures inside it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from operator import le
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from picowatch.engine.process import child, child_main
from picowatch.engine.process.child import ChildEngine, started_engine
from picowatch.engine.protocol import EngineOptions, MakeRenderer, RenderedImage
from picowatch.errors import EngineStopped, RenderFailed
from tests.digest_renderer import DigestRenderer
from tests.engine.requests import make, request
from tests.faults.faulty_engine import FaultyRenderer
from tests.faults.test_engine_faults import is_running
from tests.house import wait_for
from tests.machine import within

ROOT = Path(__file__).parents[2]
needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="read in /proc")


class RunningRenderer(DigestRenderer):
    """A renderer that runs the prompt as Python does."""

    def render(self, *given: Any, **_: Any) -> list[RenderedImage]:
        exec(given[0][0].prompt)
        raise AssertionError


def engine_of(make_renderer: MakeRenderer, **options: Any) -> ChildEngine:
    given = EngineOptions(models=Path("nowhere"), device="cpu", **options)
    return ChildEngine(given, make_renderer)


@pytest.fixture(scope="module")
def digests() -> Iterator[ChildEngine]:
    """Return an engine process without torch, for tests that do not depend on its pictures."""
    with closing(engine_of(DigestRenderer)) as engine:
        yield engine


# -- its life


def test_it_is_started_for_the_first_picture_and_again_after_it_died(digests: ChildEngine) -> None:
    """An idle daemon needs little memory; no image fails because a process died idle."""
    assert digests.process_id is None
    make(digests, request(steps=1))
    process = digests.process_id
    assert process is not None
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: not is_running(process))
    assert make(digests, request(steps=1))
    assert digests.process_id not in (None, process)


def test_the_first_engine_of_make_starts_at_once() -> None:
    """Others wait for work, as all do in a daemon."""
    for ordinal in (0, 1):
        options = EngineOptions(models=Path("nowhere"), device="cpu", ordinal=ordinal)
        with closing(started_engine(options)) as engine:
            assert (engine.process_id is None) == bool(ordinal)


def test_an_interrupted_batch_ends_at_its_next_step(digests: ChildEngine) -> None:
    """The process stays, and an interruption that comes too late ends no other batch."""
    make(digests, request(steps=1))
    process, steps = digests.process_id, list[int]()
    noted = lambda now: steps.append(now.done)  # noqa: E731
    with pytest.raises(EngineStopped):
        digests.render([request(steps=150)], noted, look=lambda: len(steps) > 1)
    assert len(steps) < 100
    digests.interrupt()
    assert make(digests, request(steps=1))
    assert digests.process_id == process


@needs_proc
def test_what_it_logs_reaches_the_daemons_log_and_what_it_writes_is_kept_in_no_megabytes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Progress bars may write without line ends for months. Only the last batch's words stay."""
    flood = "sys.stderr.write('no line ends ' * 100_000)"
    words = "import logging; logging.getLogger('picowatch.engine').debug('rank %d', 4)"
    with (
        caplog.at_level("DEBUG", "picowatch"),
        closing(engine_of(RunningRenderer, debug=True)) as engine,
    ):
        for code in (flood, words):
            with pytest.raises(RenderFailed):
                make(engine, request(code))
        assert Path(f"/proc/{engine.process_id}/fd/2").stat().st_size == 0
    assert caplog.messages == ["rank 4"]


@needs_proc
def test_the_process_begins_with_its_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Malloc reads its settings before any of our code; the daemon's environment is unchanged.

    `python -c`, which multiprocessing calls, would import modules from the user's folder. A
    torch.py beside the recipes must not run instead of torch, also with `python -m`.
    """
    for name in ("multiprocessing", "random", "socket", "signal", "users_torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "4096")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # as with `python -m`
    before = dict(os.environ)
    with closing(engine_of(RunningRenderer)) as engine:
        with pytest.raises(RenderFailed, match="No module named 'users_torch'"):
            make(engine, request("import users_torch"))
        lines = Path(f"/proc/{engine.process_id}/environ").read_text("utf-8").split("\0")
    assert dict(os.environ) == before
    found = dict(line.split("=", 1) for line in lines if line)
    assert found["GOMP_SPINCOUNT"] == "1000"
    assert found["MALLOC_MMAP_THRESHOLD_"] == "4096"
    assert found["HF_HUB_OFFLINE"] == found["PYTORCH_ENABLE_MPS_FALLBACK"] == "1"


def test_multiprocessings_own_process_imports_nothing_from_the_users_folder(tmp_path: Path) -> None:
    """It begins with the first engine, and is `python -c`, too."""
    (tmp_path / "multiprocessing.py").write_text("open('ran', 'w')")
    script = tmp_path / "elsewhere/start.py"
    script.parent.mkdir()
    script.write_text(f"from {child_main.__name__} import surroundings\nwith surroundings(): pass")
    ours = {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=os.environ | ours, check=True, stderr=PIPE
    )
    assert not (tmp_path / "ran").exists()


# -- its end by others


@pytest.mark.parametrize("starts", [False, True])
def test_ctrl_c_and_sigterm_do_not_end_the_engine(starts: bool) -> None:
    """They reach every process of a terminal or service, at once, too; the daemon decides."""
    with closing(engine_of(DigestRenderer)) as engine:
        if not starts:
            make(engine, request(steps=1))
        process = engine.process_id or engine.start().id
        os.kill(process, signal.SIGINT)
        os.kill(process, signal.SIGTERM)
        assert make(engine, request(steps=1))
        assert engine.process_id == process
        assert os.getsid(process) == os.getpgid(process) == process


DAEMON = """
import sys
import threading
from pathlib import Path
from picowatch.engine.process.child import ChildEngine
from picowatch.engine.protocol import EngineOptions
from tests.engine.requests import request
from tests.faults.faulty_engine import FaultyRenderer
engine = ChildEngine(EngineOptions(models=Path(sys.argv[1]), device="cpu"), FaultyRenderer)
hangs = request("hangs with the lock", steps=2)
noted = lambda _: print(engine.process_id, flush=True)
threading.Thread(target=engine.render, args=([hangs], noted), daemon=True).start()
sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_the_engine_ends_with_the_daemon(killed: bool, tmp_path: Path) -> None:
    """The daemon may be killed or end without closing it, while native code holds Python's lock."""
    command = [sys.executable, "-c", DAEMON, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=PIPE, stdout=PIPE) as daemon:
        assert daemon.stdin is not None and daemon.stdout is not None
        process = int(daemon.stdout.readline())
        if killed:
            daemon.kill()
        daemon.stdin.close()
        try:
            wait_for(lambda: not is_running(process))
        except AssertionError:
            os.kill(process, signal.SIGKILL)
            raise


# -- closing it


@pytest.mark.parametrize("begins", [False, True])
def test_ending_a_batch_takes_less_than_two_seconds(tmp_path: Path, begins: bool) -> None:
    """This holds before the process has started, and while native code holds Python's lock."""
    engine, ending = ChildEngine(EngineOptions(models=tmp_path), FaultyRenderer), threading.Event()
    looked = [time.monotonic()]
    if not begins:
        ending.set()

    def look() -> bool:
        now = time.monotonic()
        assert now - looked.pop() < within(0.5)
        looked.append(now)
        if ending.is_set():
            raise EngineStopped("picowatch ends.")
        return False

    hangs = request("hangs with the lock", steps=2)
    with pytest.raises(EngineStopped):
        engine.render([hangs], lambda _: ending.set(), look=look)
    assert time.monotonic() - looked[0] < within(1)
    assert engine.process_id is None


@pytest.mark.parametrize(("takes", "end_seconds"), [(False, 1.5), (True, 1.5), (False, 0.0)])
def test_a_process_that_stops_within_a_message_holds_up_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, takes: bool, end_seconds: float
) -> None:
    """It may stop within a large batch or a picture, and its end may hang, as in a driver."""
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setattr(child, "_END_SECONDS", end_seconds)
    monkeypatch.setattr(child, "CHECK_SECONDS", 0.1)
    threads, looks = threading.active_count(), count(1)
    with closing(ChildEngine(EngineOptions(models=tmp_path), FaultyRenderer)) as engine:
        make(engine, request(steps=1))
        process, began = engine.process_id, time.monotonic()
        assert process is not None
        if not takes:
            os.kill(process, signal.SIGSTOP)

        def look() -> bool:
            if next(looks) == 9:
                raise EngineStopped("picowatch ends.")
            return False

        words = ("sends half",) if takes else (f"{number} " * 40_000 for number in range(16))
        batch = [request(prompt, steps=2) for prompt in words]
        with pytest.raises(EngineStopped):
            engine.render(batch, lambda _: None, look=look)
        wait_for(lambda: not is_running(process) and threading.active_count() <= threads)
        assert time.monotonic() - began < within(5)
        assert raised == []


@needs_proc
def test_a_closed_engine_leaves_no_file_thread_or_process(
    digests: ChildEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that closes it every night must not grow."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def held() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    make(digests, request(steps=1))  # multiprocessing's own process comes with it, and stays
    digests.close()
    before = held()
    for begins in (True, False):
        process = digests.start().id
        if begins:
            make(digests, request())
        digests.close()
        wait_for(lambda: all(map(le, held(), before)))
        assert not Path(f"/proc/{process}").exists()
        assert not list(tmp_path.iterdir())
