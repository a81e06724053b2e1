"""The files of diffusers folders: which count, which are weights, and whether all are there."""

import os
import re
from pathlib import Path

from picowatch.catalog.headers import read_header
from picowatch.errors import ModelRefused

INDEX = "model_index.json"
PICKLE_ENDINGS = {".bin", ".ckpt", ".pt", ".pth"}
# Stands beside a file that aria2 has not finished, which has its whole size and header at once.
ARIA2 = ".aria2"
WEIGHTS_ENDINGS = {".safetensors"} | PICKLE_ENDINGS
# The parts of a checkpoint, of any family.
_PARTS = (
    *("scheduler", "unet", "transformer", "vae", "processor"),
    *("text_encoder", "text_encoder_2", "text_encoder_3"),
    *("tokenizer", "tokenizer_2", "tokenizer_3"),
)
# diffusers once wrote a variant after the number of a shard.
_WEIGHT_NAMES = tuple(
    re.compile(rf"(diffusion_pytorch_)?model{middle}\.safetensors")
    for variant in ("", r"\.fp16", r"\.bf16")
    for middle in (variant, rf"({variant}-\d{{5}}-of-\d{{5}}|-\d{{5}}-of-\d{{5}}{variant})")
)
_OF_THE_FOLDER = re.compile(r"(diffusion_pytorch_)?model[.-]")
_TEXTS = (".json", ".txt")
# Vocabularies and templates with endings of their own.
_OTHER_TEXTS = ("spiece.model", "tokenizer.model", "chat_template.jinja")
_MAX_TEXT_BYTES = 64_000_000  # a vocabulary of CLIP has 1 to 4 MB, of Gemma 34 MB


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one; False if it cannot be examined.

    Unlike pathlib's, for a folder without permission or a link with an overlong target, too.
    """
    return os.path.isdir(path)  # noqa: PTH112


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one; False if it cannot be examined."""
    return os.path.isfile(path)  # noqa: PTH113


def weight_files(part: Path) -> list[Path]:
    """The safetensors files that hold a part's weights; [] if not found.

    The plain file first, then the plain shards, then those in float16 or bfloat16 alone; other
    variants ("non_ema") are for training.
    """
    files = _safetensors(part)
    for pattern in _WEIGHT_NAMES:
        found = [path for path in files if pattern.fullmatch(path.name)]
        if found:
            return found
    return []


def other_weights(part: Path) -> list[Path]:
    """Files that are models of their own, as xinsir's ProMax beside the union."""
    return [path for path in _safetensors(part) if not _OF_THE_FOLDER.match(path.name)]


def _safetensors(part: Path) -> list[Path]:
    """The safetensors files, sorted, without those that aria2 is still downloading."""
    paths = {path.name: path for path in part.iterdir()}
    return [
        path
        for name, path in sorted(paths.items())
        if path.suffix == ".safetensors" and name + ARIA2 not in paths
    ]


def folder_files(folder: Path) -> dict[str, Path]:
    """The configs, vocabularies and weights of a diffusers folder by relative path, sorted.

    Of a checkpoint folder the index and the parts' folders count, of a VAE folder its own
    files; weights that are not read, previews and safety checkers do not.
    """
    parts = [folder]
    if is_file(folder / INDEX):
        parts = [folder / part for part in _PARTS if is_folder(folder / part)]
    found = [folder / INDEX] if parts != [folder] else []
    for part in parts:
        found += weight_files(part)
        found += (path for path in part.iterdir() if _is_text(path) and not is_folder(path))
    return dict(sorted((path.relative_to(folder).as_posix(), path) for path in found))


def _is_text(path: Path) -> bool:
    return path.suffix in _TEXTS or path.name in _OTHER_TEXTS


def check_files(folder: Path) -> None:
    """Whatever takes part in its hash, or is read with its tokenizer, can be read to its end."""
    for relative, path in folder_files(folder).items():
        if not is_file(path):  # a FIFO or a link to a device, which have no end
            raise ModelRefused(f"cannot be used: {relative} is not a regular file. Remove it.")
        if _is_text(path) and path.stat().st_size > _MAX_TEXT_BYTES:
            raise ModelRefused(
                f"cannot be used: {relative} is too large; the limit is {_MAX_TEXT_BYTES:,} bytes."
            )


def check_weights(part: Path) -> None:
    """A part has whole safetensors weights."""
    weights = weight_files(part)
    for path in weights:
        try:
            read_header(path)
        except ModelRefused as refused:
            raise ModelRefused(
                f"cannot be used: its file {part.name}/{path.name} {refused.message}"
            ) from refused
    if weights:
        _check_shards(part, weights)
        return
    if any(path.suffix in PICKLE_ENDINGS for path in part.iterdir()):
        raise ModelRefused(
            f"has its weights in {part.name}/ only as pickle files (.bin), which can run code: "
            "get the folder's .safetensors files instead, or convert them with `picowatch "
            "convert`, which runs none."
        )
    raise ModelRefused(f"is a diffusers folder without weights in {part.name}/.")


def _check_shards(part: Path, weights: list[Path]) -> None:
    """Check that there are as many shards as their names say."""
    shards = re.search(r"-of-(\d{5})\.", weights[0].name)
    if shards and len(weights) != int(shards[1]):
        raise ModelRefused(
            f"is incomplete: {part.name}/ has {len(weights)} of {int(shards[1])} files of weights. "
            "Download the rest."
        )
