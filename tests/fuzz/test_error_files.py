"""For every invalid save the outbox says what is wrong, and where."""

import os
import struct

import pytest

from tests.fuzz.hostile import png, safetensors
from tests.house import House

SAVED = {
    "YAML that ends too soon": ("a.yaml", b"prompt: a\nsteps: [1, 2\n", "line 2, column"),
    "a flag that is none": ("a.txt", b"a corgi\na dog --stesp 3\n", "line 2, column 7"),
    "bytes that are no UTF-8": ("a.txt", b"a corgi\ncaf\xe9\n", "line 2, column 4"),
    "nesting": ("a.yaml", b"prompt: a\nsteps: " + b"[" * 100_000, "line 2, column"),
    "a start image that is none": (
        "a.yaml",
        b"prompt: a\nimage: a.png\ncheckpoint: demo\n",
        "line 2, column 8",
    ),
    "a mask that is none": (
        "a.yaml",
        b"prompt: a\nimage: good.png\nmask: a.png\ncheckpoint: demo\n",
        "line 3, column 7",
    ),
    "settings of no picture": ("a.yaml", b"prompt: a\nfrom: a.png\n", "line 2, column 7"),
    "a model that is none": ("a.yaml", b"prompt: a\ncheckpoint: it\n", "line 2, column 13"),
    "a wildcard file that is none": ("a.yaml", b"prompt: a __x__\n", "line 1, column 9"),
}


@pytest.mark.parametrize("name", SAVED)
def test_every_bad_save_gets_an_error_file_that_names_the_place(house: House, name: str) -> None:
    """Line and column of the value that is wrong, whatever kind of file is to blame."""
    path, content, place = SAVED[name]
    (house.inbox / "a.png").write_bytes(png(width=100_000, height=100_000))
    (house.inbox / "good.png").write_bytes(_good_picture())
    for file, bad in (
        ("checkpoints/it.safetensors", safetensors(b"{}", 1 << 62)),
        ("wildcards/x.txt", b"red\n\x1b[31m\n"),
    ):
        (house.models / file).parent.mkdir(parents=True, exist_ok=True)
        (house.models / file).write_bytes(bad)
    house.save(path, content)
    assert not house.once()
    error = house.error(path)
    assert error is not None
    assert f"inbox/{path}, {place}" in error
    assert error.replace("\n", "").isprintable()
    assert not house.pictures()


def test_a_bad_defaults_file_is_named_in_the_error_of_the_recipe(house: House) -> None:
    """With the place in it; the recipe itself is a good one."""
    house.save("pets/_defaults.yaml", "steps: 3\nseed: .inf\n")
    house.save("pets/a.yaml", "prompt: a\n")
    assert not house.once()
    assert "inbox/pets/_defaults.yaml, line 2, column 7" in (house.error("pets/a.yaml") or "")


def test_a_fifo_among_the_models_stops_nothing(house: House) -> None:
    """Opening one would wait for its writer, who may never come."""
    (house.models / "checkpoints").mkdir(parents=True)
    os.mkfifo(house.models / "checkpoints/it.safetensors")
    house.save("a.yaml", "prompt: a\ncheckpoint: it\n")
    assert not house.once()
    assert "is not a regular file" in (house.error("a.yaml") or "")


def _good_picture() -> bytes:
    """A BMP of one pixel: Pillow tells kinds by their first bytes."""
    head = struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 58, 0, 0, 54) + head + bytes(4)
