"""outbox/preview.png: a rough preview of what is being rendered."""

from io import BytesIO
from threading import Event

import pytest
from PIL import Image

from picowatch.engine.protocol import RgbPicture
from picowatch.files.colours import SRGB
from picowatch.observers import observers
from tests.house import PATIENCE, House, wait_for

RED, BLUE = bytes([255, 0, 0]), bytes([0, 0, 255])


def preview(colour: bytes) -> RgbPicture:
    return RgbPicture(4, 2, colour * 8)


def shown(house: House) -> tuple[tuple[int, int], object]:
    """Return size and middle colour of the file, which must be complete each time."""
    with Image.open(BytesIO((house.outbox / "preview.png").read_bytes())) as image:
        image.load()
        assert image.info["icc_profile"] == SRGB
        return image.size, image.getpixel((16, 8))


def test_a_preview_is_shown_until_the_next_and_not_longer_than_picowatch(house: House) -> None:
    """Eight times as large as the latents. One that cannot be shown does no harm."""
    file = house.outbox / "preview.png"
    house.outbox.mkdir()
    file.write_bytes(b"what a crash left")
    with house.running():
        assert not file.exists()
        house.engine.after_step = lambda done: house.engine.on_preview(preview(RED))
        house.save("a.yaml", "prompt: a\nseed: 1\n")
        wait_for(file.exists, "the preview")
        assert shown(house) == ((32, 16), (255, 0, 0))
        wait_for(lambda: house.pictures("a"), "the picture")
        assert shown(house)[1] == (255, 0, 0)
        for wrong in (RgbPicture(4, 2, b""), RgbPicture(0, 0, b"")):
            house.engine.on_preview(wrong)
        house.engine.on_preview(preview(BLUE))
        wait_for(lambda: shown(house)[1] == (0, 0, 255), "the next preview")
    assert not file.exists()


def test_a_slow_disk_delays_no_step(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine renders its picture while a preview is still being written."""
    writes, goes_on = Event(), Event()

    def slow(*_: object, **__: object) -> None:
        writes.set()
        assert goes_on.wait(PATIENCE)

    monkeypatch.setattr(observers, "write_atomically", slow)
    house.engine.after_step = lambda done: house.engine.on_preview(preview(RED))
    with house.running():
        house.save("a.yaml", "prompt: a\nseed: 1\n")
        wait_for(lambda: house.pictures("a"), "the picture")
        assert writes.wait(PATIENCE)
        goes_on.set()
