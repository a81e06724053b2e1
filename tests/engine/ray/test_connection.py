"""The connection to a cluster: no head, and a head that dies and comes back."""

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from picowatch.engine.protocol import EngineLost
from picowatch.engine.ray import cluster_parts
from picowatch.settings import RaySettings
from tests.engine.ray.conftest import ROOT, MakeExecutor, environment
from tests.house import wait_for

# A daemon whose parent is process 1, as in a service or a container: see RAY_RAYLET_PID.
DAEMON = """
import os, sys, signal, threading
from pathlib import Path
if os.fork():
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
from picowatch.engine.protocol import EngineOptions
from picowatch.engine.ray import RayEngines
from picowatch.settings import RaySettings
from tests.engine.ray.renderer import DigestRenderer
from tests.engine.requests import ignore_steps, request
folder = Path(sys.argv[1])
settings = RaySettings(address=sys.argv[2], gpus_per_engine=0)
executor = RayEngines(EngineOptions(models=folder), settings, DigestRenderer)
executor.wanted = 1
number = 0
(folder / "daemon").write_text(str(os.getpid()))
while True:
    threading.Event().wait(0.05)
    (folder / "trouble").write_text(executor.trouble)
    for engine in executor.engines():
        future = engine.render([request()], ignore_steps)
        if future.exception() is None:
            number += 1
            (folder / "rendered").write_text(str(number))
"""


def number(path: Path) -> int:
    """Return the number in a file; 0 before."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def start_head(folder: Path, port: int) -> None:
    """`ray start --head`, as in docs/scale.md."""
    ray = Path(sys.executable).parent / "ray"
    subprocess.run(
        [ray, "start", "--head", f"--port={port}", "--num-cpus=1", "--include-dashboard=false"],
        env=environment() | {"RAY_TMPDIR": str(folder)},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def kill_head(folder: Path) -> None:
    """Kill all processes that `start_head` started."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RAY_TMPDIR") == str(folder):
                process.kill()


@pytest.mark.heavy
def test_a_daemon_outlives_its_head_and_uses_the_next_one(tmp_path: Path) -> None:
    """Ray alone ends a process whose head stays away, or comes back as another one."""
    folder, port = Path(f"/tmp/picowatch-ray-{os.getpid()}-head"), 9379
    try:
        start_head(folder, port)
        subprocess.run(
            [sys.executable, "-c", DAEMON, str(tmp_path), f"127.0.0.1:{port}"],
            env=environment(),
            cwd=ROOT,
            check=True,
        )
        wait_for(lambda: number(tmp_path / "rendered"), "it renders")
        daemon = psutil.Process(number(tmp_path / "daemon"))
        for waits in (False, True):
            kill_head(folder)
            if waits:
                wait_for(
                    lambda: "Cannot connect to the Ray" in (tmp_path / "trouble").read_text(),
                    "it is reported",
                )
            before = number(tmp_path / "rendered")
            start_head(folder, port)
            wait_for(lambda: number(tmp_path / "rendered") > before + 1, "it renders again")  # noqa: B023
        daemon.terminate()
        daemon.wait(2)
    finally:
        kill_head(folder)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_head_that_is_not_there_is_reported_at_once(make_executor: MakeExecutor) -> None:
    """A single run ends then."""
    address = "127.0.0.1:1"
    executor = make_executor(address=address)
    wait_for(lambda: executor.is_final, "it is reported")
    assert executor.trouble.startswith(f"Cannot connect to the Ray cluster ({address}): ")
    assert "`ray start --head` starts" in executor.trouble
    executor.close()
    with pytest.raises(EngineLost, match="Cannot connect"):
        cluster_parts(RaySettings(address=address))
