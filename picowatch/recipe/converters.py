"""What a field's text means: a row of the table names one of these converters, or its type does.

A converter returns what it does not understand as it is; the field's limits refuse that.
"""

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal

from picowatch.errors import ValueInvalid
from picowatch.recipe.samplers import find_prediction, find_schedule_type
from picowatch.recipe.written import FORBIDDEN, Written, number, switch

Converter = Callable[[Written], Any]

SEEDS = 2**32
MAX_SEED = SEEDS - 1
# The largest value of the setting max_images_per_save: how many images a save may request.
MOST_IMAGES = 1_000_000
RANDOM: Literal["random"] = "random"
NoiseSource = Literal["cpu", "nvidia"]
NVIDIA: NoiseSource = "nvidia"
SAME = "same"  # as a format: the photo's
# "nv" is A1111's name, "cuda" is stable-diffusion.cpp's.
NOISE_NAMES: dict[str, NoiseSource] = {"cpu": "cpu", NVIDIA: NVIDIA, "nv": NVIDIA, "cuda": NVIDIA}

_ONE_SEED = f"a whole number from 0 to {MAX_SEED}"
_RANDOM_WORDS = {"random", "-1", "\N{MINUS SIGN}1"}
_NUMBER = r"([-+]?(?:\d{1,10}(?:\.\d{0,9})?|\.\d{1,9}))"
_RANGE = re.compile(rf"\s*{_NUMBER}\s*\.\.\s*{_NUMBER}(?:\s+step\s+{_NUMBER})?\s*")
_SEVERAL = re.compile(r"\[?[\d\s,-]+,[\d\s,-]+\]?")
_COLOUR = re.compile(r"#?([0-9a-f]{6})")
_COLOURS = {"transparent": "", "white": "#ffffff", "black": "#000000"}
_SIZE = re.compile(r"([1-9]\d{1,3})(?:\s*[x×*]\s*([1-9]\d{1,3}))?")
MOST_PHRASE = 300  # characters of what a picture is searched for
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")


class Wrong(ValueInvalid):
    """Values that a field cannot have; `wanted` says what the field takes there, if not its row."""

    def __init__(self, *found: Written, wanted: str | None = None) -> None:
        super().__init__("a wrong value")
        self.found, self.wanted = found, wanted


def raw(written: Written) -> Any:
    return written.value


def text(written: Written) -> str:
    """Return text. Raises Wrong for anything else."""
    if not isinstance(written.value, str):
        raise Wrong(written)
    return written.value


def number_in(written: Written) -> Any:
    value = number(written.text)
    return written.value if value is None else value


def switch_in(written: Written) -> Any:
    value = switch(written.text)
    return written.value if value is None else value


def padding_in(written: Written) -> Any:
    """Return a number of pixels; None for off."""
    value = number_in(written)
    return None if written.is_off or (switch_in(written) is False and value != 0) else value


def word_in(written: Written) -> Any:
    """Return one of several words, in lower case."""
    return written.text.strip().casefold() if isinstance(written.value, str) else written.value


def schedule_type_in(written: Written) -> str:
    """Return the schedule type of any program's name. Raises ValueInvalid."""
    return find_schedule_type(text(written))


def prediction_in(written: Written) -> str:
    """Return what a checkpoint predicts, by any program's name. Raises ValueInvalid."""
    return find_prediction(text(written))


def noise_in(written: Written) -> Any:
    """Return the source of noise, by any program's name."""
    return NOISE_NAMES.get(written.text.strip().casefold(), written.value)


def format_in(written: Written) -> Any:
    """Return a file format by its name or its ending: jpg is jpeg."""
    word = str(word_in(written)).removeprefix(".")
    return "jpeg" if word == "jpg" else word


def colour_in(written: Written) -> str | None:
    """Return a colour like "#f4f4f4", "" for transparent; None for what is none."""
    word = written.text.strip().casefold()
    if found := _COLOUR.fullmatch(word):
        return f"#{found[1]}"
    return _COLOURS.get(word)


def percent_in(written: Written) -> Any:
    """Return a number with or without a per cent sign."""
    return number_in(written.with_value(written.text.strip().removesuffix("%").rstrip()))


