"""Fixtures for all tests."""

import faulthandler
import gc
import os
import shutil
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from hypothesis import settings

from picowatch.engine.protocol import unseen
from picowatch.ledger.ledger import Ledger
from tests.digest_engine import EngineHere
from tests.house import House
from tests.pace import set_pace

# Time limits of single examples fail on busy machines and find nothing. The examples are the same
# each time, so that a failure is the change's: EXPLORE=1 draws others, and more.
EXPLORES = "EXPLORE" in os.environ
settings.register_profile(
    "picowatch", deadline=None, derandomize=not EXPLORES, max_examples=200 if EXPLORES else 40
)
settings.load_profile("picowatch")

# Without cached bytecode, each process that a test starts would compile picowatch again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell has what it starts in the background ignore Ctrl-C, nohup has it ignore a closed terminal,
# and programs inherit that: those that tests send these signals would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)

# Several tests run at once: an engine with a thread for each core would wait for cores that others
# have, and spin meanwhile. Tests of the threads themselves set `threads`.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Temporary folders are in memory where there is room: each picture is synced several times, and
# how long a disk takes for that is not tested. Tests of real editors stay on the disk.
IN_MEMORY = Path("/dev/shm")
ROOM = 4 << 30
if os.access(IN_MEMORY, os.W_OK) and shutil.disk_usage(IN_MEMORY).free > ROOM:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(IN_MEMORY))


# Workers take whole files: one that takes long and begins last would keep the others waiting.
LONG = (
    "tests/engine/ray/",
    "tests/fuzz/",
    "tests/gpu/",
    "tests/load/",
    "tests/meetings/",
    "tests/power/",
)

# These compute nearly all the time. Most others wait: for a daemon, a browser, a quiet time.
COMPUTING = ("tests/engine/", "tests/training/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with long tests, then mix computing files with waiting ones, to keep cores busy."""
    files = dict.fromkeys(item.nodeid.partition("::")[0] for item in items)
    turn: dict[str, float] = {}
    for computes in (False, True):
        group = [file for file in files if file.startswith(COMPUTING) is computes]
        turn |= {file: index / len(group) for index, file in enumerate(group)}
    items.sort(key=lambda item: turn[item.nodeid.partition("::")[0]])
    items.sort(key=lambda item: not item.nodeid.startswith(LONG))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect no garbage while modules are imported, nor later in what they consist of.

    Nearly all of it stays, and each search of torch and diffusers takes a quarter of a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """End the process a minute after a test's limit, with a traceback of each thread.

    pytest-timeout interrupts a test once. A teardown that then waits for ever would use all of CI's
    time and name nothing. `stderr` is the stream from before pytest captured it: only pytest's own
    faulthandler plugin keeps it, under a private key.
    """
    config, marker = item.config, item.get_closest_marker("timeout")
    given = config.getoption("timeout")  # by `--timeout`; 0: none
    usual = config.getini("timeout") if given is None else given
    limit = marker.args[0] if marker else float(usual)
    if limit and not config.getoption("usepdb"):
        stderr = config.stash[fault_handler_stderr_fd_key]
        faulthandler.dump_traceback_later(limit + 60, file=stderr, exit=True)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


# They measure how long users wait, or simulate the clock, where each round takes time of its own.
AT_USERS_PACE = ("tests/load/", "tests/meetings/")


@pytest.fixture(scope="module", autouse=True)
def pace(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.nodeid.startswith(AT_USERS_PACE):
            set_pace(patch.setattr)
        yield


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


@pytest.fixture
def copies_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process make copies of pictures: none has to start and import for them."""
    made = "picowatch.engine.process.child.ChildEngine"
    monkeypatch.setattr(made, lambda options, make: EngineHere(make(options, unseen)))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("picowatch.inbox.inbox.SCAN_SECONDS", 0.1)
    monkeypatch.setattr("picowatch.inbox.inbox.SCAN_REST", 1)
    monkeypatch.setattr("picowatch.inbox.inbox.FILE_REST", 0.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make reports valid text: the log may have names that are not UTF-8."""
    report = yield
    report.sections = [
        (name, content.encode("utf-8", "backslashreplace").decode())
        for name, content in report.sections
    ]
    return report
