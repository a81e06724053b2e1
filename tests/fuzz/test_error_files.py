"""For every invalid save the outbox says what is wrong, and where; so for numbers of any length."""

import os
from itertools import product

import pytest
from PIL import Image

from tests.catalog.files import safetensors
from tests.fuzz.hostile import png
from tests.house import House
from tests.recipe.reading import read_one, refused

WITH_A_MASK = "prompt: a\nimage: good.png\nmask: a.png\n"
SAVED: dict[str, tuple[str, str | bytes, str]] = {
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


# -- numbers that are none, or too long to be meant, in every field that takes one


NUMBERS = {
    "not a number": ".nan",
    "infinity": ".inf",
    "beyond any float": "1.0e+999",
    "10,000 digits": "9" * 10_000,
    "10,000 digits of base 60": "59" + ":59" * 5_000,
    "30 digits": "9" * 30,
}
ALONE = (
    *("steps", "cfg_scale", "size", "seed", "count", "clip_skip", "priority"),
    *("width", "height", "denoising_strength", "mask_blur"),
)
FIELDS = [
    *(f"{name}: {{}}" for name in ALONE),
    *("seed: [1, {}]", "size: 512x{}", "loras: {{x: {}}}", "hires: {}", "hires: {{scale: {}}}"),
    *("hires: {{steps: {}}}", "hires: {{denoising_strength: {}}}", "sweep: {{steps: [1, {}]}}"),
    *("sweep: {{steps: '1..{}'}}", "sweep: {{steps: '1..9 step {}'}}"),
]


@pytest.mark.parametrize("field", FIELDS)
def test_no_field_takes_a_number_that_is_none(field: str) -> None:
    for name, number in NUMBERS.items():
        for written in (number, f"'{number}'"):
            line = field.format(written) if "'" not in field else field.format(number)
            invalid = refused(f"prompt: a\nimage: a.png\nmask: b.png\n{line}\n")
            assert {problem.line for problem in invalid.problems} == {4}, name
            assert all(len(problem.message) < 600 for problem in invalid.problems), name


def test_a_number_that_is_none_is_left_out_of_a1111s_text() -> None:
    """A short warning says so, or the limit replaces it."""
    keys = ("Steps", "CFG scale", "Seed", "Size", "Clip skip")
    for key, (name, number) in product(keys, NUMBERS.items()):
        before = "" if key == "Steps" else "Steps: 3, "
        recipe = read_one(f"a corgi\n{before}{key}: {number}, Sampler: Euler\n", "corgi.txt")
        assert recipe.warnings, name
        assert all(len(warning) < 600 for warning in recipe.warnings), name
