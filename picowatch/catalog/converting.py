"""Writes the tensors of a file by torch.save as safetensors, bit for bit.

The weights alone: of a training's files those that its author publishes. The format:
https://github.com/huggingface/safetensors#format.
"""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from picowatch.catalog.headers import MAX_TENSORS
from picowatch.catalog.torch_files import TorchFile, torch_file
from picowatch.catalog.torch_pickles import ITEM_BYTES, Tensor
from picowatch.errors import CommandFailed, ModelRefused
from picowatch.files.atomic import copy_atomically

ENDING = ".safetensors"
# Where trainers keep the weights beside other things, the better ones first: BasicSR's average
# over the training (Real-ESRGAN) and its last state, Lightning's, others', A1111's embeddings.
_WITHIN = (
    *("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net"),
    "string_to_param",
)
_MOST_WITHIN = 4
# Before every name where a model was trained on several GPUs, or as a part of a pair.
_PREFIXES = ("module.", "netG.")
# Views of one memory become copies: some weights have two names, but not many.
_MOST_COPIES = 4


class Converted(NamedTuple):
    """The new file, how many tensors it has, and its bytes."""

    path: Path
    tensors: int
    size: int


def convert(old: Path, *, force: bool = False) -> Converted:
    """Write `old` beside it as safetensors; ModelRefused or CommandFailed says why it cannot be.

    Nothing is overwritten without `force`.
    """
    # transformers' name for pickles is another one than for safetensors.
    new = old.with_name(re.sub("^pytorch_model", "model", old.name)).with_suffix(ENDING)
    if new == old:
        raise CommandFailed(f"{old} is a safetensors file already.", "Nothing has to be done.")
    if new.exists() and not force:
        raise _exists(new)
    with torch_file(old) as file:
        tensors = weights_in(file.content)
        size = sum(tensor.size for tensor in tensors.values())
        if size > _MOST_COPIES * file.size:
            raise ModelRefused("is no file of weights: its tensors repeat the same numbers.")
        try:
            copy_atomically(new, _blocks(new, file, tensors, force=force))
        except OSError as error:
            raise CommandFailed(f"{new} cannot be written: {error.strerror}.") from error
    return Converted(new, len(tensors), new.stat().st_size)


def weights_in(content: Any) -> dict[str, Tensor]:
    """The named tensors of a file's content; ModelRefused if it has none."""
    for _ in range(_MOST_WITHIN):
        inner = _inner(content)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        raise ModelRefused(
            "is a list of tensors without names, which cannot be converted."
            if isinstance(content, list | tuple)
            else "holds no tensors."
        )
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelRefused("holds no tensors.")
    if len(tensors) == 1:  # an embedding, whatever it was called
        return {"emb_params": tensors.popitem()[1]}
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    _check_names(tensors)
    # The widest numbers first: each then begins at a multiple of its size.
    return dict(sorted(tensors.items(), key=lambda pair: -ITEM_BYTES[pair[1].type]))


def _inner(content: Any) -> dict[str, Any] | None:
    """The dictionary within in which the weights are; None if they are here."""
    if not isinstance(content, dict):
        return None
    for name in _WITHIN:
        if isinstance(content.get(name), dict):
            return dict(content[name])
    only = next(iter(content.values())) if len(content) == 1 else None
    return only if isinstance(only, dict) else None


def _check_names(tensors: dict[str, Tensor]) -> None:
    if len(tensors) > MAX_TENSORS:
        raise ModelRefused(f"has {len(tensors):,} tensors; the limit is {MAX_TENSORS:,}.")
    for name in tensors:
        if name == "__metadata__" or any("\ud800" <= letter <= "\udfff" for letter in name):
            raise ModelRefused("has a tensor with a name that safetensors does not allow.")


def _blocks(
    new: Path, file: TorchFile, tensors: dict[str, Tensor], *, force: bool
) -> Iterator[bytes]:
    """The file's bytes; at their end its name must still be free."""
    yield from _safetensors(file, tensors)
    if new.exists() and not force:
        raise _exists(new)


def _exists(new: Path) -> CommandFailed:
    return CommandFailed(f"{new} exists.", "With --force it is replaced.")


def _safetensors(file: TorchFile, tensors: dict[str, Tensor]) -> Iterator[bytes]:
    """The file's bytes: the header's length, the header, the tensors in its order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.type,
            "shape": tensor.shape,
            "data_offsets": [at, at + tensor.size],
        }
        at += tensor.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in tensors.values():
        yield from file.blocks(tensor)
