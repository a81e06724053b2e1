"""`picowatch run` on a cluster: whatever dies, each picture is rendered, and none twice."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from picowatch.engine.child import ChildEngine
from picowatch.engine.options import EngineOptions
from picowatch.files.pictures import decode_picture
from tests.engine.ray.conftest import HEAD, ROOT, SECOND, Nodes, environment
from tests.engine.requests import make
from tests.house import House, wait_for, within

pytestmark = pytest.mark.heavy

RECIPES, MOST = 20, 200
THIRD = "third"


def save_recipes(house: House, count: int, first: int = 0) -> None:
    """Recipes of one picture each."""
    for number in range(first, first + count):
        house.save(f"{number:02}.yaml", f"prompt: a red circle\nseed: {number}\nsteps: 8\n")


@contextmanager
def daemon(house: House, nodes: Nodes) -> Iterator[subprocess.Popen[bytes]]:
    """`picowatch run` in a process of its own; ended at the end, if it is running."""
    settings = {
        "INBOX": house.inbox,
        "OUTBOX": house.outbox,
        "MODELS": house.models,
        "SETTLE_SECONDS": "0.05",
        "BATCH_SIZE": "1",
        "PREVIEW_SECONDS": "0",
        "EXECUTOR": json.dumps({"ray": {"address": nodes.address, "gpus_per_engine": 0}}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "picowatch", "run"],
        env=environment() | {f"PICOWATCH_{name}": str(value) for name, value in settings.items()},
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


def published(house: House) -> int:
    """How many pictures were published."""
    return len(house.listed())


def rendered_on(house: House, picture: str) -> str:
    """The node that rendered a picture."""
    return str(house.chunk(picture).rendered["node"])


def renderers(house: House) -> set[str]:
    """The nodes that rendered the pictures so far."""
    return {rendered_on(house, picture) for picture in house.pictures()}


def each_was_rendered_once(house: House, count: int) -> None:
    """No recipe without its picture, none with two, nothing failed."""
    once = Counter(f"{number:02}" for number in range(count))
    assert Counter(Path(picture).parent.name for picture in house.pictures()) == once
    assert published(house) == count
    assert not list(house.outbox.glob("*.error.txt"))


def test_an_actor_and_a_node_die_and_a_node_joins_in_the_middle(nodes: Nodes, house: House) -> None:
    """All recipes have their picture, with the pixels of this machine."""
    save_recipes(house, RECIPES)
    recipes = RECIPES
    with daemon(house, nodes) as process:
        wait_for(lambda: renderers(house) == {HEAD, SECOND}, "both nodes have rendered one")
        [engine] = nodes.engines(HEAD)
        engine.kill()
        so_far = published(house)
        wait_for(lambda: published(house) >= so_far + 4, "it goes on")
        nodes.kill(SECOND)
        nodes.add(THIRD)
        while THIRD not in renderers(house):  # more, if it was too late for all of those
            if published(house) > recipes - 4:
                save_recipes(house, 4, first=recipes)
                recipes += 4
            assert recipes < MOST
            so_far = published(house)
            wait_for(lambda: published(house) > so_far, "it goes on")  # noqa: B023
        wait_for(lambda: published(house) == recipes, "all are published")
        wait_for(lambda: house.status()["images"]["running"] == 0, "nothing is in progress")
        process.terminate()
        assert process.wait(within(2)) == 0
    each_was_rendered_once(house, recipes)
    assert house.log().count("It is rendered elsewhere") <= 2  # no lost engine got a batch again
    here = ChildEngine(EngineOptions(models=house.models, threads=1))
    try:
        for node in (HEAD, SECOND, THIRD):
            picture = next(one for one in house.pictures() if rendered_on(house, one) == node)
            [expected] = make(here, house.chunk(picture).request)
            found = decode_picture((house.outbox / picture).read_bytes())
            assert found.tobytes() == expected.pixels
    finally:
        here.close()


def test_a_daemon_that_is_killed_and_started_again_loses_and_doubles_nothing(
    nodes: Nodes, house: House
) -> None:
    """While actors still work for it."""
    save_recipes(house, 12)
    with daemon(house, nodes) as process:
        wait_for(lambda: published(house) >= 2, "it has begun")
        process.kill()
    assert published(house) < 12
    with daemon(house, nodes):
        wait_for(lambda: published(house) == 12, "all are published")
        wait_for(lambda: house.status()["images"]["running"] == 0, "nothing is in progress")
    each_was_rendered_once(house, 12)
