"""Every known way in which an engine fails: its image gets a message, the next one is rendered.

Each fault of tests/faults/faulty_engine.py happens in a real process behind the real daemon.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from PIL import Image

from picowatch.engine.process.child import ChildEngine
from tests.digest_engine import digest_pixels
from tests.faults.faulty_engine import PROCESSES_FILE, START_FILE, FaultyRenderer
from tests.house import House, wait_for

MEMORY = "Try a smaller size or batch_size: 1"
LIBRARIES = "Most often a driver or a library of torch is at fault: update or install them again."
DRIVER = "If it happens again, restart the computer, and update the GPU's driver and torch."

# What happened, and what to do about it.
SAID = {
    "is killed": ("was killed (SIGKILL); most often the system ran out of memory.", MEMORY),
    "segfaults": ("The engine crashed (SIGSEGV).", LIBRARIES),
    "bus error": (
        "(SIGBUS); most often a file was cut short",
        "wait until it is complete, then save",
    ),
    "traceback and exit": ("(exit status 1). It said: OSError: the disk is on fire.", LIBRARIES),
    "floods and exits": ("(exit status 5). It said: [31m 12%", LIBRARIES),
    "CUDA error": ("CUDA error: an illegal memory access was encountered.", DRIVER),
    "raises": ("The engine failed: KeyError: 3.", "`picowatch run --debug` logs where."),
    "no memory": ("The computer does not have enough memory for this image.", MEMORY),
    "sends garbage": ("Unexpected error: UnpicklingError",),
    "falls silent": ("was ended. It said: a library's last words.", LIBRARIES),
    "leaves a process": ("was killed (SIGKILL)", MEMORY),
    "cannot be sent": ("The engine ended by itself (exit status 1).", LIBRARIES),
    # Native code can do that: no thread of the engine runs any more.
    "hangs with the lock": ("made no step for 5 s and was ended as hung",),
    "sends half": ("made no step for 5 s and was ended as hung",),
}
# One of each kind that the daemon tells apart; CI runs the others, too.
USUAL = ("is killed", "floods and exits", "CUDA error", "cannot be sent", "hangs with the lock")
RARE = tuple(fault for fault in SAID if fault not in USUAL)
STALL_SECONDS = 5  # between two steps; a start may take longer


def recipe(prompt: str) -> str:
    return f"prompt: {prompt}\nseed: 1\nsize: 128x192\nsteps: 4\n"


# The evening starts the engine again and again, all of it in the first test.
pytestmark = pytest.mark.timeout(900)


class FaultyHouse(House):
    """A house whose engine is tests.faults.faulty_engine, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.make_engine = lambda options: ChildEngine(options, FaultyRenderer)
        self.faults: tuple[str, ...] = ()  # that happened here
        self.at_start = self.models / START_FILE  # how it goes wrong before it sees an image

    def processes(self) -> list[int]:
        file = self.models / PROCESSES_FILE
        return [int(line) for line in file.read_text().split()] if file.exists() else []

    def holds_what_was_asked(self, picture: str) -> bool:
        """Whether a picture's pixels are those of the request in its metadata."""
        with Image.open(self.outbox / picture) as image:
            pixels = image.convert("RGB").tobytes()
        return pixels == digest_pixels(self.chunk(picture).request)


