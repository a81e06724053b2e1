"""The results of a scan: usable models and refused files, as plain values."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import Literal, Self, get_args

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
    """A file or folder as recognised by its headers and configs.

    `family` is the key of its row in families/, "" where the header does not tell. For a
    checkpoint, `native_size` is the side of the square it was trained for, `in_channels` the inputs
    of its UNet, `text_layers` the number of layers of its text encoder that clip_skip chooses from,
    `prediction` what its UNet predicts ("v_prediction", "epsilon", or "" if unknown), `zero_snr`
    whether it was trained down to noise without any signal. `text_width` is the width of the text
    embeddings that a UNet or a ControlNet reads, 0 for none. `variant` tells models of a family
    apart ("dev", "union"), and text encoders, VAEs and others. `base_model`, `trained_as` (its
    name) and `trigger_words` are what a LoRA's trainer wrote. `scale` is the factor of an upscaler.
    `stored` is how weights are stored ("fp8", "Q4_K_S"). `contents` are the parts in a
    transformer's file with the prefixes of their tensors' names: ("T5 XXL", "text_encoders…").
    """

    kind: Kind
    family: str
    native_size: int = 0
    in_channels: int = 0
    text_layers: int = 0
    prediction: str = ""
    zero_snr: bool = False
    variant: str = ""
    base_model: str = ""
    trained_as: str = ""
    trigger_words: tuple[str, ...] = ()
    scale: int = 0
    stored: str = ""
    contents: tuple[tuple[str, str], ...] = ()
    text_width: int = 0


def holds(class_name: str) -> Literal["pixels", "words", "settings", "weights"]:
    """Return what the folder of a part of this class has: also a processor has a vocabulary."""
    if "ImageProcessor" in class_name:
        return "pixels"
    if "Tokenizer" in class_name or class_name.endswith("Processor"):
        return "words"
    return "settings" if class_name.endswith(("Scheduler", "Guidance")) else "weights"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a pipeline: its name and class, and the folder of its config or vocabulary.

    Its weights are in that folder, or in the file `weights`, under names that begin with `prefix`.
    """

    name: str
    class_name: str
    folder: Path
    weights: Path | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model(Recognised):
    """A model file or folder that can be used.

    `name` is its name in recipes: the path below its kind's folder, with "/" and without ending.
    `bytes` is the size of its own files. A transformer in a file of its own needs other files:
    `parts` says where each part of the pipeline is, or `missing`, in one sentence, what is not
    installed. `by_name` is true if only its name tells its variant, `velocity_beside` if its file
    does not tell what it predicts, but the config beside it says velocity. `others` are the same
    file as the other variants that it may be: recipes name them "my-merge as Kontext".
    """

    name: str
    layout: Layout
    path: Path
    bytes: int
    by_name: bool = False
    velocity_beside: bool = False
    parts: tuple[Part, ...] = ()
    missing: str = ""
    others: tuple["Model", ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A file in models/ that cannot be used; `reason` is one sentence that says what it is.

    `name` keeps the file's ending: "old.ckpt" may be beside a usable "old.safetensors". `may_pass`:
    a permission or a disk is the cause, and may change while the file's size and time do not.
    """

    name: str
    kind: Kind
    path: Path
    reason: str
    may_pass: bool = False


@dataclass(frozen=True, slots=True)
class FoundModels:
    """The result of a scan, sorted by kind and name; the embedded demo model is not in it."""

    models: tuple[Model, ...] = ()
    refused: tuple[Refused, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Model | Refused]) -> Self:
        """Divide the entries of a scan into models and refused files, in order."""
        found = [*entries]
        return cls(
            models=tuple(entry for entry in found if isinstance(entry, Model)),
            refused=tuple(entry for entry in found if isinstance(entry, Refused)),
        )

    def of_kind(self, kind: Kind) -> tuple[Model, ...]:
        """Return the usable models of a kind."""
        return tuple(model for model in self.models if model.kind == kind)
