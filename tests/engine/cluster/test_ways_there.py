"""The way to a cluster: Ray Client, a cluster of one's own, none at all, nodes that do not fit."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from picowatch import __version__
from picowatch.engine.cluster.check import check_cluster
from picowatch.engine.cluster.executor import RayEngines
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import EngineLost
from picowatch.engine.torch_check import Check
from picowatch.engine.versions import versions
from picowatch.settings import RaySettings
from tests.engine.cluster.conftest import (
    DIGESTS,
    HEAD,
    SECOND,
    MakeExecutor,
    is_running,
    joined,
    on,
)
from tests.engine.cluster.engine import WAIT_FOR
from tests.engine.cluster.nodes import ROOT, Nodes
from tests.engine.cluster.test_engines import Held
from tests.engine.cluster.test_model_files import far, with_lora, write_lora
from tests.engine.requests import PATIENCE, make
from tests.house import wait_for, within

ODD = "odd"
GRACE_SECONDS = 30.0  # that Ray Client leaves to a process that ended without a word
DAEMON = """
import sys, threading
from pathlib import Path
from picowatch.engine.cluster.executor import RayEngines
from picowatch.engine.options import EngineOptions
from picowatch.settings import RaySettings
from tests.engine.requests import ignore_steps, request
executor = RayEngines(
    EngineOptions(models=Path("nowhere")),
    RaySettings(address=sys.argv[1], gpus_per_engine=0),
    "tests.engine.cluster.engine",
)
executor.want(1)
while not executor.engines():
    threading.Event().wait(0.01)
executor.engines()[0].render([request(sys.argv[2])], ignore_steps).result()
"""

OWN_CLUSTER = """
import sys, threading
from pathlib import Path
from picowatch.engine.cluster.executor import RayEngines
from picowatch.engine.options import EngineOptions
from picowatch.settings import RaySettings
executor = RayEngines(EngineOptions(models=Path(sys.argv[1])), RaySettings())
threading.Event().wait()
"""


def stub(folder: Path, name: str, text: str) -> str:
    """A folder with a module of that name; for PYTHONPATH."""
    path = folder / "stub" / f"{name.replace('.', '/')}.py"
    for package in path.relative_to(folder / "stub").parents[:-1]:
        (folder / "stub" / package).mkdir(parents=True, exist_ok=True)
        (folder / "stub" / package / "__init__.py").touch()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(folder / "stub")


def doctor_checks(nodes: Nodes) -> list[Check]:
    """What doctor says of the nodes."""
    return check_cluster(RaySettings(address=nodes.address))


@pytest.mark.heavy
def test_ray_client_serves_as_well(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path
) -> None:
    """From a machine that is no node: pictures, model files, and what is lost."""
    digest = write_lora(tmp_path / "models", "far", b"far")
    executor = make_executor(address=nodes.client_address, models=far(tmp_path / "models"))
    joined(executor, 2, {HEAD, SECOND})
    [picture] = make(on(executor, SECOND), with_lora("far", digest))
    assert (picture.node, picture.warnings) == (SECOND, (f"loras/far.safetensors {digest}",))
    held = Held(on(executor, SECOND), tmp_path)
    os.kill(held.host, signal.SIGKILL)
    assert isinstance(held.future.exception(PATIENCE), EngineLost)
    joined(executor, 2, {HEAD, SECOND})
    executor.close()
    closed = time.monotonic()
    other = make_executor()
    joined(other, 2)  # all was given back
    assert time.monotonic() - closed < GRACE_SECONDS


@pytest.mark.parametrize("address", ["address", "client_address"])
@pytest.mark.heavy
def test_nothing_works_on_for_a_daemon_that_was_killed(
    nodes: Nodes, tmp_path: Path, address: str
) -> None:
    """Nobody would take its pictures."""
    go = tmp_path / "go"
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, getattr(nodes, address), f"{WAIT_FOR}{go}"],
        env=os.environ | nodes.environment,
        cwd=ROOT,
    )
    pids = go.with_suffix(".pids")
    wait_for(lambda: pids.exists() and pids.read_text(), "the batch begins")
    daemon.kill()
    daemon.wait()
    for process in map(int, pids.read_text().split()):
        wait_for(lambda process=process: not is_running(process), "it ends")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("module", "text", "trouble"),
    [
        (
            "picowatch.engine.versions",
            "def versions(): return {'picowatch': '9.9'}",
            f"{ODD} is not used: picowatch is 9.9 there and {__version__} here",
        ),
        ("picowatch", "raise ImportError", f"{ODD} is not used: picowatch is not installed there"),
    ],
)
@pytest.mark.heavy
def test_a_node_with_other_versions_is_named_and_not_used(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path, module: str, text: str, trouble: str
) -> None:
    """Its pictures would differ, or it would not understand what it is sent."""
    nodes.add(ODD, PYTHONPATH=stub(tmp_path, module, text))
    try:
        executor = make_executor()
        joined(executor, 2, {HEAD, SECOND})
        executor.want(3)
        wait_for(lambda: trouble in executor.trouble(), "the node is named")
        assert len(executor.engines()) == 2
        lines = {one.text: one.ok for one in doctor_checks(nodes)}
        assert lines[f"{HEAD}: 0 GPU, 1 CPU; same versions as here"]
        assert not next(ok for text, ok in lines.items() if text.startswith(f"{ODD}: "))
    finally:
        nodes.kill(ODD)


@pytest.mark.heavy
def test_a_node_that_was_made_fit_is_used_though_an_engine_waits_for_another(
    make_executor: MakeExecutor,
    nodes: Nodes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What was requested while the node was not used would not go there. It is reported once."""
    monkeypatch.setattr("picowatch.engine.cluster.placement._UNFIT_SECONDS", 8.0)
    tries = tmp_path / "tries"
    note = f"with open({str(tries)!r}, 'a') as file: file.write('x')\n"
    other = stub(tmp_path, "picowatch.engine.versions", f"{note}def versions(): return {{}}")
    executor = make_executor()
    joined(executor, 2, {HEAD, SECOND})
    nodes.add(ODD, PYTHONPATH=f"{other}:{ROOT}")
    try:
        executor.want(3)
        wait_for(lambda: tries.exists() and len(tries.read_text()) >= 3, "it is tried again")
        shutil.rmtree(other)
        joined(executor, 3, {HEAD, SECOND, ODD})
        wait_for(lambda: not executor.trouble(), "all is well")
        assert caplog.text.count(f"{ODD} is not used") == 1
    finally:
        nodes.kill(ODD)


