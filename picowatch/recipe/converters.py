"""What a field's text means: a row of the table names one of these converters, or its type does.

A converter returns what it does not understand as it is; the field's limits refuse that. Below are
the values that A1111 writes otherwise than recipes, and the forms: JSON Schemas with patterns for
the texts that a field takes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import Any, Literal

from picowatch.errors import ValueInvalid
from picowatch.recipe.samplers import find_prediction, find_schedule_type
from picowatch.recipe.written import FORBIDDEN, SourceValue, number, plain_number, switch

Converter = Callable[[SourceValue], Any]

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

_NUMBER = r"([-+]?(?:\d{1,10}(?:\.\d{0,9})?|\.\d{1,9}))"
_RANGE = re.compile(rf"\s*{_NUMBER}\s*\.\.\s*{_NUMBER}(?:\s+step\s+{_NUMBER})?\s*")
_SEVERAL = re.compile(r"\[?[\d\s,-]+,[\d\s,-]+\]?")
_COLOUR = re.compile(r"#?([0-9a-f]{6})")
_COLOURS = {"transparent": "", "white": "#ffffff", "black": "#000000"}
_SIZE = re.compile(r"([1-9]\d{1,3})(?:\s*[x×*]\s*([1-9]\d{1,3}))?")
MOST_PHRASE = 300  # characters of what a picture is searched for
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")


def raw(written: SourceValue) -> Any:
    return written.value


def number_in(written: SourceValue) -> Any:
    value = number(written.text)
    return written.value if value is None else value


def switch_in(written: SourceValue) -> Any:
    value = switch(written.text)
    return written.value if value is None else value


def padding_in(written: SourceValue) -> Any:
    """Return a number of pixels; None for off."""
    value = number_in(written)
    return None if written.says_off and value != 0 else value


def word_or_off_in(written: SourceValue) -> Any:
    """Return one of several words; "" for off."""
    return "" if written.says_off else word_in(written)


def format_called(text: str) -> str:
    """Return a file format by its name or its ending: jpg is jpeg."""
    word = text.strip().casefold().removeprefix(".")
    return {"jpg": "jpeg", "tif": "tiff"}.get(word, word)


def named_in(find: Callable[[str], str], written: SourceValue) -> Any:
    """Return what a name means. Raises ValueInvalid."""
    return find(written.text) if isinstance(written.value, str) else written.value


# One of several words, in lower case; what any program's name means.
word_in = partial(named_in, lambda text: text.strip().casefold())
schedule_type_in = partial(named_in, find_schedule_type)
prediction_in = partial(named_in, find_prediction)
noise_in = partial(named_in, lambda text: NOISE_NAMES.get(text.strip().casefold(), text))
format_in = partial(named_in, format_called)


def colour_in(written: SourceValue) -> str | None:
    """Return a colour like "#f4f4f4", "" for transparent; None for what is none."""
    word = written.text.strip().casefold()
    if found := _COLOUR.fullmatch(word):
        return f"#{found[1]}"
    return _COLOURS.get(word)


def ground_in(written: SourceValue) -> str | None:
    """Return a colour like "#f4f4f4", or transparent; None for what is neither."""
    return written.text.strip().casefold() if colour_in(written) == "" else colour_in(written)


def percent_in(written: SourceValue) -> Any:
    return number_in(written.with_value(written.text.strip().removesuffix("%").rstrip()))


def size_in(written: SourceValue) -> str | None:
    """Return a size like 1000x1000, one number for a square; None for what is none."""
    found = _SIZE.fullmatch(written.text.strip().casefold())
    return f"{found[1]}x{found[2] or found[1]}" if found else None


def phrase_in(written: SourceValue) -> str | None:
    """Return what to look for, without spare spaces; None for what has no letters, or too many."""
    words = " ".join(written.text.split())
    if len(words) > MOST_PHRASE or FORBIDDEN.search(words) or not any(map(str.isalnum, words)):
        return None
    return words


def quality_in(written: SourceValue) -> Any:
    """Return a number, or lossless; "" for auto."""
    value = number_in(written)
    if isinstance(value, str):
        value = value.strip().casefold()
    return "" if value == "auto" else value


def seeds_in(written: SourceValue) -> Any:
    """Return one seed, random, a range, or several seeds without repeats. Raises ValueInvalid."""
    if _THOUSANDS.fullmatch(written.text.strip()):
        pieces = written.text.strip().split(",")
        raise ValueInvalid(
            f"seed {','.join(pieces)} is one number, or several? Write {''.join(pieces)} for one "
            f"seed, or [{', '.join(str(int(piece)) for piece in pieces)}] for an image with each."
        )
    seeds, parts = range_in(written.value), written.parts
    if isinstance(seeds, range) and all(0 <= end <= MAX_SEED for end in (seeds[0], seeds[-1])):
        return seeds
    if _SEVERAL.fullmatch(written.text):
        parts = tuple(map(written.with_value, written.text.strip("[] ").split(",")))
    if not parts:
        return seed_in(written)
    found = [seed if isinstance(seed := seed_in(part), int) else part.value for part in parts]
    is_right = all(isinstance(seed, int) for seed in found)
    # Without repeats: their images would be the same.
    return tuple(dict.fromkeys(found) if is_right else found)


def several_seeds(written: SourceValue | None) -> tuple[int, ...] | range | None:
    """Return the seeds if several are written, each of which makes an image; otherwise None."""
    if written is None or not (written.parts or "," in written.text or ".." in written.text):
        return None
    with suppress(ValueInvalid):
        seeds = seeds_in(written)
        return seeds if isinstance(seeds, tuple | range) else None
    return None


def variation_seed_in(written: SourceValue) -> Any:
    """Return a seed; None for one that is drawn."""
    seed = seed_in(written)
    return None if seed == RANDOM else written.value if seed is None else seed


def seed_in(written: SourceValue) -> int | Literal["random"] | None:
    """Return the seed that a value means; None if it is not a seed."""
    text = written.text.strip().casefold()
    if text in (RANDOM, "-1", "\N{MINUS SIGN}1"):
        return RANDOM
    value = number(text)
    return value if isinstance(value, int) and 0 <= value <= MAX_SEED else None


def range_in(value: object) -> Sequence[int | float] | None:
    """Return the numbers of a text like `4..10 step 2`; None for others. Raises ValueInvalid."""
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
    return [scaled / scale if scaled % scale else scaled // scale for scaled in numbers]


# -- A1111's values

# What A1111 calls the files of Real-ESRGAN (modules/realesrgan_model.py).
A1111_UPSCALERS = {
    "R-ESRGAN 4x+": "RealESRGAN_x4plus",
    "R-ESRGAN 4x+ Anime6B": "RealESRGAN_x4plus_anime_6B",
    "R-ESRGAN 2x+": "RealESRGAN_x2plus",
    "R-ESRGAN General 4xV3": "realesr-general-x4v3",
    "R-ESRGAN General WDN 4xV3": "realesr-general-wdn-x4v3",
    "R-ESRGAN AnimeVideo": "realesr-animevideov3",
}
_CALLED = {file: name for name, file in A1111_UPSCALERS.items()}
VAE_ENDING = ".safetensors"  # A1111 finds a VAE by the whole name of its file


def plain_text(value: object) -> str:
    """Return a value as recipes have it, too."""
    return plain_number(value) if isinstance(value, float) else str(value)


def file_name(name: str) -> str:
    """Return a model's name: the file's, whatever its folder."""
    return name.rpartition("/")[2]


def upscaler_name(name: str) -> str:
    """Return an upscaler's name, which A1111 chose for some files."""
    return _CALLED.get(file_name(name), file_name(name))


