"""`picowatch run` on a cluster renders each picture once, whatever dies."""

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.ray.conftest import HEAD, ROOT, SECOND, Nodes, of_daemon
from tests.house import House, wait_for, within

pytestmark = pytest.mark.heavy

RECIPES = 20


@contextmanager
def daemon(house: House, nodes: Nodes) -> Iterator[subprocess.Popen[bytes]]:
    """`picowatch run` in a process of its own; ended at the end, if it is running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "picowatch", "run"],
        env=of_daemon(house, nodes.address),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(within(10))
        finally:  # one that hangs must not disturb the tests after it
            process.kill()
            process.wait()


def nodes_of(house: House) -> list[str]:
    """The nodes that rendered the pictures so far."""
    return [str(house.chunk(picture).rendered["node"]) for picture in house.pictures()]


def test_an_actor_and_a_node_die_in_the_middle(nodes: Nodes, house: House) -> None:
    """Each recipe has its picture, and just one."""
    for number in range(RECIPES):
        house.save(f"{number:02}.yaml", f"prompt: a red circle\nseed: {number}\nsteps: 8\n")
    with daemon(house, nodes) as process:
        wait_for(lambda: {*nodes_of(house)} == {HEAD, SECOND}, "both nodes have rendered one")
        [engine] = nodes.engines(HEAD)
        engine.kill()
        so_far = len(house.listed())
        wait_for(lambda: len(house.listed()) >= so_far + 4, "it goes on")
        nodes.kill(SECOND)
        wait_for(lambda: len(house.listed()) == RECIPES, "all are published")
        wait_for(lambda: house.status()["images"]["running"] == 0, "nothing is in progress")
        process.terminate()
        assert process.wait(within(2)) == 0
    once = Counter(f"{number:02}" for number in range(RECIPES))
    assert Counter(Path(picture).parent.name for picture in house.pictures()) == once
    assert not list(house.outbox.glob("*.error.txt"))
    assert house.log().count("It is rendered elsewhere") <= 2  # no lost engine got a batch again
