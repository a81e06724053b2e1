"""`picowatch run` on the digest engine in a process of its own, with disks of its own."""

import errno
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from tests.commands.picowatch import DIGESTS, started
from tests.house import PATIENCE, House, wait_for
from tests.machine import within

SETTINGS = {"PICOWATCH_BATCH_SIZE": "3"}


@contextmanager
def process(house: House, *before: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """Start a daemon that writes to the file `console`; `before` is put in front of its command."""
    how: dict[str, Any] = {"program": DIGESTS, "before": before, **SETTINGS, **environment}
    with (
        (house.folder / "console").open("a") as console,
        started(house.folder, "run", stdout=console, **how) as picowatch,
    ):
        yield picowatch


def ends(picowatch: "subprocess.Popen[str]", number: int = signal.SIGTERM) -> str:
    """Send a signal, and return the output of the end, which must come well in two seconds."""
    picowatch.send_signal(number)
    started = time.monotonic()
    output, _ = picowatch.communicate(timeout=PATIENCE)
    assert time.monotonic() - started < within(2)
    assert picowatch.returncode == 0, output
    assert "Traceback" not in (output or "")
    return output or ""


@contextmanager
def stopped(process: "subprocess.Popen[str]") -> Iterator[None]:
    """Stop a process within the block, so that it then sees everything that happened at once."""
    process.send_signal(signal.SIGSTOP)
    wait_for(lambda: is_stopped(process.pid), "its stop")
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Whether all threads are stopped; in proc(5) the state follows the name in brackets."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except OSError:  # one has just ended
        return False
    return all(thread.rpartition(")")[2].split()[0] == "T" for thread in threads)


def without_privileges(*others: str) -> list[str]:
    """Return a prefix that drops root's capabilities to read and write everywhere, and `others`."""
    if os.geteuid():
        return []
    lost = ",".join(f"-{privilege}" for privilege in ("dac_override", "dac_read_search", *others))
    command = ["setpriv", "--bounding-set", lost, "--inh-caps", lost]
    if not shutil.which("setpriv") or subprocess.run([*command, "true"]).returncode:
        pytest.skip("root cannot give up its privileges here (setpriv)")
    return command


@contextmanager
def disk(folder: Path) -> Iterator[None]:
    """Mount a disk of its own for a folder, if the machine allows it."""
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


def engines_of(daemon: int) -> list[int]:
    """Return a daemon's engine processes, without multiprocessing's own."""
    found = []
    for child in psutil.Process(daemon).children():
        with suppress(psutil.Error):
            if "--multiprocessing-fork" in child.cmdline():
                found.append(child.pid)
    return found