def is_running(number: int) -> bool:
    """Whether any thread of a process is left: only then it has ended for its parent, too."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        return bool(process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    return False


@contextmanager
def faulty_house(folder: Path) -> Iterator[FaultyHouse]:
    """Make a house of whose engines no process may be left over."""
    house = FaultyHouse(folder)
    try:
        yield house
        wait_for(lambda: not any(map(is_running, house.processes())), "the processes' end")
    finally:
        for number in filter(is_running, house.processes()):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


@pytest.fixture(
    scope="module",
    params=[USUAL, pytest.param(RARE, marks=pytest.mark.heavy)],
    ids=["usual", "rare"],
)
def evening(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyHouse]:
    """Run many faults in one queue, each followed by a good recipe, with one attempt each."""
    with faulty_house(tmp_path_factory.mktemp("evening")) as house:
        house.faults = request.param
        for fault in house.faults:
            house.save(f"{fault} 1.yaml", recipe(fault))
            house.save(f"{fault} 2.yaml", recipe("good"))
        assert not house.once(max_attempts=1, batch_size=1, stall_seconds=STALL_SECONDS)
        yield house


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[FaultyHouse]:
    with faulty_house(tmp_path) as house:
        yield house


def test_a_fault_is_told_in_a_sentence_that_helps(evening: FaultyHouse) -> None:
    """Says what happened and what to do, without control characters; the next recipe runs."""
    for fault in evening.faults:
        error = evening.error(f"{fault} 1.yaml") or ""
        assert not evening.pictures(f"{fault} 1"), fault
        assert all(words in error for words in SAID[fault]), fault
        assert "Traceback" not in error
        assert all(char.isprintable() or char == "\n" for char in error)
        assert len(error) < 1000
        (after,) = evening.pictures(f"{fault} 2")
        assert evening.holds_what_was_asked(after)


def test_what_was_set_aside_is_not_tried_at_the_next_start(evening: FaultyHouse) -> None:
    """The engine is not even started; the reasons stay."""
    started, pictures = evening.processes(), evening.pictures()
    assert evening.once(max_attempts=1, batch_size=1)
    assert (evening.processes(), evening.pictures()) == (started, pictures)
    assert all(evening.error(f"{fault} 1.yaml") for fault in evening.faults)


ONCE = ["is killed", "CUDA error", "cannot be sent", "leaves a process", "hangs"]


def test_what_goes_wrong_once_is_tried_again_and_made(faulty: FaultyHouse) -> None:
    """A new process renders it, and the user gets a picture instead of an error."""
    threads = set(threading.enumerate())
    for fault in ONCE:
        faulty.save(f"{fault}.yaml", recipe(f"{fault} once"))
    assert faulty.once(batch_size=1, stall_seconds=STALL_SECONDS)
    for fault in ONCE:
        (picture,) = faulty.pictures(fault)
        assert faulty.holds_what_was_asked(picture)
    assert faulty.log().count("It will be tried again.") == len(ONCE)
    left = set(threading.enumerate()) - threads
    assert not [thread.name for thread in left if thread.name.startswith("engine")]


def test_loading_may_take_longer_than_a_step(faulty: FaultyHouse) -> None:
    """Good images failed one after another where it did."""
    faulty.at_start.write_text("loads slowly")
    faulty.save("a.txt", "one\ntwo\n")
    assert faulty.once(batch_size=1, stall_seconds=1, max_attempts=1)
    assert faulty.prompts() == ["one", "two"]


def test_an_engine_that_hangs_before_its_first_step_fails_no_image(
    faulty: FaultyHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang while its libraries are imported, for example. Twice in a row is trouble."""
    monkeypatch.setattr("picowatch.daemon.worker.LOADING_STALLS", 2)
    faulty.at_start.write_text("hangs")
    faulty.save("a.yaml", recipe("good"))
    assert not faulty.once(stall_seconds=1, max_attempts=1, log_format="json")
    assert faulty.error("a.yaml") is None
    assert faulty.log().count("a.yaml: The engine made no step for 2 s and was ended as hung.") == 1
    assert '"event": "engine", "recipe": "a.yaml"' in faulty.log()
    assert "picowatch exits: The engine made no step for 2 s" in faulty.log()
    faulty.at_start.unlink()
    assert faulty.once()
    assert faulty.prompts() == ["good"]


CANNOT_START = {
    "import error": "The engine's libraries cannot be imported: libcudart.so.12: cannot open",
    "traceback and exit": "It said: OSError: the disk is on fire.",
}


@pytest.mark.parametrize("fault", CANNOT_START)
def test_a_broken_installation_fails_no_image(faulty: FaultyHouse, fault: str) -> None:
    """One line says so; images wait until the engine starts again."""
    faulty.at_start.write_text(fault)
    for name in ("a", "b", "c"):
        faulty.save(f"{name}.yaml", recipe(f"good {name}"))
    assert not faulty.once()
    assert [faulty.error(f"{name}.yaml") for name in ("a", "b", "c")] == [None, None, None]
    assert faulty.log().count(CANNOT_START[fault]) == 1
    faulty.at_start.unlink()
    assert faulty.once()
    assert faulty.prompts() == ["good a", "good b", "good c"]
