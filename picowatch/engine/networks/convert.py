"""Writes the weights of a file by torch.save as safetensors, bit for bit.

PyTorch reads the file without running code in it (`torch.load(weights_only=True)`). From a file
that a trainer saved, only the weights that authors publish are kept.
"""

import re
import warnings
import zipfile
from contextlib import suppress
from os.path import lexists
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from picowatch.catalog.headers import refuse_foreign
from picowatch.errors import CommandFailed, ModelRefused
from picowatch.files.atomic import rename, sync_file, temporary_beside
from picowatch.files.safe_paths import open_regular

ENDING = ".safetensors"
_ZIP = b"PK\x03\x04"
# The keys under which trainers save weights beside other things, the better first: BasicSR's
# mean over the training (Real-ESRGAN) and its last state, Lightning's, others', A1111's embeddings.
_WITHIN = (
    *("params_ema", "params-ema", "params", "state_dict", "model_state_dict", "model", "net"),
    "string_to_param",
)
_MOST_WITHIN = 4
_PARALLEL = "module."  # before every name where a model was trained on several GPUs
_MOST_COPIES = 4  # of tensors that share memory: some weights have two names, but not many
# The two files of a tiny VAE, as its author publishes them, and a layer of both.
_HALF = re.compile(r"(.+)_(?:encoder|decoder)(\.\w+)")
_LAYER_OF_HALVES = "3.conv.0.weight"
_NAMED = re.compile(r"GLOBAL (\S+) was not an allowed global")
_NOT_RUN = "Nothing of it was run. Get the model from its author, as .safetensors if there is one."
Tensors = dict[str, torch.Tensor]


class _Ignored:
    """A stand-in for values that trainers save beside the weights."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


_IGNORED = (  # Lightning's callbacks, and the numbers that they keep
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)


def files_with(path: Path) -> tuple[Path, ...]:
    """Return what becomes one file with `path`: a tiny VAE's encoder and decoder, or it alone."""
    half = _HALF.fullmatch(path.name)
    if half is None or path.suffix == ENDING or _LAYER_OF_HALVES not in _read(path):
        return (path,)
    both = tuple(path.with_name(f"{half[1]}_{coder}{half[2]}") for coder in ("encoder", "decoder"))
    for file in both:
        if not file.exists():
            raise ModelRefused("is half of a tiny VAE.", f"Put {file.name} beside it.")
    return both


def convert(*files: Path, force: bool = False) -> Path:
    """Write what `files_with` found as safetensors in the same folder, and return the new file.

    Nothing is overwritten without `force`. Raises ModelRefused or CommandFailed.
    """
    old = files[0]
    # transformers has different names for pickles and safetensors.
    name = re.sub("^pytorch_model", "model", old.name)
    if len(files) > 1:
        name = re.sub("_?encoder", "", name)
    new = old.with_name(name).with_suffix(ENDING)
    if new == old:
        raise CommandFailed(f"{old} is a safetensors file already.", "Nothing has to be done.")
    if lexists(new) and not force:
        raise CommandFailed(f"{new} exists.", "With --force it is replaced.")
    read = [*map(_read, files)]
    tensors = _joined(*read) if len(read) > 1 else read[0]
    try:
        _write(new, tensors)
    except OSError as error:
        raise CommandFailed(f"{new} cannot be written: {error.strerror}.") from error
    return new


def _read(path: Path) -> Tensors:
    try:
        return _separate(_weights_in(_loaded(path)), path.stat().st_size)
    except OSError as error:
        raise ModelRefused(f"cannot be read: {error.strerror or error}.") from error


def _joined(encoder: Tensors, decoder: Tensors) -> Tensors:
    """Return a tiny VAE in diffusers' names, which do not count the first layer of its decoder."""
    joined = {f"encoder.layers.{name}": tensor for name, tensor in encoder.items()}
    for name, tensor in decoder.items():
        layer, _, rest = name.partition(".")
        if not layer.isdecimal():
            raise ModelRefused(f"is not the half of a tiny VAE: its decoder has {name!r}.")
        joined[f"decoder.layers.{int(layer) - 1}.{rest}"] = tensor
    return joined


