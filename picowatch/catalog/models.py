"""The results of a scan: usable models and refused files, as plain values."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Literal, get_args

from picowatch.recipe.inventory import MODEL_FOLDERS

Kind = Literal[
    "checkpoint", "vae", "text_encoder", "lora", "embedding", "upscaler", "cutout", "controlnet",
    "depth", "segmentation",
]  # fmt: skip
Layout = Literal["file", "folder"]

FOLDERS: dict[Kind, str] = {kind: MODEL_FOLDERS[kind][0] for kind in get_args(Kind)}


def folders_of(models: Path, kind: Kind) -> list[Path]:
    """Return the folders of a kind that exist, ours first; only ours if none does."""
    # Several names of a folder count once: links, and names in another case on a Mac.
    found: dict[tuple[int, int], Path] = {}
    for name in MODEL_FOLDERS[kind]:
        with suppress(OSError):
            status = os.stat(f"{models}/{name}")  # noqa: PTH116  (twenty names in each scan)
            if S_ISDIR(status.st_mode):
                found.setdefault((status.st_dev, status.st_ino), models / name)
    return list(found.values()) or [models / FOLDERS[kind]]


@dataclass(frozen=True, slots=True)
class Recognised:
    """A file or folder as recognised by its headers and configs."""

    kind: Kind
    family: str  # the key of its row in families/, "" where the header does not tell
    native_size: int = 0  # the side of the square that a checkpoint was trained for
    in_channels: int = 0  # the inputs of its UNet
    text_layers: int = 0  # of its text encoder, from which clip_skip chooses
    prediction: str = ""  # of its UNet: "v_prediction", "epsilon", or "" if unknown
    zero_snr: bool = False  # it was trained down to noise without any signal
    variant: str = ""  # of a family ("dev", "union"), or which text encoder, VAE or other it is
    base_model: str = ""  # what a LoRA's trainer wrote: this, its name, and trigger words
    trained_as: str = ""
    trigger_words: tuple[str, ...] = ()
    scale: int = 0  # the factor of an upscaler
    stored: str = ""  # how weights are stored ("fp8", "Q4_K_S")
    # The parts in a file with the prefixes of their tensors' names: ("T5 XXL", "text_encoders…"),
    # for a UNet's by diffusers' names.
    contents: tuple[tuple[str, str], ...] = ()
    text_width: int = 0  # of the text embeddings that a UNet or a ControlNet reads, 0 for none


def holds(class_name: str) -> Literal["pixels", "words", "settings", "weights"]:
    """Return what the folder of a part of this class has: also a processor has a vocabulary."""
    if "ImageProcessor" in class_name:
        return "pixels"
    if "Tokenizer" in class_name or class_name.endswith("Processor"):
        return "words"
    return "settings" if class_name.endswith(("Scheduler", "Guidance")) else "weights"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a pipeline: its name and class, and the folder of its config or vocabulary."""

    name: str
    class_name: str
    folder: Path
    weights: Path | None = None  # the file of its weights, if they are not in the folder
    prefix: str = ""  # with which their names begin there


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Recognised):
    """A model file or folder that can be used."""

    name: str  # in recipes: the path below its kind's folder, with "/" and without ending
    layout: Layout
    path: Path
    bytes: int  # of its own files
    by_name: bool = False  # only its name tells its variant
    velocity_beside: bool = False  # a config says it, beside a file that tells no prediction
    # A transformer in a file of its own needs other files: where each part of its pipeline is, or
    # what is not installed, in a sentence.
    parts: tuple[Part, ...] = ()
    missing: str = ""
    # The same file as other variants that it may be: recipes name them "my-merge as Kontext".
    others: tuple["Model", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    name: str  # with its ending: "old.ckpt" may be beside a usable "old.safetensors"
    kind: Kind
    path: Path
    reason: str  # a sentence that says what it is
    may_pass: bool = False  # by a permission or a disk: it may pass while size and time stay


@dataclass(frozen=True, slots=True)
class FoundModels:
    """The result of a scan, sorted by kind and name; the embedded demo model is not in it."""

    models: tuple[Model, ...] = ()
    refused: tuple[Refused, ...] = ()

    def of_kind(self, kind: Kind) -> tuple[Model, ...]:
        return tuple(model for model in self.models if model.kind == kind)