@pytest.mark.heavy
def test_an_engine_that_ends_again_and_again_before_it_takes_a_batch_is_explained(
    make_executor: MakeExecutor, nodes: Nodes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where memory is low. It is reported once, and not as a lack of room."""
    tries = tmp_path / "tries"
    note = f"with open({str(tries)!r}, 'a') as file: file.write('x')\n"
    same = f"{note}def versions(): return {versions()!r}"
    other = make_executor()
    joined(other, 2, {HEAD, SECOND})
    nodes.add(ODD, PYTHONPATH=stub(tmp_path, "picowatch.engine.versions", same))
    try:
        executor = make_executor()
        executor.want(1)
        wait_for(lambda: tries.exists() and len(tries.read_text()) >= 3, "it is tried again")
        said = f"The engine on {ODD} answered with an error: "
        assert executor.trouble().startswith(said)
        assert caplog.text.count(said) == 1
    finally:
        nodes.kill(ODD)


def trouble_of(executor: RayEngines, words: str) -> None:
    """Wait until it says so."""
    executor.want(1)
    wait_for(lambda: words in executor.trouble(), words)


@pytest.mark.heavy
def test_a_cluster_without_a_gpu_says_what_to_set(make_executor: MakeExecutor) -> None:
    """One was requested: the cluster may grow."""
    trouble_of(make_executor(gpus_per_engine=1), "set gpus_per_engine: 0")


@pytest.mark.heavy
def test_a_cluster_without_room_says_so(make_executor: MakeExecutor) -> None:
    """Nothing is refused: others may end."""
    trouble_of(make_executor(cpus_per_engine=64), "no room for an engine now (0 GPU, 64 CPU)")


@pytest.mark.heavy
def test_a_head_that_is_not_found_is_reported_and_tried_again(make_executor: MakeExecutor) -> None:
    """Whatever Ray says of it."""
    trouble_of(make_executor(address="127.0.0.1:1"), "Cannot connect to the Ray cluster at 127.")


@pytest.mark.heavy
def test_another_token_is_reported_once(
    make_executor: MakeExecutor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The head does not answer then. A daemon may try for weeks."""
    monkeypatch.setattr("picowatch.engine.cluster.executor._SILENT_SECONDS", 1.0)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another".ljust(64, "r"))
    caplog.set_level("DEBUG", "picowatch")  # whatever an earlier test set
    executor = make_executor()
    wait_for(lambda: caplog.text.count("Ray's driver ended") >= 2, "it is tried again")
    assert "RAY_AUTH_TOKEN" in executor.trouble()
    for said in ("The Ray cluster does not answer", "Cannot connect to the Ray cluster at "):
        assert caplog.text.count(said) == 1


def test_a_name_that_no_machine_can_have_is_reported(tmp_path: Path) -> None:
    """The thread that keeps the connection would end of it, and nothing be rendered or said."""
    executor = RayEngines(EngineOptions(models=tmp_path), RaySettings(address="node..local:6379"))
    try:
        trouble_of(executor, "Cannot connect to the Ray cluster at node..local:6379: ")
    finally:
        executor.close()


def test_without_ray_the_log_tells_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon goes on: Ray may be installed later."""
    raising = "raise ModuleNotFoundError('No module named ray', name='ray')"
    monkeypatch.setenv("PYTHONPATH", f"{stub(tmp_path, 'ray', raising)}:{ROOT}")
    executor = RayEngines(EngineOptions(models=tmp_path), RaySettings())
    try:
        trouble_of(executor, "pip install -e '.[ray]'")
    finally:
        executor.close()


@pytest.mark.parametrize("of", ["nobody", "me"])
def test_what_a_killed_daemon_left_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """In a container, the next daemon has the same process id."""
    monkeypatch.setenv("PYTHONPATH", f"{stub(tmp_path, 'ray', 'raise ImportError')}:{ROOT}")
    left = Path(f"/tmp/picowatch-ray-{os.getpid() if of == 'me' else 2**31 - 1}-left")
    (left / "session").mkdir(parents=True)
    executor = RayEngines(EngineOptions(models=tmp_path), RaySettings())
    try:
        wait_for(lambda: not left.exists(), "it is deleted")
    finally:
        executor.close()


def test_without_permission_for_a_folder_it_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again: the permission may come, or room on the disk."""

    def refuse(**_: object) -> str:
        raise PermissionError(13, "Permission denied", "/tmp")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    executor = RayEngines(EngineOptions(models=tmp_path), RaySettings())
    try:
        trouble_of(executor, "Ray cannot be started on this machine: [Errno 13] Permission denied")
    finally:
        executor.close()


def test_without_a_free_port_it_is_reported_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray would look for one for half a minute."""

    def refuse(*_: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr("socket.create_server", refuse)
    executor = RayEngines(EngineOptions(models=tmp_path), RaySettings())
    try:
        trouble_of(executor, "Ray cannot be started on this machine: [Errno 98] Address already")
    finally:
        executor.close()


@pytest.mark.heavy
def test_a_cluster_of_this_machine_is_started_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU where Ray sees no GPU; nothing is left of it."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    own = f"picowatch-ray-{os.getpid()}-*"  # other runs have theirs beside it
    before = set(Path("/tmp").glob(own))
    executor = RayEngines(EngineOptions(models=tmp_path), RaySettings(), DIGESTS)
    try:
        [engine] = joined(executor, 1)
        held = Held(engine, tmp_path)
    finally:
        executor.close()
    wait_for(lambda: not is_running(held.process) and not is_running(held.host), "all ends")
    assert set(Path("/tmp").glob(own)) <= before


def of_session(leader: int) -> dict[str, psutil.Process]:
    """The processes that exist in a session, by name."""
    found = {}
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found[process.name()] = process
    return found


@pytest.mark.heavy
def test_a_cluster_of_this_machine_ends_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """Even while it starts: nobody else would end it."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", OWN_CLUSTER, str(tmp_path)], env=os.environ, cwd=ROOT
    )
    try:
        wait_for(psutil.Process(daemon.pid).children, "the driver starts")
        [driver] = psutil.Process(daemon.pid).children()
        wait_for(lambda: "ray::DashboardAgent" in of_session(driver.pid), "its cluster starts")
        of_session(driver.pid)["raylet"].suspend()  # so it is not finished
    finally:
        daemon.kill()
        daemon.wait()
    killed = time.monotonic()
    wait_for(lambda: not of_session(driver.pid), "all ends")
    assert time.monotonic() - killed < within(5)
    for left in Path("/tmp").glob(f"picowatch-ray-{daemon.pid}-*"):  # as the next daemon does
        shutil.rmtree(left)
