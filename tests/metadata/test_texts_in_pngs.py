"""The texts of a PNG, whoever wrote it, found without decoding a pixel."""

import zlib
from io import BytesIO

import pytest
from PIL import Image, PngImagePlugin

from picowatch.errors import PictureUnreadable
from picowatch.metadata import texts_of
from picowatch.outbox.encoding import encode_png
from tests.fuzz.hostile import chunk, png

PIXELS = chunk(b"IDAT", zlib.compress(bytes(4)))


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


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (png(chunk(b"tEXt", b"parameters\0a"), PIXELS)[:-20], {"parameters": "a"}),
        (
            png(chunk(b"tEXt", "parameters\0ein Café, 猫".encode()), PIXELS),
            {"parameters": "ein Café, 猫"},
        ),
        (png(chunk(b"zTXt", b"parameters\0\0not packed"), PIXELS), {}),
        (png(chunk(b"iTXt", b"parameters\0\0\0\0\0\xff"), PIXELS), {}),
        (png(chunk(b"iTXt", b"parameters\0"), PIXELS), {}),
    ],
    ids=["breaks off", "UTF-8 in tEXt", "packing", "encoding", "fields"],
)
def test_a_damaged_text_is_no_setting(content: bytes, texts: dict[str, str]) -> None:
    """Part of a prompt would make another picture. Stability Matrix writes UTF-8 where it does."""
    assert texts_of(content) == texts


def test_a_text_that_would_be_taken_for_utf8_is_written_as_utf8() -> None:
    """picowatch's texts are read back exactly."""
    texts = {"parameters": "cafÃ©", "picowatch": "café"}
    assert texts_of(encode_png(Image.new("RGB", (1, 1)), texts)) == texts


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (png(chunk(b"tEXt", b"parameters\0a")[:-1] + b"?", PIXELS), "not a picture"),
        (b"not a picture", "not a picture"),
        (png(PIXELS, width=2**15, height=2**15), "too many pixels"),
        (png(chunk(b"tEXt", b"parameters\0" + b"a" * 5_000_000), PIXELS), "too long"),
        (
            png(chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(5_000_000))), PIXELS),
            "not a picture",
        ),
    ],
    ids=["checksum", "text", "size", "long", "packed"],
)
def test_what_cannot_be_read_is_an_error_in_words(content: bytes, why: str) -> None:
    """From the beginning of the file, before anything large is unpacked."""
    with pytest.raises(PictureUnreadable, match=why):
        texts_of(content)
