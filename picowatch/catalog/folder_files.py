"""The files of diffusers folders: which of them count, whether all are there, and their configs.

Schedulers get only the known keys of their configs: nobody has checked what diffusers does with
others.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from picowatch.catalog.dequantise import check_quantisation, packed_weights
from picowatch.catalog.headers import read_header, small_json
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES, from_text, row_of_pipeline
from picowatch.files.safe_paths import is_file, is_folder, open_regular
from picowatch.recipe.messages.problems import shown

INDEX, MODULAR_INDEX = "model_index.json", "modular_model_index.json"
PICKLE_ENDINGS = {".bin", ".ckpt", ".pt", ".pth"}
ARIA2 = ".aria2"  # beside an unfinished file of aria2, which has its whole size and header at once
WEIGHTS_ENDINGS = {".safetensors"} | PICKLE_ENDINGS
# The names of the parts that the folder of any family with a row may have.
_PARTS = {part for row in FAMILIES.values() for part in row.parts}
# diffusers once wrote a variant after the number of a shard.
_WEIGHT_NAMES = tuple(
    re.compile(rf"(diffusion_pytorch_)?model{middle}\.safetensors")
    for variant in ("", r"\.fp16", r"\.bf16")
    for middle in (variant, rf"({variant}-\d{{5}}-of-\d{{5}}|-\d{{5}}-of-\d{{5}}{variant})")
)
_SHARD = re.compile(r"-of-(\d{5})")
_TEXTS = (".json", ".txt")
# Vocabularies and templates with endings of their own.
_OTHER_TEXTS = ("spiece.model", "tokenizer.model", "chat_template.jinja")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_MAX_TEXT_BYTES = 64_000_000  # a vocabulary of CLIP has 1 to 4 MB, of Gemma 34 MB
# Limits for configs. They are strangers' files: a single large number costs gigabytes or minutes
# before the first weight is read.
_MAX_BYTES = 1_000_000
_MOST_LAYERS = 200
_MOST_ENTRIES = 1_000  # of a list
_MOST_STEPS = 10_000
_MOST = 100_000_000
_DEPTHS = ("layers", "blocks", "depth")

# The settings of diffusers' schedulers that are about the model.
_OF_THE_MODEL = """
    num_train_timesteps beta_start beta_end beta_schedule trained_betas prediction_type
    clip_sample clip_sample_range set_alpha_to_one skip_prk_steps steps_offset timestep_spacing
    rescale_betas_zero_snr thresholding dynamic_thresholding_ratio sample_max_value
"""
# In Stability's configs, such as v2-inference-v.yaml.
_VELOCITY = re.compile(
    rb"""^[ \t]*parameterization[ \t]*:[ \t]*["']?v["']?[ \t]*(#.*)?\r?$""", re.MULTILINE
)


def index_of(folder: Path) -> Path:
    """Return the index of a whole diffusers folder; of two, that of a classic pipeline."""
    modular = folder / MODULAR_INDEX
    return modular if is_file(modular) and not is_file(folder / INDEX) else folder / INDEX


def has_index(folder: Path) -> bool:
    """Return whether a folder is a whole diffusers folder, not a single part."""
    return is_file(index_of(folder))


def read_index(folder: Path) -> dict[str, Any]:
    """Return the index of a diffusers folder, with [library, class] for each part.

    Modular pipelines have a third value: where to load the part from. Its type hint is the class
    even where the first two are null. Raises ModelRefused if the index is missing or damaged.
    """
    index = read_json(index_of(folder))
    for part, entry in index.items():
        if isinstance(entry, list) and len(entry) == 3 and isinstance(entry[2], dict):
            index[part] = entry[2].get("type_hint") or entry
    return index


def weight_files(part: Path) -> list[Path]:
    """Return the safetensors files with a part's weights; [] if there are none.

    The plain file is preferred, then plain shards, then float16 and bfloat16; other variants
    ("non_ema") are for training. Those that aria2 is still downloading do not count.
    """
    paths = {path.name: path for path in part.iterdir()}
    names = [name for name in sorted(paths) if name + ARIA2 not in paths]
    for pattern in _WEIGHT_NAMES:
        if found := [paths[name] for name in names if pattern.fullmatch(name)]:
            return found
    return []


def folder_files(folder: Path) -> dict[str, Path]:
    """Return the configs, vocabularies and weights of a diffusers folder by path, sorted.

    For a checkpoint these are the index and the files in the parts' folders, for a VAE its own
    files; weights that are not read, previews and safety checkers do not count.
    """
    parts, found = [folder], list[Path]()
    if has_index(folder):
        names: Iterable[str] = _PARTS
        with suppress(ModelRefused):
            pipeline = str(read_json(folder / INDEX).get("_class_name"))
            if row_of_pipeline(pipeline) is None:
                names = FAMILIES[from_text(pipeline)].parts
        parts = [folder / part for part in names if is_folder(folder / part)]
        found = [index_of(folder)]
    for part in parts:
        found += weight_files(part)
        found += (path for path in part.iterdir() if _is_text(path) and not is_folder(path))
    return dict(sorted((path.relative_to(folder).as_posix(), path) for path in found))


def _is_text(path: Path) -> bool:
    return path.suffix in _TEXTS or path.name in _OTHER_TEXTS