# -- forms

APART = "[^a-zA-Z0-9+]*"
NUMBER = r"[-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"


def form(kinds: str, pattern: str = "", **more: Any) -> dict[str, Any]:
    """Return the schema of these types, "false" where true is not meant; a text matches wholly."""
    found = {"type": kinds.replace("false", "boolean").split(), **more}
    found |= {"pattern": rf"^\s*(?:{pattern})\s*$"} if pattern else {}
    return found | ({"not": {"const": True}} if "false" in kinds else {})


def in_any_case(names: Iterable[str], more: str = "") -> str:
    """Return a pattern for names in small letters or capitals, with spaces for underscores."""
    either = "|".join(map(_letters, names)).replace("_", "[_ -]")
    return rf"^\s*({either})\s*{more}$"


def spelt(name: str) -> str:
    """Return a pattern for a name in any case, with any signs between its words."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|\+\+", name)
    return APART.join("(?:[pP]{2}|\\+\\+)" if word == "++" else _letters(word) for word in words)


def any_of(names: Iterable[str]) -> str:
    """Return a pattern for one of several names, as `spelt` has them."""
    return f"(?:{'|'.join(dict.fromkeys(map(spelt, names)))})"


def _letters(word: str) -> str:
    return re.sub("[a-zA-Z]", lambda letter: f"[{letter[0].lower()}{letter[0].upper()}]", word)


SWITCH = any_of(("true", "false", "yes", "no", "on", "off", "t", "f", "y", "n", "0", "1"))
OFF = f"(?:|{any_of(('none', 'false', 'no', 'off', 'f', 'n', '0'))})"
SEEDS_FORM = rf"(?:{spelt('random')}|\[?[-\u2212+\d\s,._eE]+\]?(?:\s+step\s+[\d.]+)?)"
