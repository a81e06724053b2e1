"""SIGTERM while a large model is taken in: within two seconds, exit code 0, nothing lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from picowatch.commands.run import run
from picowatch.signals import ENDING
from tests.catalog.files import sd15_shapes, write_model
from tests.commands.picowatch import PROJECT, picowatch, start
from tests.digest_engine import DigestEngine
from tests.house import House, wait_for, within
from tests.storm.picowatch import engines_of


def holds_open(process: int, file: Path) -> bool:
    """Whether a process has the file open, or mapped into its memory."""
    try:
        links = [link.resolve() for link in Path(f"/proc/{process}/fd").iterdir()]
        return file in links or str(file) in Path(f"/proc/{process}/maps").read_text()
    except OSError:
        return False


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Full size, two gigabytes of zeros that take no room on the disk."""
    (tmp_path / "inbox").mkdir()
    return write_model(tmp_path / "models/checkpoints/large.safetensors", sd15_shapes())


def endless_checkpoint(folder: Path) -> Path:
    """One that takes minutes to hash."""
    (folder / "inbox").mkdir()
    shapes = {**sd15_shapes(), "more": (20_000_000_000,)}
    return write_model(folder / "models/checkpoints/large.safetensors", shapes)


def ends_well(process: "subprocess.Popen[str]") -> None:
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - started < within(2)
    assert process.returncode == 0, output
    assert "Traceback" not in output


def images(folder: Path) -> dict[str, int]:
    status = json.loads((folder / "outbox/.picowatch/status.json").read_text())
    return {state: count for state, count in status["images"].items() if count}


def test_a_signal_while_a_checkpoint_is_hashed(tmp_path: Path) -> None:
    """The save is answered by the next start."""
    checkpoint = endless_checkpoint(tmp_path)
    process = start(tmp_path, "run")
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nseed: 1\n")
    wait_for(lambda: holds_open(process.pid, checkpoint), "the hashing")
    ends_well(process)
    assert images(tmp_path) == {}


