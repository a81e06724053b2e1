"""The texts of a PNG, whoever wrote it, found without decoding a pixel."""

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image, PngImagePlugin

from picowatch.errors import PictureUnreadable
from picowatch.metadata import texts_of
from picowatch.outbox.encoding import encode_png
from tests.fuzz.hostile import chunk, png


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
@pytest.mark.parametrize("text", ["a corgi", "ein Café", "🐶\na corgi"])
def test_texts_that_another_program_wrote_are_read(text: str, packed: bool) -> None:
    """Latin-1 and UTF-8, packed and not."""
    information = PngImagePlugin.PngInfo()
    information.add_text("parameters", text, zip=packed)
    information.add_itxt("picowatch", text, lang="de", tkey="Wächter", zip=packed)
    file = BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG", pnginfo=information)
    assert texts_of(file.getvalue()) == {"parameters": text, "picowatch": text}


def test_utf8_in_a_chunk_for_latin1_is_read() -> None:
    """Stability Matrix writes it; a text of ours that would be taken for it is written as iTXt."""
    utf8 = png(chunk(b"tEXt", b"parameters\0" + "ein Café, 猫".encode()))
    assert texts_of(utf8) == {"parameters": "ein Café, 猫"}
    texts = {"parameters": "CafÃ©"}
    assert texts_of(encode_png(Image.new("RGB", (2, 2)), texts)) == texts


def test_texts_after_the_pixels_are_read() -> None:
    """Some programs write them there."""
    content = png(chunk(b"IDAT", zlib.compress(bytes(4))), chunk(b"tEXt", b"parameters\0a"))
    assert texts_of(content) == {"parameters": "a"}


def test_of_a_picture_that_breaks_off_the_texts_before_that_are_read() -> None:
    """Its pixels do not matter."""
    whole = png(chunk(b"tEXt", b"parameters\0a"), chunk(b"IDAT", bytes(99)))
    assert texts_of(whole[:-60]) == {"parameters": "a"}


@pytest.mark.parametrize(
    "damaged",
    [
        struct.pack(">I4s", 12, b"tEXt") + b"parameters\0a" + b"\0\0\0\0",
        chunk(b"zTXt", b"parameters\0\0not packed"),
        chunk(b"iTXt", b"parameters\0\0\0\0\0\xff"),
        chunk(b"iTXt", b"parameters\0"),
    ],
    ids=["checksum", "packing", "encoding", "fields"],
)
def test_a_damaged_text_is_no_setting(damaged: bytes) -> None:
    """Part of a prompt would make another picture."""
    with pytest.raises(PictureUnreadable, match="damaged"):
        texts_of(png(damaged))
