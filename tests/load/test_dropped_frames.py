"""Thousands of dropped frames beside recipes that somebody waits for, in little memory.

`make test-heavy` takes ten thousand. The figures are shown by
`pytest -m heavy --log-cli-level=INFO tests/load/test_dropped_frames.py`.
"""

import logging
import os
import time
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.house import House, within
from tests.load.live_daemon import live_daemon

log = logging.getLogger(__name__)

MEBIBYTES = 95  # that the daemon may hold at most
# … and more than with nothing to do. To read one of the large frames whole, once, is too much.
GROWTH = {200: 15, 10_000: 40}
ANSWERED_SECONDS = 5.0  # from the save of an interactive recipe to its picture
LARGE = 3  # frames of ten megabytes


def frames(folder: Path, count: int) -> None:
    """Frames of 1920x1080, each of its own bytes; some are photos as large as cameras make them."""
    folder.mkdir(parents=True)
    plain = jpeg(Image.linear_gradient("L").resize((1920, 1080)).convert("RGB"), 80)
    noise = Image.frombytes("RGB", (3200, 2400), os.urandom(3200 * 2400 * 3))
    large = jpeg(noise, 97)
    assert len(large) > 9e6
    for number in range(count):
        content = large if number < LARGE else plain
        (folder / f"{number:05}.jpg").write_bytes(content + str(number).encode())


def jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.heavy)])
def test_frames_are_rendered_beside_recipes_that_overtake_them(house: House, count: int) -> None:
    """Every frame once, under its name; no copies pile up; memory stays small."""
    frames(house.folder / "frames", count)
    house.save("live/_defaults.yaml", "priority: 10\n")
    house.save("frames/_pictures.yaml", "prompt: a frame\nseed: 1\nsize: 64x64\nsteps: 1\n")
    copies = house.outbox / ".picowatch/start-images"
    most_copies, waited = 0, []
    with live_daemon(house, batch_seconds=0.01) as daemon:
        idle = daemon.mebibytes()
        (house.folder / "frames").rename(house.inbox / "frames/a")
        for number in range(3):
            part = count * (number + 1) // 10
            daemon.wait_for(lambda: daemon.made() > part, "a part of the frames")  # noqa: B023
            began = time.monotonic()
            house.save(f"live/now{number}.yaml", "prompt: now\nseed: 1\nsize: 64x64\nsteps: 1\n")
            shown = house.outbox / f"live/now{number}/0001-1.png"
            daemon.wait_for(shown.exists, "the interactive picture")
            waited.append(time.monotonic() - began)
            most_copies = max(most_copies, len(list(copies.iterdir())))
        for tenths in range(4, 11):  # the patience is for a part of them
            part = count * tenths // 10
            daemon.wait_for(lambda: daemon.made() >= part, "the next frames")  # noqa: B023
        daemon.wait_until_made(count + 3)
        daemon.wait_until_idle()
        peak = daemon.mebibytes()
        log.info(
            "%d frames: %.1f MiB at first, %.1f MiB at most; a recipe beside them took %s s",
            count, idle, peak, ", ".join(f"{seconds:.1f}" for seconds in waited),
        )  # fmt: skip
        assert peak < MEBIBYTES
        assert peak - idle < GROWTH[count]
    assert house.pictures("frames") == [f"frames/a/{number:05}.png" for number in range(count)]
    assert most_copies < 20
    assert list(copies.iterdir()) == []
    assert max(waited) < within(ANSWERED_SECONDS), waited
    assert list(house.outbox.rglob("*.error.txt")) == []
    assert house.once()
    assert house.engine.batches == []
