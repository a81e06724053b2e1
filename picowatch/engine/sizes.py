"""How large a checkpoint is in memory, from the headers of its files."""

from collections.abc import Iterator
from math import prod
from pathlib import Path

from picowatch.catalog import Model, weight_files
from picowatch.catalog.gguf import BLOCKS, GGUF, read_any_header, stays_quantised
from picowatch.catalog.transformer_files import parts_of
from picowatch.engine.memory import Weights
from picowatch.families import FAMILIES, FLOWS

_UNET_PARTS = ("text_encoder", "text_encoder_2", "unet", "vae")
_VAE = ("vae", "first_stage_model.")
_ENCODERS = ("text_encoder", "cond_stage_model.", "conditioner.")
_COPIES = "model_ema."  # of the UNet's weights; never loaded


def weights_of(model: Model, bytes_each: int) -> Weights:
    """The bytes of its parts, `bytes_each` of which hold one number."""
    bytes_of = {"vae": 0.0, "encoders": 0.0, "denoiser": 0.0}
    for name, size in _tensors(model, bytes_each):
        if name.startswith(_VAE):
            bytes_of["vae"] += size
        elif name.startswith(_ENCODERS):
            bytes_of["encoders"] += size
        elif not name.startswith(_COPIES):
            bytes_of["denoiser"] += size
    sizes = {part: int(size) for part, size in bytes_of.items()}
    row = FAMILIES[model.family]
    return Weights(**sizes, takes_turns=row.kind == "flow" and not row.short)


def numbers_in(model: Model) -> int:
    """How many numbers the weights of a single part are."""
    files = weight_files(model.path) if model.layout == "folder" else [model.path]
    shapes = (shape for file in files for shape in read_any_header(file).shapes.values())
    return sum(map(prod, shapes))


def _tensors(model: Model, bytes_each: int) -> Iterator[tuple[str, float]]:
    """Each tensor's name, which begins with its part's, and how many bytes it takes."""
    for part, file, prefix in _files(model):
        header = read_any_header(file)
        for name, shape in header.shapes.items():
            if not name.startswith(prefix):
                continue
            kind = header.types[name]
            quantised = file.suffix.lower() == GGUF and stays_quantised(name, kind, shape)
            block, size = BLOCKS[kind] if quantised else (1, bytes_each)
            yield f"{part}{name.removeprefix(prefix)}", prod(shape) / block * size


def _files(model: Model) -> Iterator[tuple[str, Path, str]]:
    """What stands before a part's tensors here, a file of its weights, and what stands there."""
    if model.family in FLOWS:
        for part in parts_of(model):
            for file in [part.weights] if part.weights else weight_files(part.folder):
                yield f"{part.name}/", file, part.prefix
    elif model.layout == "file":
        yield "", model.path, ""
    else:
        for name in _UNET_PARTS:
            if (folder := model.path / name).is_dir():
                for file in weight_files(folder):
                    yield f"{name}/", file, ""
