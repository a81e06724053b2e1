"""The `picowatch` chunk, and which texts go into which kind of PNG chunk."""

import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from PIL import Image

from picowatch.errors import PictureUnreadable
from picowatch.metadata import picowatch_json, read_chunk, texts_of
from picowatch.outbox.encoding import encode_png
from picowatch.recipe import ImageRequest
from tests.metadata.requests import CORGI, image_requests

RENDERED = {
    "device": "cpu",
    "precision": "float32",
    "batch_size": 2,
    "compiled": False,
    "memory_rung": "full",
    "timings": {"denoise": 0.5},
    "versions": {"picowatch": "0.1.0", "torch": "2.9.0"},
}


def chunk_text(request: ImageRequest = CORGI) -> str:
    return picowatch_json(
        request,
        recipe="pets/corgi.yaml",
        save_digest="5" * 64,
        entry_index=1,
        image_index=2,
        rendered=RENDERED,
    )


def test_the_chunk_holds_everything_that_made_the_picture() -> None:
    """As the documentation lists it; beside the drawn prompt, the one before wildcards."""
    drawn = replace(CORGI, prompt="a cat", unexpanded_prompt="a {cat|dog}")
    for request, prompt in ((CORGI, "a corgi"), (drawn, "a {cat|dog}")):
        assert json.loads(chunk_text(request)) == {
            "format": 1,
            "request": request.as_dict(),
            "digest": request.digest,
            "recipe": "pets/corgi.yaml",
            "save_digest": "5" * 64,
            "entry_index": 1,
            "image_index": 2,
            "unexpanded_prompt": prompt,
            "hashes": {"loras": {}, "embeddings": {}, "start_images": {}},
            "rendered": RENDERED,
        }


@given(image_requests())
def test_the_chunk_reads_back_as_what_was_written(request: ImageRequest) -> None:
    """Request, place in the inbox, and how it was made."""
    chunk = read_chunk(chunk_text(request))
    assert (chunk.request, chunk.rendered) == (request, RENDERED)
    assert (chunk.recipe, chunk.entry_index, chunk.image_index) == ("pets/corgi.yaml", 1, 2)


def _changed(**changes: object) -> str:
    values = json.loads(chunk_text())
    for key, value in changes.items():
        (values["request"] if key in values["request"] else values)[key] = value
    return json.dumps(values)


def _with_lora(**parts: object) -> str:
    return _changed(request=CORGI.as_dict() | {"loras": [{"name": "a", "hash": "b", **parts}]})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "contains no request"),
        ('{"request": 3}', "contains no request"),
        (_changed(format=2), "has format 2; this version reads format 1. A newer picowatch"),
        (_changed(steps="many"), "is damaged: request.steps: "),
        (_changed(entry_index=None), "is damaged: entry_index: "),
        (_changed(request={"prompt": "a"}), "is damaged: "),
        (
            _changed(request=CORGI.as_dict() | {"styles": []}),
            "request.styles: this version does not know it.",
        ),
        (_changed(request=CORGI.as_dict() | {"cfg_scale": None}), "cfg_scale: Input should be"),
        (_with_lora(w=1), "is damaged: request.loras.0.weight: "),
        (_with_lora(weight=1, evil=1), "0.evil: this version does not know it."),
    ],
)
def test_what_is_no_chunk_of_ours_is_an_error_that_says_so(text: str, message: str) -> None:
    """Never a KeyError, never a picture with half its settings."""
    with pytest.raises(PictureUnreadable, match=re.escape(message)) as refused:
        read_chunk(text)
    assert "__" not in str(refused.value)
    assert "argument" not in str(refused.value)


@pytest.mark.parametrize(("text", "kind"), [("für\n", b"tEXt"), ("猫", b"iTXt"), ("a\0b", b"iTXt")])
def test_latin1_goes_into_text_chunks_and_the_rest_into_international_ones(
    text: str, kind: bytes
) -> None:
    """tEXt is defined as Latin-1 without NUL; iTXt is UTF-8."""
    content = encode_png(Image.new("RGB", (1, 1)), {"parameters": text})
    assert kind + b"parameters" in content
    assert texts_of(content) == {"parameters": text}


@pytest.mark.parametrize("keyword", ["prompt", "Prompt", "", " a", "a" * 80, "ä"])
def test_a_key_that_readers_misunderstand_is_a_programming_error(keyword: str) -> None:
    """`prompt` is ComfyUI's and Easy Diffusion's."""
    with pytest.raises(ValueError, match="PNG key"):
        encode_png(Image.new("RGB", (1, 1)), {keyword: "a corgi"})
