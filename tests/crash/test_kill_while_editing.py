"""kill -9 while photos are edited with little memory: the daemon, its engine and a tiny model."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from picowatch.engine.memory import TURNS
from tests.commands.picowatch import start
from tests.engine.tiny_flows import tiny_flow
from tests.house import House, wait_for
from tests.outcome import faults

SIZES = {"a b.jpg": (96, 64), "süd/c.png": (70, 101), "süd/d/e.webp": (128, 90)}


@contextmanager
def daemon(house: House) -> Iterator["subprocess.Popen[str]"]:
    process = start(house.folder, "run", "--quiet", PICOWATCH_MEMORY="low")
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


def photos(house: House) -> dict[str, tuple[int, int]]:
    """Make twelve photos of three sizes, kinds and folders; return their results' sizes by name."""
    named = {}
    for number in range(4):
        for name, size in SIZES.items():
            path = Path("photos", name.replace(".", f"{number}."))
            (house.inbox / path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (60 * number, size[0], 9)).save(house.inbox / path)
            named[path.with_suffix(".png").as_posix()] = size
    return named


def test_a_killed_batch_is_edited_once(house: House) -> None:
    """Text encoders read four photos, then these are drawn; published pictures stay."""
    (house.models / "checkpoints").mkdir()
    (house.models / "checkpoints/klein").symlink_to(tiny_flow("FLUX.2-klein"))
    house.save("photos/_pictures.yaml", "prompt: make it red\ncheckpoint: klein\nsteps: 40\n")
    named = photos(house)
    with daemon(house):
        wait_for(house.listed, "a picture")  # it teaches the size of batches
        wait_for(lambda: house.status()["images"]["running"] == 4, "a batch of four")
    before = {file: (house.outbox / file).stat().st_ino for file in house.pictures()}
    assert before.keys() < named.keys()
    with daemon(house):
        wait_for(lambda: len(house.listed()) == len(named), "all photos")
        wait_for(lambda: not house.status()["images"]["running"], "the end")
    assert "queued again" in house.log()
    assert house.pictures() == sorted(named)
    for file, size in named.items():
        with Image.open(house.outbox / file) as picture:
            assert picture.size == size
    assert {file: (house.outbox / file).stat().st_ino for file in before} == before
    rungs = {house.chunk(file).rendered["memory_rung"] for file in named}
    assert rungs == {TURNS.name}
    assert not list(house.outbox.rglob("*.error.txt"))
    assert list(faults(house.outbox)) == []