def test_a_daemon_that_hashes_is_healthy(tmp_path: Path) -> None:
    """It notices new files meanwhile: a health check must not restart it in the middle."""
    checkpoint = endless_checkpoint(tmp_path)
    process = start(tmp_path, "run", "--debug")
    try:
        wait_for((tmp_path / "outbox/.picowatch/status.json").exists, "the start")
        (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nseed: 1\n")
        wait_for(lambda: holds_open(process.pid, checkpoint), "the hashing")
        health = picowatch(tmp_path, "status", "--check")
        assert (health.returncode, health.stdout) == (
            0,
            "picowatch is running and looks at its inbox\n",
        )
        assert holds_open(process.pid, checkpoint), "it was not in the middle of hashing"
        ends_well(process)
    finally:
        process.kill()
        process.communicate()


def test_a_signal_while_a_checkpoint_is_loaded(tmp_path: Path, checkpoint: Path) -> None:
    """The image goes back into the queue, and its engine is gone."""
    process = start(tmp_path, "run")
    (tmp_path / "inbox/a.yaml").write_text("prompt: a corgi\nseed: 1\nsteps: 1\nsize: 64x64\n")
    wait_for(lambda: engines_of(process.pid), "the engine")
    engine = engines_of(process.pid)[0]
    wait_for(lambda: holds_open(engine, checkpoint), "the loading")
    ends_well(process)
    assert images(tmp_path) == {"queued": 1}
    assert not Path(f"/proc/{engine}").exists()


# Runs until the signal in the middle of something: it takes two minutes, whatever happens.
HANGING = """
import sys, threading
from pathlib import Path
from tests.fault_points import wrap
from tests.storm.daemon import main

def hang(original):
    def call(*arguments, **named):
        Path("reached").touch()
        threading.Event().wait(120)
    return call

wrap(sys.argv[1], hang)
sys.exit(main(Path()))
"""


@pytest.mark.parametrize(
    "step",
    [
        "picowatch.ledger.rebuild:_enter",
        "picowatch.inbox.inbox:scan",
        "picowatch.catalog.catalog:Catalog.inventory",
        "picowatch.daemon.accept:read_recipes",
        "picowatch.ledger.ledger:Ledger.claim",
        "picowatch.outbox.outbox:Outbox.publish",
        "picowatch.outbox.listing:Listing.append",
        "picowatch.outbox.outbox:contact_sheet",
    ],
)
def test_a_signal_in_the_middle_of_what_cannot_be_interrupted(house: House, step: str) -> None:
    """A long list, thousands of models, a large sheet, a share that hangs: the next start does it.

    Each picture is there once, as after a crash.
    """
    house.save("b.txt", "a star --seed 9\n")
    assert house.once()
    (house.outbox / ".picowatch/ledger.sqlite").unlink()
    house.save("a.yaml", "prompt: a corgi\nseed: 1\nsize: 64x64\ncount: 7\ngrid: true\n")
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, step],
        cwd=house.folder,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_for((house.folder / "reached").exists, "the step")
        ends_well(process)
    finally:
        process.kill()
        process.communicate()
    assert house.once()
    assert sorted(house.seeds("b")) == [9]
    assert sorted(one["seed"] for one in house.listed()) == [1, 2, 3, 4, 5, 6, 7, 9]
    assert len(house.pictures("a")) == 8, "with a sheet"


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2])
def test_any_signal_that_ends_programs_ends_picowatch_well(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A closed terminal and a stray signal as SIGTERM: nothing is left over."""
    (tmp_path / "inbox").mkdir()
    process = start(tmp_path, "run")
    wait_for((tmp_path / "outbox/.picowatch/status.json").exists, "the start")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "picowatch ended" in output


# Python runs it first. What it puts before all importers stays in an import for a minute.
SLOW_IMPORT = """
import sys, threading
from pathlib import Path

class Slow:
    def find_spec(name, path, target=None):
        if name == "picowatch.cli":
            Path("imports").touch()
            threading.Event().wait(60)

sys.meta_path.insert(0, Slow)
"""


@pytest.mark.parametrize(
    ("arguments", "number", "code"),
    [
        (["run"], signal.SIGTERM, 0),
        (["run", "--once"], signal.SIGTERM, 130),
        (["status"], signal.SIGINT, 130),
        (["make", "a.txt"], signal.SIGINT, 130),
        (["make", "a.txt"], signal.SIGTERM, 130),
    ],
)
def test_a_signal_while_picowatch_is_imported(
    tmp_path: Path, arguments: list[str], number: int, code: int
) -> None:
    """Its end has the exit code that it always has, and no traceback."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow/sitecustomize.py").write_text(SLOW_IMPORT)
    process = start(tmp_path, *arguments, PYTHONPATH=f"{PROJECT}:{tmp_path / 'slow'}")
    wait_for((tmp_path / "imports").exists, "the import")
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, "")


def test_a_signal_before_picowatch_starts_over_ends_it_well(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `rm -r outbox/.picowatch; systemctl stop picowatch` may send it."""
    monkeypatch.setattr("picowatch.signals.END_SECONDS", 60.0)  # it would end this process
    lock = house.outbox / ".picowatch/lock"

    class Engine(DigestEngine):
        def close(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            super().close()

    engine = Engine(before_batch=lambda batch: lock.unlink())
    before = {number: signal.getsignal(number) for number in ENDING}
    house.save("a.yaml", "prompt: a corgi\nseed: 1\n")
    try:
        assert run(house.settings(), False, lambda options: engine, "quiet") == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert "picowatch starts over" in house.log()


# Python runs it first. The last thing that an interpreter does is to forget what its modules hold.
SIGNAL_AT_THE_END = """
import os, signal

class Last:
    def __del__(self, kill=os.kill, process=os.getpid(), number=signal.SIGTERM):
        kill(process, number)

last = Last()
"""


@pytest.mark.parametrize(
    ("arguments", "code"), [(["run", "--once"], 0), (["run", "--frm"], 2), (["make", "no.txt"], 1)]
)
def test_a_signal_while_the_interpreter_ends_changes_nothing(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    """A service manager may send a second one after "picowatch ended"."""
    (tmp_path / "inbox").mkdir()
    (tmp_path / "late").mkdir()
    (tmp_path / "late/sitecustomize.py").write_text(SIGNAL_AT_THE_END)
    process = start(tmp_path, *arguments, PYTHONPATH=f"{PROJECT}:{tmp_path / 'late'}")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