def size_in(written: Written) -> str | None:
    """Return a size like 1000x1000, one number for a square; None for what is none."""
    found = _SIZE.fullmatch(written.text.strip().casefold())
    return f"{found[1]}x{found[2] or found[1]}" if found else None


def phrase_in(written: Written) -> str | None:
    """Return what to look for, without spare spaces; None for what has no letters, or too many."""
    words = " ".join(written.text.split())
    if len(words) > MOST_PHRASE or FORBIDDEN.search(words) or not any(map(str.isalnum, words)):
        return None
    return words


def quality_in(written: Written) -> Any:
    """Return a number, or lossless; "" for auto."""
    value = number_in(written)
    if isinstance(value, str):
        value = value.strip().casefold()
    return "" if value == "auto" else value


def seeds_in(written: Written) -> int | str | tuple[int, ...] | range:
    """Return one seed, random, a range, or several seeds without repeats. Raises ValueInvalid."""
    if _THOUSANDS.fullmatch(written.text.strip()):
        pieces = written.text.strip().split(",")
        raise ValueInvalid(
            f"seed {','.join(pieces)} is one number, or several? Write {''.join(pieces)} for one "
            f"seed, or [{', '.join(str(int(one)) for one in pieces)}] for an image with each."
        )
    seeds, parts = range_in(written.value), written.parts
    if isinstance(seeds, range) and all(0 <= end <= MAX_SEED for end in (seeds[0], seeds[-1])):
        return seeds
    if _SEVERAL.fullmatch(written.text):
        parts = tuple(map(written.with_value, written.text.strip("[] ").split(",")))
    if not parts:
        return _seed_in(written)
    found = [(part, seed_in(part)) for part in parts]
    if wrong := [part for part, seed in found if not isinstance(seed, int)]:
        raise Wrong(*wrong, wanted=_ONE_SEED)
    # Without repeats: their images would be the same.
    return tuple(dict.fromkeys(seed for _, seed in found if isinstance(seed, int)))


def several_seeds(written: Written | None) -> tuple[int, ...] | range | None:
    """Return the seeds if several are written, each of which makes an image; otherwise None."""
    if written is None or not (written.parts or "," in written.text or ".." in written.text):
        return None
    with suppress(ValueInvalid):
        seeds = seeds_in(written)
        return seeds if isinstance(seeds, tuple | range) else None
    return None


def variation_seed_in(written: Written) -> int | None:
    """Return a seed; None for one that is drawn. Raises Wrong."""
    seed = _seed_in(written)
    return seed if isinstance(seed, int) else None


def _seed_in(written: Written) -> int | str:
    seed = seed_in(written)
    if seed is None:
        raise Wrong(written)
    return seed


def seed_in(written: Written) -> int | Literal["random"] | None:
    """Return the seed that a value means; None if it is not a seed."""
    text = written.text.strip().casefold()
    if text in _RANDOM_WORDS:
        return RANDOM
    value = number(text)
    return value if isinstance(value, int) and 0 <= value <= MAX_SEED else None


def range_in(value: object) -> Sequence[int | float] | None:
    """Return the numbers of a text like `4..10 step 2`, ends included, upwards or downwards.

    Returns None for other values. Raises ValueInvalid for a step of 0, and for too many fractions.
    """
    found = _RANGE.fullmatch(value) if isinstance(value, str) else None
    if not found:
        return None
    texts = [text or "1" for text in found.groups()]
    scale = 10 ** max(len(text.partition(".")[2]) for text in texts)
    first, last, step = (int(Decimal(text) * scale) for text in texts)
    if not step:
        raise ValueInvalid("a range's step must not be 0.")
    sign = 1 if last >= first else -1
    numbers = range(first, last + sign, sign * abs(step))
    if not first % scale and not step % scale:  # whole numbers, perhaps billions of them
        return range(first // scale, numbers[-1] // scale + sign, numbers.step // scale)
    if len(numbers) > MOST_IMAGES:
        raise ValueInvalid(f"a range has {len(numbers):,} numbers; the limit is {MOST_IMAGES:,}.")
    return [one / scale if one % scale else one // scale for one in numbers]
