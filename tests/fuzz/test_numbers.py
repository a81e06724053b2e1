"""Numbers that are none, or too long to be meant, in every field that takes one."""

import pytest

from tests.recipe.reading import read_one, refused

NUMBERS = {
    "not a number": ".nan",
    "infinity": ".inf",
    "minus infinity": "-.inf",
    "NaN as in JSON": "NaN",
    "beyond any float": "1.0e+999",
    "10,000 digits": "9" * 10_000,
    "10,000 decimals": "1." + "3" * 10_000,
    "10,000 hexadecimal digits": "0x" + "f" * 10_000,
    "10,000 digits of base 60": "59" + ":59" * 5_000,
    "10,000 digits with underscores": "1" + "_1" * 5_000,
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
    """Each is refused at its place, in a short message."""
    for name, number in NUMBERS.items():
        for written in (number, f"'{number}'"):
            line = field.format(written) if "'" not in field else field.format(number)
            invalid = refused(f"prompt: a\nimage: a.png\nmask: b.png\n{line}\n")
            assert {problem.line for problem in invalid.problems} == {4}, name
            assert all(len(problem.message) < 600 for problem in invalid.problems), name


@pytest.mark.parametrize("key", ["Steps", "CFG scale", "Seed", "Size", "Clip skip"])
def test_a_number_that_is_none_is_left_out_of_a1111s_text(key: str) -> None:
    """A short warning says so, or the limit replaces it."""
    for name, number in NUMBERS.items():
        before = "" if key == "Steps" else "Steps: 3, "
        recipe = read_one(f"a corgi\n{before}{key}: {number}, Sampler: Euler\n", "corgi.txt")
        assert recipe.warnings, name
        assert all(len(warning) < 600 for warning in recipe.warnings), name
