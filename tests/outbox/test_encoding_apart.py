"""Large pictures are encoded in a process of their own, to the same bytes."""

import logging

import numpy as np
import pytest
from PIL import Image

from picowatch.files.wide_gamut import SRGB
from picowatch.metadata.embedded_text import PARAMETERS
from picowatch.outbox import encoding_apart
from picowatch.outbox.encoding import THUMBNAIL_SIDE, Encoding, How, shrink
from picowatch.outbox.encoding_apart import Raw, encode_apart
from picowatch.outbox.names import FORMATS
from picowatch.outbox.photo_metadata import DRAWN, only_marked
from tests.house import House

RNG = np.random.default_rng(5)


def raw(**more: bytes) -> Raw:
    return Raw(width=500, height=40, pixels=RNG.bytes(500 * 40 * 3), **more)


LOW, ALPHA = RNG.bytes(500 * 40 * 3), RNG.bytes(500 * 40)


@pytest.mark.parametrize(
    ("name", "low", "alpha"),
    [("png", LOW, ALPHA), ("tiff", LOW, b""), ("jpeg", b"", ALPHA), ("webp", b"", b"")],
)
def test_a_process_writes_the_same_file(name: str, low: bytes, alpha: bytes) -> None:
    """It gives what the gallery shows, too."""
    picture = raw(low=low, alpha=alpha, profile=SRGB)
    how = How(
        file=f"a{FORMATS[name].ending}",
        texts={PARAMETERS: "a star"},
        encoding=Encoding("png", "auto"),
        photo=only_marked(DRAWN),
    )
    small, content = encode_apart(picture, how)
    assert content == how.encode(picture.decoded())
    assert small.tobytes() == shrink(picture.decoded().picture).tobytes()
    assert small.size == (THUMBNAIL_SIDE, round(40 * THUMBNAIL_SIDE / 500))


def test_what_it_leaves_out_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    how = How(file="a.jpg", texts={PARAMETERS: "a" * 70_000}, encoding=Encoding("jpeg", "auto"))
    with caplog.at_level(logging.WARNING, "picowatch"):
        encode_apart(raw(), how)
    assert "its texts are left out" in caplog.text


def test_a_process_that_ends_fails_its_picture_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_apart, "LARGE_PIXELS", 5000)
    monkeypatch.setattr(encoding_apart, "program", lambda *_: ["false"])
    house.save("a.yaml", "prompt: a star\nsize: 128x128\nseed: 7\n")
    house.save("b.yaml", "prompt: a star\nsize: 64x64\nseed: 7\n")
    assert not house.once()
    assert house.pictures() == ["b/0001-7.png"]
    assert "the process that encodes it has ended" in house.log()


def test_a_large_picture_is_published_as_any_other(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_apart, "LARGE_PIXELS", 5000)
    house.save("a.yaml", "prompt: a star\nsize: 128x128\nseed: 7\n")
    assert house.once()
    with Image.open(house.outbox / "a/0001-7.png") as made:
        assert made.size == (128, 128)
    assert house.chunk("a/0001-7.png").request.prompt == "a star"
    assert len([*(house.outbox / ".picowatch/gallery/thumbs").iterdir()]) == 1