def _loaded(path: Path) -> Any:
    """Load a file's content; the tensors of a zip are mapped, not read."""
    with open_regular(path) as file:
        start = file.read(64)
    refuse_foreign(start, path.stat().st_size)
    if start[8:9] == b"{":  # behind the length of a header
        raise ModelRefused("is a safetensors file already: rename it to .safetensors.")
    zipped = start.startswith(_ZIP)
    if not zipped and not start.startswith(b"\x80"):
        raise ModelRefused("is not a PyTorch file, or one older than PyTorch 0.2.")
    try:
        if zipped:
            _check_zip(path)
        ignored: Any = [(_Ignored, name) for name in _IGNORED]
        with torch.serialization.safe_globals(ignored), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd protocols, whose errors are reported below
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except ModelRefused:
        raise
    except Exception as error:  # both may raise anything for untrusted bytes
        said = str(error)
        if (name := _NAMED.search(said)) or "nsupported" in said or "blocked" in said:
            what = f": it names {name[1][:80]!r}" if name else ""
            raise ModelRefused(f"contains more than numbers{what}.", _NOT_RUN) from error
        words = "is damaged, or not a PyTorch file of weights."
        raise ModelRefused(words, "Get the file again.") from error


def _check_zip(path: Path) -> None:
    """Raise unless all entries are intact and uncompressed, since they are memory-mapped."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.filename.endswith("constants.pkl") for entry in entries):
            words = "is a program (TorchScript), not a file of weights."
            raise ModelRefused(words, "Get the weights.")
        packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
        if packed or archive.testzip():
            raise zipfile.BadZipFile("its numbers are not as written")


def _weights_in(content: Any) -> Tensors:
    """Return the named tensors of a file's content. Raises ModelRefused if it has none."""
    for _ in range(_MOST_WITHIN):
        if not isinstance(content, dict):
            break
        inner = [content[name] for name in _WITHIN if isinstance(content.get(name), dict)]
        if len(content) == 1:
            inner += [value for value in content.values() if isinstance(value, dict)]
        content = inner[0] if inner else content
    named = content.items() if isinstance(content, dict) else ()
    tensors = {
        name: value.detach()
        for name, value in named
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ModelRefused("holds no tensors.")
    if any(tensor.layout != torch.strided or tensor.is_quantized for tensor in tensors.values()):
        raise ModelRefused("has tensors that are not plain numbers (sparse or quantised).")
    if len(tensors) == 1:  # an embedding, whatever it was called
        return {"emb_params": tensors.popitem()[1]}
    if all(name.startswith(_PARALLEL) for name in tensors):
        return {name.removeprefix(_PARALLEL): value for name, value in tensors.items()}
    return tensors


def _separate(tensors: Tensors, size: int) -> Tensors:
    """Return the tensors without shared memory. ModelRefused if a small file claims many."""
    if sum(tensor.nbytes for tensor in tensors.values()) > _MOST_COPIES * size:
        raise ModelRefused("is not a file of weights: its tensors repeat the same numbers.")
    seen: set[int] = set()
    found = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage().data_ptr()
        found[name] = tensor.clone() if storage in seen else tensor
        found[name] = found[name].contiguous()
        seen.add(storage)
    return found


def _write(new: Path, tensors: Tensors) -> None:
    temporary = temporary_beside(new)
    try:
        temporary.touch()  # with the mode of the umask; safetensors sets a stricter mode
        mode = temporary.stat().st_mode
        save_file(tensors, temporary, {"format": "pt"})
        with suppress(OSError):  # on FAT and others without permissions all may read
            temporary.chmod(mode)
        with temporary.open("rb") as file:
            sync_file(file)
        rename(temporary, new)
    except (SafetensorError, LookupError, ValueError, TypeError) as error:
        raise ModelRefused("has a name or a type that safetensors does not allow.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
