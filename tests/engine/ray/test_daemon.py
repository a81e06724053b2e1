"""`picowatch run` on a cluster renders each picture once, whatever dies, and outlives the head."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from picowatch.engine.process.ray import cluster_parts
from picowatch.engine.protocol import EngineLost
from picowatch.settings.values import RaySettings
from tests.engine.ray.conftest import HEAD, ROOT, SECOND, MakeExecutor, Nodes, environment
from tests.house import House, wait_for
from tests.machine import within


def of_daemon(house: House, address: str) -> dict[str, str]:
    settings = {
        "INBOX": house.inbox,
        "OUTBOX": house.outbox,
        "MODELS": house.models,
        "SETTLE_SECONDS": "0.05",
        "BATCH_SIZE": "1",
        "PREVIEW_SECONDS": "0",
        "EXECUTOR": json.dumps({"ray": {"address": address, "gpus_per_engine": 0}}),
    }
    return environment() | {f"PICOWATCH_{name}": str(value) for name, value in settings.items()}


def nodes_of(house: House) -> list[str]:
    return [str(house.chunk(picture).rendered["node"]) for picture in house.pictures()]


@pytest.mark.heavy
def test_an_actor_and_a_node_die_in_the_middle(nodes: Nodes, house: House) -> None:
    for number in range(20):
        house.save(f"{number:02}.yaml", f"prompt: a red circle\nseed: {number}\nsteps: 8\n")
    with subprocess.Popen(
        [sys.executable, "-m", "picowatch", "run"],
        env=of_daemon(house, nodes.address),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(lambda: {*nodes_of(house)} == {HEAD, SECOND}, "both nodes have rendered one")
            [engine] = nodes.engines(HEAD)
            engine.kill()
            so_far = len(house.listed())
            wait_for(lambda: len(house.listed()) >= so_far + 4, "it goes on")
            nodes.kill(SECOND)
            wait_for(lambda: len(house.listed()) == 20, "all are published")
            wait_for(lambda: house.status()["images"]["running"] == 0, "nothing is in progress")
            process.terminate()
            assert process.wait(within(2)) == 0
        finally:
            process.kill()
    once = Counter(f"{number:02}" for number in range(20))
    assert Counter(Path(picture).parent.name for picture in house.pictures()) == once
    assert not list(house.outbox.glob("*.error.txt"))
    assert house.log().count("It is rendered elsewhere") <= 2  # no lost engine got a batch again


# A daemon whose parent is process 1, as in a service or a container: see RAY_RAYLET_PID.
DAEMON = '"$0" -m picowatch run >/dev/null 2>&1 & echo $!'


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
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("RAY_TMPDIR") == str(folder):
                process.kill()


@pytest.mark.heavy
def test_a_daemon_outlives_its_head_and_uses_the_next_one(house: House) -> None:
    """Ray alone ends a process whose head stays away, or comes back as another one."""
    folder, port = Path(f"/tmp/picowatch-ray-{os.getpid()}-head"), 9379
    house.save("a.yaml", "prompt: a corgi\ncount: 1000\nsteps: 12\n")
    try:
        start_head(folder, port)
        started = subprocess.run(
            ["sh", "-c", DAEMON, sys.executable],
            env=of_daemon(house, f"127.0.0.1:{port}"),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            check=True,
        )
        daemon = psutil.Process(int(started.stdout))
        wait_for(house.pictures, "it renders")
        for waits in (False, True):
            so_far = len(house.log())
            kill_head(folder)
            if waits:
                said = "Cannot connect to the Ray"
                wait_for(lambda: said in house.log()[so_far:], said)  # noqa: B023
            before = len(house.pictures())
            start_head(folder, port)
            wait_for(lambda: len(house.pictures()) > before + 1, "it renders again")  # noqa: B023
        daemon.terminate()
        daemon.wait(2)
    finally:
        kill_head(folder)
        shutil.rmtree(folder, ignore_errors=True)


def test_a_head_that_is_not_there_is_reported_at_once(make_executor: MakeExecutor) -> None:
    address = "127.0.0.1:1"
    executor = make_executor(address=address)
    wait_for(lambda: executor.is_final, "it is reported")
    assert executor.trouble.startswith(f"Cannot connect to the Ray cluster ({address}): ")
    assert "`ray start --head` starts" in executor.trouble
    executor.close()
    with pytest.raises(EngineLost, match="Cannot connect"):
        cluster_parts(RaySettings(address=address))
