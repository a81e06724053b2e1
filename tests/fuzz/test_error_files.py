"""For every invalid save the outbox says what is wrong, and where."""

import os

import pytest
from PIL import Image

from tests.fuzz.hostile import png, safetensors
from tests.house import House

WITH_A_MASK = "prompt: a\nimage: good.png\nmask: a.png\n"
SAVED: dict[str, tuple[str, str | bytes, str]] = {
    "YAML that ends too soon": ("a.yaml", "prompt: a\nsteps: [1, 2\n", "a.yaml, line 2, column"),
    "an unknown flag": ("a.txt", "a\na dog --stesp 3\n", "a.txt, line 2, column 7"),
    "bytes that are no UTF-8": ("a.txt", b"a corgi\ncaf\xe9\n", "a.txt, line 2, column 4"),
    "nesting": ("a.yaml", b"prompt: a\nsteps: " + b"[" * 100_000, "a.yaml, line 2, column"),
    "a bad start image": ("a.yaml", "prompt: a\nimage: a.png\n", "a.yaml, line 2, column 8"),
    "a bad mask": ("a.yaml", WITH_A_MASK, "a.yaml, line 3, column 7"),
    "settings of no picture": ("a.yaml", "prompt: a\nfrom: a.png\n", "a.yaml, line 2, column 7"),
    "a bad model": ("a.yaml", "prompt: a\ncheckpoint: it\n", "a.yaml, line 2, column 13"),
    # Opening one would wait for its writer, who may never come.
    "a FIFO as a model": ("a.yaml", "prompt: a\ncheckpoint: fifo\n", "not a regular file"),
    "a bad wildcard file": ("a.yaml", "prompt: a __x__\n", "a.yaml, line 1, column 9"),
    "bad defaults": ("pets/a.yaml", "prompt: a\n", "pets/_defaults.yaml, line 2, column 7"),
}


@pytest.mark.parametrize("name", SAVED)
def test_every_bad_save_gets_an_error_file_that_names_the_place(house: House, name: str) -> None:
    """Line and column of the value that is wrong, whatever kind of file is to blame."""
    path, content, place = SAVED[name]
    house.save("a.png", png(width=100_000, height=100_000))
    Image.new("RGB", (1, 1)).save(house.inbox / "good.png")
    house.save("pets/_defaults.yaml", "steps: 3\nseed: .inf\n")
    for folder in ("checkpoints", "wildcards"):
        (house.models / folder).mkdir()
    (house.models / "checkpoints/it.safetensors").write_bytes(safetensors(b"{}", 1 << 62))
    (house.models / "wildcards/x.txt").write_bytes(b"red\n\x1b[31m\n")
    os.mkfifo(house.models / "checkpoints/fifo.safetensors")
    house.save(path, content)
    assert not house.once()
    error = house.error(path)
    assert error is not None
    assert place in error
    assert error.replace("\n", "").isprintable()
    assert not house.pictures()
