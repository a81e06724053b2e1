"""Transformers in files of their own, and what completes them to checkpoints.

Such a file has neither text encoders nor a VAE. A diffusers folder of the same family that is
installed, too, lends its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from picowatch.catalog.families import NAMES
from picowatch.catalog.folder_files import FolderFile, folder_files
from picowatch.catalog.models import Model, Part
from picowatch.catalog.pipelines import classes_of

ASSETS = Path(__file__).parent.parent / "assets"
# Variants of FLUX.1 that step as another one does.
_SCHEDULED_AS = {"Krea": "dev", "Fill": "dev"}
# Families whose variants have the same text encoders, VAE and, but for some numbers, transformer.
_ALIKE = ("flux", "z_image")


def completed(model: Model, checkpoints: Sequence[Model]) -> Model:
    """The model with all parts of its pipeline, or with what is missing."""
    lender = _lender(model, checkpoints)
    if lender is None:
        return replace(model, missing=_missing(model))
    parts = []
    for name, class_name in classes_of(lender.path).items():
        folder = lender.path / name
        if name == "scheduler" and lender.variant != model.variant:
            folder = _own_folder(model, name)
        parts.append(Part(name, class_name, folder, model.path if name == "transformer" else None))
    return replace(model, parts=tuple(parts))


def parts_of(model: Model) -> tuple[Part, ...]:
    """Where each part of a checkpoint's pipeline is."""
    if model.layout == "file":
        return model.parts
    return tuple(
        Part(name, class_name, model.path / name)
        for name, class_name in classes_of(model.path).items()
    )


def part_of(model: Model, name: str) -> Part:
    """One of its parts."""
    return next(part for part in parts_of(model) if part.name == name)


def files_of(parts: Sequence[Part]) -> list[FolderFile]:
    """The files that these parts are read from, but the package's own, sorted by name."""
    found = []
    for part in parts:
        for file in folder_files(part.folder):
            if ASSETS in file.path.parents or (part.weights and _is_weight(file.path)):
                continue
            found.append(FolderFile(f"{part.name}/{file.relative}", file.path))
        if part.weights:
            found.append(FolderFile(part.name, part.weights))
    return sorted(found, key=lambda file: file.relative)


def _is_weight(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _lender(model: Model, checkpoints: Sequence[Model]) -> Model | None:
    """The folder that lends its parts: of the same variant, else of one that differs little."""
    folders = [one for one in checkpoints if one.layout == "folder" and one.family == model.family]
    same = [one for one in folders if one.variant == model.variant]
    alike = [one for one in folders if model.family in _ALIKE and _has_own(model, "scheduler")]
    return next(iter((*same, *alike)), None)


def _own_folder(model: Model, part: str) -> Path:
    """The package's configs of a part, for this family and variant."""
    variant = _SCHEDULED_AS.get(model.variant, model.variant)
    return ASSETS / model.family / variant.casefold() / part


def _has_own(model: Model, part: str) -> bool:
    return _own_folder(model, part).is_dir()


def _missing(model: Model) -> str:
    family = NAMES[model.family]
    variant = f" ({model.variant})" if model.variant else ""
    return (
        f"{model.path.name} is only the transformer of {family}{variant}: its text encoders, "
        f"tokenizers and VAE are missing. Put a diffusers folder of {family} into "
        "models/checkpoints/, which lends it its own."
    )


# What a transformer's config says for each variant, where a folder of another one lends it.
_DEV: dict[str, object] = {"guidance_embeds": True, "in_channels": 64, "out_channels": None}
_NUMBERS: Mapping[tuple[str, str], Mapping[str, object]] = {
    ("flux", "dev"): _DEV,
    ("flux", "Krea"): _DEV,
    ("flux", "schnell"): _DEV | {"guidance_embeds": False},
    ("flux", "Fill"): {"guidance_embeds": True, "in_channels": 384, "out_channels": 64},
}


def config_changes(family: str, variant: str) -> Mapping[str, object]:
    """What the config of a transformer must say for this variant."""
    return _NUMBERS.get((family, variant), {})
