"""The `picowatch` chunk, and the texts of a PNG, found without decoding a pixel."""

import json
import re
import zlib
from dataclasses import replace
from io import BytesIO
from typing import Any

import pytest
from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.files.decoding import Original
from picowatch.metadata.embedded_text import texts_in
from picowatch.outbox.encoding import encode_png
from picowatch.recipe.chunk import Chunk, picowatch_json, read_chunk
from tests.fuzz.hostile import chunk as png_chunk
from tests.fuzz.hostile import png
from tests.metadata.requests import CORGI

RENDERED = {"device": "cpu", "timings": {"denoise": 0.5}, "versions": {"torch": "2.9.0"}}
PLACE: dict[str, Any] = {
    "recipe": "pets/corgi.yaml",
    "save_digest": "5" * 64,
    "entry_index": 1,
    "image_index": 2,
}


def test_the_chunk_holds_everything_that_made_the_picture() -> None:
    """As the documentation lists it; beside the drawn prompt, the one before wildcards."""
    drawn = replace(CORGI, prompt="a cat", unexpanded_prompt="a {cat|dog}")
    for request, prompt in ((CORGI, "a corgi"), (drawn, "a {cat|dog}")):
        text = picowatch_json(Chunk(request=request, **PLACE, rendered=RENDERED))
        assert json.loads(text) == PLACE | {
            "format": 1,
            "request": request.as_dict(),
            "digest": request.digest,
            "unexpanded_prompt": prompt,
            "hashes": {"loras": {}, "embeddings": {}, "start_images": {}},
            "rendered": RENDERED,
        }
        chunk = read_chunk(text)
        assert (chunk.request, chunk.rendered) == (request, RENDERED)
        assert (chunk.recipe, chunk.entry_index, chunk.image_index) == ("pets/corgi.yaml", 1, 2)


def _chunk(request: dict[str, object] | None = None, **changes: object) -> str:
    values = json.loads(picowatch_json(Chunk(request=CORGI, **PLACE, rendered=RENDERED)))
    values["request"] |= request or {}
    return json.dumps(values | changes)


LORA = {"name": "a", "hash": "b"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "contains no request"),
        ('{"request": 3}', "contains no request"),
        (_chunk(format=2), "has format 2; this version reads format 1. A newer picowatch"),
        (_chunk({"steps": "many"}), "is damaged: request.steps: "),
        (_chunk(entry_index=None), "is damaged: entry_index: "),
        (_chunk({"styles": []}), "request.styles: this version does not know it."),
        (_chunk({"loras": [LORA | {"w": 1}]}), "is damaged: request.loras.0.weight: "),
        (_chunk({"loras": [LORA | {"weight": 1, "evil": 1}]}), "0.evil: this version does not"),
    ],
)
def test_what_is_no_chunk_of_ours_is_an_error_that_says_so(text: str, message: str) -> None:
    """Never a KeyError, never a picture with half its settings."""
    with pytest.raises(PictureUnreadable, match=re.escape(message)) as refused:
        read_chunk(text)
    assert "__" not in str(refused.value)
    assert "argument" not in str(refused.value)


def test_latin1_goes_into_text_chunks_and_the_rest_into_international_ones() -> None:
    """tEXt is Latin-1 without NUL, and no text that would be taken for UTF-8; iTXt is UTF-8."""
    for text, kind in (("für\n", b"tEXt"), ("猫", b"iTXt"), ("a\0b", b"iTXt"), ("cafÃ©", b"iTXt")):
        content = encode_png(Original(Image.new("RGB", (1, 1))), {"parameters": text})
        assert kind + b"parameters" in content
        assert texts_in(BytesIO(content)) == {"parameters": text}


PIXELS = png_chunk(b"IDAT", zlib.compress(bytes(4)))
PACKED = zlib.compress(bytes(5_000_000))


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (png(png_chunk(b"zTXt", b"parameters\0\0" + zlib.compress(b"caf\xe9")), PIXELS),
         {"parameters": "café"}),
        (png(png_chunk(b"tEXt", b"parameters\0a"), PIXELS)[:-20], {"parameters": "a"}),
        (png(png_chunk(b"tEXt", "parameters\0é, 猫".encode()), PIXELS), {"parameters": "é, 猫"}),
        (png(png_chunk(b"zTXt", b"parameters\0\0not packed"), PIXELS), {}),
        (png(png_chunk(b"iTXt", b"parameters\0\0\0\0\0\xff"), PIXELS), {}),
    ],
)  # fmt: skip
def test_a_damaged_text_is_no_setting(content: bytes, texts: dict[str, str]) -> None:
    """Part of a prompt would make another picture. Stability Matrix writes UTF-8 where it does."""
    assert texts_in(BytesIO(content)) == texts


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (png(png_chunk(b"tEXt", b"parameters\0a")[:-1] + b"?", PIXELS), "not a picture"),
        (b"not a picture", "not a picture"),
        (png(PIXELS, width=2**15, height=2**15), "too many pixels"),
        (png(png_chunk(b"tEXt", b"parameters\0" + b"a" * 5_000_000), PIXELS), "too long"),
        (png(png_chunk(b"zTXt", b"parameters\0\0" + PACKED), PIXELS), "too long"),
    ],
    ids=["checksum", "text", "size", "long", "packed"],
)
def test_what_cannot_be_read_is_an_error_in_words(content: bytes, why: str) -> None:
    """From the beginning of the file, before anything large is unpacked."""
    with pytest.raises(PictureUnreadable, match=why):
        texts_in(BytesIO(content))
