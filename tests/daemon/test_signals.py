"""A signal at any moment ends picowatch within two seconds, with its exit code and no loss."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from picowatch.commands.run import run
from picowatch.outbox.lock import is_held
from picowatch.signals import ENDING
from tests.catalog.files import sd15_shapes, write_model
from tests.commands.picowatch import DIGESTS, PROJECT, picowatch_here, started
from tests.daemon.processes import SETTINGS, ends, engines_of, stopped
from tests.digest_engine import Batch, DigestEngine
from tests.fault_points import preceded_by, wrap
from tests.house import PATIENCE, House, wait_for


def holds_open(process: int, file: Path) -> bool:
    its = psutil.Process(process)
    return str(file) in {entry.path for entry in (*its.open_files(), *its.memory_maps())}


def beginning_with(
    folder: Path, first: str, *arguments: str, **how: str
) -> AbstractContextManager["subprocess.Popen[str]"]:
    """Start a command whose interpreter runs another program first."""
    for name in ("inbox", "own"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "own/sitecustomize.py").write_text(first)
    return started(folder, *arguments, PYTHONPATH=f"{PROJECT}:{folder / 'own'}", **how)


def test_a_signal_while_a_checkpoint_is_hashed(house: House) -> None:
    """The next start accepts the save. Until then a health check finds nothing wrong."""
    shapes = {**sd15_shapes(), "more": (20_000_000_000,)}  # minutes
    checkpoint = write_model(house.models / "checkpoints/large.safetensors", shapes)
    with started(house.folder, "run") as process:
        wait_for((house.outbox / ".picowatch/status.json").exists, "the start")
        house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
        wait_for(lambda: holds_open(process.pid, checkpoint), "the hashing")
        health = picowatch_here(house.folder, "status", "--check")
        assert health.stdout == "picowatch is running and looks at its inbox\n"
        assert health.returncode == 0
        wait_for(lambda: holds_open(process.pid, checkpoint), "the middle of hashing")
        ends(process)
    assert not any(house.status()["images"].values())


# Stays in the middle of something: it takes two minutes, whatever happens.
HANGING = """
import os, threading
from pathlib import Path
from tests.fault_points import wrap

def hang(original):
    def call(*arguments, **named):
        Path("reached").touch()
        threading.Event().wait(120)
    return call

wrap(os.environ["STEP"], hang)
"""


@pytest.mark.parametrize(
    "step",
    [
        "picowatch.ledger.rebuild:_enter",
        "picowatch.inbox.inbox:scan",
        "picowatch.outbox.outbox:Outbox.publish",
        "picowatch.outbox.outbox:contact_sheet",
    ],
)
def test_a_signal_in_the_middle_of_what_cannot_be_interrupted(house: House, step: str) -> None:
    """A long list, a large sheet or a hanging share: the next start continues, as after a crash."""
    house.save("b.txt", "a star --seed 9\n")
    assert house.once()
    house.ledger.unlink()
    house.save("a.yaml", "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 7\ngrid: true\n")
    how = {"program": DIGESTS, "STEP": step, **SETTINGS}
    with beginning_with(house.folder, HANGING, "run", **how) as process:
        wait_for((house.folder / "reached").exists, "the step")
        ends(process)
    assert house.once()
    assert sorted(house.seeds("b")) == [9]
    assert sorted(line["seed"] for line in house.listed()) == [1, 2, 3, 4, 5, 6, 7, 9]
    assert len(house.pictures("a")) == 8, "with a sheet"


def test_the_time_that_picowatch_itself_was_stopped_is_not_the_engines(house: House) -> None:
    """`docker pause` and a suspended laptop stop both for longer than an engine may be silent."""
    house.save("a.yaml", "prompt: a corgi\nseed: 1..4\nsteps: 150\nsize: 64x64\nexact: true\n")
    limits = {"PICOWATCH_STALL_SECONDS": "3", "PICOWATCH_MAX_ATTEMPTS": "1"}
    with started(house.folder, "run", program=DIGESTS, **SETTINGS, **limits) as process:
        wait_for(lambda: house.status().get("step"), "the first step")
        engine = psutil.Process(engines_of(process.pid)[0])
        engine.suspend()
        with stopped(process):
            frozen_at = time.monotonic()
            wait_for(lambda: time.monotonic() - frozen_at > 4, "longer than the engine may rest")
        engine.resume()
        wait_for(lambda: len(house.listed()) == 4, "the last image")
        ends(process)
    assert house.seeds("a") == [1, 2, 3, 4], house.log()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_any_signal_that_ends_programs_ends_it_well(house: House, number: signal.Signals) -> None:
    """A closed terminal and a stray signal work like SIGTERM: nothing is left over."""
    with started(house.folder, "run", program=DIGESTS) as process:
        wait_for((house.outbox / ".picowatch/status.json").exists, "the start")
        assert "picowatch ended" in ends(process, number)


# Python runs these first. What stands before all importers stays in an import for a minute; the
# last thing that an interpreter does is to forget what its modules hold.
SLOW_IMPORT = """
import sys, threading
from pathlib import Path

