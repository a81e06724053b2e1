"""Recognises diffusers folders of families that step along a flow from noise to picture.

An allowlist: which classes of diffusers and transformers each part may have. The engine loads
these and no others, whatever else a folder names or brings along.
"""

import re
from pathlib import Path
from typing import Any

from picowatch.catalog.configs import read_json, refuse_beyond
from picowatch.catalog.folder_files import (
    INDEX,
    WEIGHTS_ENDINGS,
    check_files,
    check_weights,
    is_file,
    is_folder,
)
from picowatch.catalog.models import Recognised
from picowatch.errors import ModelRefused
from picowatch.families import Family, row_of_pipeline
from picowatch.recipe.messages.problems import shown

NATIVE_SIZE = 1024
_MOST_PIXELS = 2048  # of a side in a recipe
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
# Of numbers in configs: more would take gigabytes or minutes before the first weight is read.
_MOST_LAYERS = 200
_MOST_ENTRIES = 1_000
_MOST_STEPS = 10_000
_MOST = 100_000_000
_DEPTHS = ("layers", "blocks", "depth")


_FROM_PICTURES = re.compile("(Img2Img|Inpaint)(?=Pipeline$)")


def from_text(pipeline: str) -> str:
    """The pipeline without start images and masks.

    Those with them have the same parts: scripts save folders under their names.
    """
    return _FROM_PICTURES.sub("", pipeline)


def recognise_pipeline(folder: Path, row: Family) -> Recognised:
    """A whole folder of this family; ModelRefused says what is missing or not supported."""
    check_files(folder)
    for part in classes_of(folder):
        if part.startswith("tokenizer"):
            _check_vocabulary(folder / part)
        elif part == "scheduler":
            name, key = "scheduler_config.json", "num_train_timesteps"
            check_numbers(f"{part}/{name}", read_json(folder / part / name).get(key), key)
        else:
            if part != "transformer" or not only_lends(folder):
                check_weights(folder / part)
            check_numbers(f"{part}/config.json", read_json(folder / part / "config.json"))
    transformer = read_json(folder / "transformer" / "config.json")
    index = read_json(folder / INDEX)
    for setting, value in row.settings.items():
        if index.get(setting) not in (value, None):
            raise ModelRefused(
                f"cannot be used: {INDEX} says {setting}: {shown(str(index[setting]))}; "
                f"only {value} is supported."
            )
    named = row.folders[from_text(str(index["_class_name"]))]
    side = row.native_size
    if row.latent_pixels:
        size = transformer.get("sample_size")
        size = size if isinstance(size, int) and size > 0 else 0
        side = min(row.latent_pixels * size, _MOST_PIXELS)
    variant = named or _variant(row, index, transformer)
    return Recognised("checkpoint", row.key, side or NATIVE_SIZE, variant=variant)


def only_lends(folder: Path) -> bool:
    """Whether a folder has no weights in transformer/: it may complete transformer files."""
    return not any(path.suffix in WEIGHTS_ENDINGS for path in (folder / "transformer").iterdir())


def classes_of(folder: Path) -> dict[str, str]:
    """The class of each part that is loaded; ModelRefused for one that is not in the allowlist."""
    index = read_json(folder / INDEX)
    row = row_of_pipeline(from_text(str(index.get("_class_name"))))
    found: dict[str, str] = {}
    if row is None:
        raise ModelRefused("is a diffusers folder of an unknown pipeline.")
    for part, allowed in row.parts.items():
        encoder = encoder_of(part)
        if encoder in row.optional and _class_name(index, encoder) is None:
            continue
        name = _class_name(index, part)
        if name not in allowed:
            raise ModelRefused(
                f"is a diffusers folder whose {part} is {shown(str(name))}, not {allowed[0]}: "
                "not supported."
            )
        if not is_folder(folder / part):
            may_lack = part in row.optional and part == encoder
            null = f", or write [null, null] for it in {INDEX}" if may_lack else ""
            raise ModelRefused(
                f"is a diffusers folder without {part}/: copy the whole folder{null}."
            )
        found[part] = str(name)
    return found


def encoder_of(part: str) -> str:
    """The text encoder that reads what this tokenizer gives; other parts are their own."""
    return part.replace("tokenizer", "text_encoder")


def _class_name(index: dict[str, Any], part: str) -> str | None:
    """What stands in the index: ["library", "class"], or [null, null]."""
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _variant(row: Family, index: dict[str, Any], transformer: dict[str, Any]) -> str:
    """What the index and the transformer's config tell; "" where the name has to."""
    settings = index | {f"transformer/{name}": value for name, value in transformer.items()}
    for variant, told in row.by_config:
        if all(settings.get(name) == value for name, value in told.items()):
            return variant
    return ""


def _check_vocabulary(folder: Path) -> None:
    """transformers makes up a vocabulary where it finds none, without a word."""
    if not any(is_file(folder / name) for name in _VOCABULARIES):
        raise ModelRefused(
            f"is a diffusers folder without a vocabulary in {folder.name}/ "
            "(tokenizer.json, or vocab.json, or spiece.model): copy the whole folder."
        )


def check_numbers(where: str, value: Any, key: str = "") -> None:
    """Refuse a config with which making the model takes too much memory or time."""
    most = _MOST_STEPS if key == "num_train_timesteps" else _MOST
    most = _MOST_LAYERS if any(word in key for word in _DEPTHS) else most
    refuse_beyond(f"{where} says {shown(key)}", value, most, _MOST_ENTRIES)
    if isinstance(value, dict):
        for name, part in value.items():
            check_numbers(where, part, str(name))
    elif isinstance(value, list):
        for part in value:
            check_numbers(where, part, key)
    if key == "quantization_config" and value:
        raise ModelRefused("is quantised (quantization_config): not supported. Get it in bfloat16.")