def check_files(folder: Path) -> None:
    """Raise ModelRefused unless all files that are hashed or read are regular, and texts small."""
    for relative, path in folder_files(folder).items():
        if not is_file(path):  # a FIFO, or a link to an endless device
            raise ModelRefused(f"cannot be used: {relative} is not a regular file. Remove it.")
        if _is_text(path) and path.stat().st_size > _MAX_TEXT_BYTES:
            raise ModelRefused(
                f"cannot be used: {relative} is too large; the limit is {_MAX_TEXT_BYTES:,} bytes."
            )


def check_weights(part: Path, remedy: str = "Download the rest.") -> None:
    """Raise ModelRefused unless the part has complete safetensors weights."""
    weights = weight_files(part)
    for path in weights:
        try:
            read_header(path)
        except ModelRefused as refused:
            raise ModelRefused(
                f"cannot be used: its file {part.name}/{path.name} {refused.message}"
            ) from refused
    if weights:
        counts = sorted({found[1] for path in weights if (found := _SHARD.search(path.name))})
        if len(counts) > 1:
            raise ModelRefused(
                f"cannot be used: {part.name}/ has files of two downloads, …-of-{counts[0]} and "
                f"…-of-{counts[1]}. Remove the older ones."
            )
        if counts and len(weights) != int(counts[0]):
            raise ModelRefused(
                f"is incomplete: {part.name}/ has {len(weights)} of {int(counts[0])} files of "
                f"weights. {remedy[0].upper()}{remedy[1:]}"
            )
        return
    if any(path.suffix in PICKLE_ENDINGS for path in part.iterdir()):
        raise ModelRefused(
            f"has its weights in {part.name}/ only as pickle files (.bin), which can run code: "
            "get the folder's .safetensors files instead, or convert them with `picowatch "
            "convert`, which runs none."
        )
    if any(path.name.endswith(".safetensors.index.json") for path in part.iterdir()):
        raise ModelRefused(f"has only the index of the weights in {part.name}/: {remedy}")
    raise ModelRefused(f"is a diffusers folder without weights in {part.name}/.")


def check_vocabulary(folder: Path) -> None:
    """Raise ModelRefused without a vocabulary: transformers would silently make a vocabulary."""
    if not any(is_file(folder / name) for name in _VOCABULARIES):
        raise ModelRefused(
            f"is a folder without a vocabulary in {folder.name}/ "
            "(tokenizer.json, or vocab.json, or spiece.model): copy the whole folder."
        )


def read_config(path: Path) -> dict[str, Any]:
    """Return a config. Raises ModelRefused if it is missing, damaged or beyond the limits."""
    config = read_json(path)
    if told := config.get("quantization_config"):
        check_quantisation(told)
        packed_weights(map(read_header, weight_files(path.parent)))
    _check_numbers(f"{path.parent.name}/{path.name}", config | {"quantization_config": None})
    return config


def read_schedule(folder: Path) -> dict[str, Any]:
    """Return the settings of a scheduler's config that are about the model. Raises ModelRefused."""
    name = "scheduler_config.json"
    return known_values(f"{folder.name}/{name}", read_json(folder / name), _OF_THE_MODEL)


def known_values(name: str, values: dict[str, Any], keys: str) -> dict[str, Any]:
    """Return a config's values of these keys. Raises ModelRefused beyond the limits."""
    known = {key: values[key] for key in keys.split() if key in values}
    _check_numbers(name, known)
    return known


def says_velocity(config: Path) -> bool:
    """Return whether the config beside a checkpoint's file says that its UNet predicts velocity."""
    try:
        with open_regular(config) as file:
            return bool(_VELOCITY.search(file.read(_MAX_BYTES)))
    except OSError:
        return False


def read_json(path: Path) -> dict[str, Any]:
    """Return the JSON object in a small file. Schedulers' configs may contain -Infinity."""
    name = f"{path.parent.name}/{path.name}"
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ValueError(f"it is too large; the limit is {_MAX_BYTES:,} bytes")
        values = small_json(content)
        if not isinstance(values, dict):
            raise ValueError("it does not contain a JSON object")
    except FileNotFoundError as error:
        raise ModelRefused(f"is incomplete: {name} is missing.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelRefused(f"is damaged: {name} cannot be read ({error}).") from error
    return values


def _check_numbers(where: str, value: Any, key: str = "") -> None:
    """Raise ModelRefused for a config whose model would take too much memory or time to create."""
    says = f"cannot be used: {where} says {shown(key)}"
    if isinstance(value, dict):
        for name, part in value.items():
            _check_numbers(where, part, str(name))
    elif isinstance(value, list):
        if len(value) > _MOST_ENTRIES:
            raise ModelRefused(
                f"{says} with {len(value):,} entries; the limit is {_MOST_ENTRIES:,}."
            )
        for part in value:
            _check_numbers(where, part, key)
    elif isinstance(value, int | float):
        most = _MOST_STEPS if key == "num_train_timesteps" else _MOST
        most = _MOST_LAYERS if any(word in key for word in _DEPTHS) else most
        if not -most <= value <= most:
            raise ModelRefused(f"{says}: {shown(str(value))}; the limit is {most:,}.")
    if key == "quantization_config" and value:
        raise ModelRefused("is quantised in a part (quantization_config): get it in bfloat16.")