class Slow:
    def find_spec(name, path, target=None):
        if name == "picowatch.cli":
            Path("imports").touch()
            for _ in range(600):  # Python runs no handler in a wait that began after its signal
                threading.Event().wait(0.1)

sys.meta_path.insert(0, Slow)
"""
SIGNAL_AT_THE_END = """
import os, signal

class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)

last = Last()
"""


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [(["run"], signal.SIGTERM, 0), (["make", "a.txt"], signal.SIGINT, 130)],
)
def test_a_signal_while_picowatch_is_imported(
    tmp_path: Path, arguments: list[str], number: int, code: int
) -> None:
    """It ends with its usual exit code and no traceback."""
    with beginning_with(tmp_path, SLOW_IMPORT, *arguments) as process:
        wait_for((tmp_path / "imports").exists, "the import")
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, "")


@pytest.mark.parametrize(("arguments", "code"), [(["run", "--once"], 0), (["run", "--frm"], 2)])
def test_a_signal_while_the_interpreter_ends_changes_nothing(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    """A service manager may send a second one after "picowatch ended"."""
    with beginning_with(tmp_path, SIGNAL_AT_THE_END, *arguments) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore this process's handlers of signals, which would end it after two seconds."""
    monkeypatch.setattr("picowatch.signals.END_SECONDS", 60.0)
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


# In a process of its own: what goes wrong with a signal here ends the process that tries it.
SIGNALLED = """
import os, signal, threading
from picowatch.signals import ended_by_signals

by = []

class Event(threading.Event):
    def set(self):
        by.append(threading.current_thread().name)
        super().set()

stop, wake = Event(), Event()
with ended_by_signals(stop, wake) as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    assert wake.wait(60)
print(by, [signal.Signals(number).name for number in signals], stop.is_set())
"""


def test_no_signal_hangs() -> None:
    """The main thread may hold an event's lock then, so another thread sets the events."""
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED], capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.stdout == "['signals', 'signals'] ['SIGTERM'] True\n", ended


WHILE_IT_STARTS_OVER = (
    "picowatch.daemon.pool:WorkerPool.stop",
    "picowatch.daemon.status:Reporting.report_end",
    "picowatch.ledger.ledger:Ledger.close",
    "picowatch.daemon.supervise:build_daemon",
    "picowatch.daemon.build:open_ledger",
    "picowatch.observers.observers:Observers.use",
    "picowatch.daemon.build:Daemon",
    "picowatch.daemon.round:Daemon.run",
    "picowatch.daemon.round:Daemon._recover",
)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("step", WHILE_IT_STARTS_OVER)
def test_a_signal_while_picowatch_starts_over_ends_it_well(
    house: House, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """`rm -r outbox/.picowatch; systemctl stop picowatch` may send one at any moment."""
    calls, is_lost = count(1), threading.Event()

    def end_once(*_: Any, **__: Any) -> None:
        if is_lost.is_set() and next(calls) == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def lose(batch: Batch) -> None:
        (house.outbox / ".picowatch/lock").unlink()
        is_lost.set()

    wrap(step, preceded_by(end_once), monkeypatch.setattr)
    house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
    engine = DigestEngine(before_batch=lose)
    assert run(house.settings(), False, lambda options: engine, quiet=True) == 0
    assert "picowatch starts over" in house.log()
    assert not is_held(house.outbox)
