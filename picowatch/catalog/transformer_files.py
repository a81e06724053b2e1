"""Transformers in files of their own, and what completes them to checkpoints.

Such a file has neither text encoders nor a VAE. A diffusers folder of the same family that is
installed, too, lends its own; or they are files in models/text_encoders/ and models/vae/, and the
package has their configs and vocabularies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from picowatch.catalog.families import NAMES
from picowatch.catalog.folder_files import FolderFile, folder_files
from picowatch.catalog.models import FOLDERS, Model, Part
from picowatch.catalog.pipelines import PIPELINES, Pipeline, classes_of
from picowatch.catalog.text_encoders import ENCODERS
from picowatch.catalog.vaes import serves
from picowatch.recipe.messages.suggestions import listed

ASSETS = Path(__file__).parent.parent / "assets"
# Variants of FLUX.1 that step as another one does.
_SCHEDULED_AS = {"Krea": "dev", "Fill": "dev"}
# The text encoder for each part of the families that files alone can complete, and where the
# package has its config and vocabulary.
_ENCODERS: dict[str, dict[str, str]] = {
    "flux": {"text_encoder": "CLIP L", "text_encoder_2": "T5 XXL"},
    "z_image": {"text_encoder": "Qwen3 4B"},
}
_FOLDERS = {"CLIP L": "sd15", "T5 XXL": "t5", "Qwen3 4B": "qwen3"}
# Families whose variants have the same text encoders, VAE and, but for some numbers, transformer.
_ALIKE = ("flux", "z_image")


class Installed(NamedTuple):
    """What may complete a transformer's file."""

    checkpoints: Sequence[Model]
    text_encoders: Sequence[Model]
    vaes: Sequence[Model]


def completed(model: Model, installed: Installed) -> Model:
    """The model with all parts of its pipeline, or with what is missing."""
    lender = _lender(model, installed.checkpoints)
    if lender:
        return replace(model, parts=_lent(model, lender))
    files = _files_for(model, installed)
    if files and None not in files.values():
        return replace(model, parts=_from_files(model, files))
    return replace(model, missing=_missing(model, files))


def _lent(model: Model, lender: Model) -> tuple[Part, ...]:
    """The parts of a folder, but for its transformer."""
    parts = []
    for name, class_name in classes_of(lender.path).items():
        folder = lender.path / name
        if name == "scheduler" and lender.variant != model.variant:
            folder = _own_folder(model, name)
        parts.append(Part(name, class_name, folder, model.path if name == "transformer" else None))
    return tuple(parts)


def _files_for(model: Model, installed: Installed) -> dict[str, Model | None]:
    """The file for each part that the package has no more of than a config."""
    if model.family not in _ENCODERS:
        return {}
    found = {
        part: _largest([one for one in installed.text_encoders if one.variant == encoder])
        for part, encoder in _ENCODERS[model.family].items()
    }
    vaes = [one for one in installed.vaes if serves(one.variant, model.family)]
    return found | {"vae": _largest(vaes)}


def _largest(models: Sequence[Model]) -> Model | None:
    """The one with the most exact weights: float16, where there is fp8, too."""
    return max(models, key=lambda model: model.bytes, default=None)


def _from_files(model: Model, files: Mapping[str, Model | None]) -> tuple[Part, ...]:
    """All parts, with configs, vocabularies and noise schedule of the package."""
    found = {name: one for name, one in files.items() if one} | {"transformer": model}
    parts = []
    for name, classes in _pipeline_of(model).parts.items():
        one = found.get(name)
        if one and one.layout == "folder":
            parts.append(Part(name, classes[0], one.path))
        else:
            folder = _package_folder(model, name)
            parts.append(Part(name, classes[0], folder, one.path if one else None))
    return tuple(parts)


def _pipeline_of(model: Model) -> Pipeline:
    ours = [one for one in PIPELINES.values() if one.family == model.family]
    return next((one for one in ours if one.variant == model.variant), ours[0])


def _package_folder(model: Model, part: str) -> Path:
    """The package's config or vocabulary of a part."""
    if part == "scheduler":
        return _own_folder(model, part)
    encoder = _ENCODERS[model.family].get(part.replace("tokenizer", "text_encoder"))
    if encoder:
        return ASSETS / _FOLDERS[encoder] / part.removesuffix("_2")
    return ASSETS / ("flux" if part == "vae" else model.family) / part


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


def files_below(models: Sequence[Model]) -> dict[str, Path]:
    """The files of a transformer and of what completes it, by their paths below a models folder.

    Of a folder that lends its parts all but the weights of its own transformer.
    """
    found = {}
    for one in models:
        below = f"{FOLDERS[one.kind]}/{one.name}"
        if one.layout == "file":
            ending = "" if one.name.endswith(one.path.suffix) else one.path.suffix
            found[f"{below}{ending}"] = one.path
            continue
        for file in folder_files(one.path):
            if not (file.relative.startswith("transformer/") and _is_weight(file.path)):
                found[f"{below}/{file.relative}"] = file.path
    return found


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


def _missing(model: Model, files: Mapping[str, Model | None]) -> str:
    """What to install, and where; either way will do."""
    family = NAMES[model.family]
    variant = f" ({model.variant})" if model.variant else ""
    needed = [
        f"{encoder} (such as {ENCODERS[encoder].file}) in models/text_encoders/"
        for part, encoder in _ENCODERS.get(model.family, {}).items()
        if not files[part]
    ]
    if files and not files["vae"]:
        needed.append("a VAE with 16 latent channels (such as ae.safetensors) in models/vae/")
    ways = [listed(needed)] if needed else []
    ways.append(f"a diffusers folder of {family} in models/checkpoints/, which lends its own")
    return (
        f"{model.path.name} is only the transformer of {family}{variant}, without text encoders, "
        f"tokenizers and VAE. It also needs {'; or '.join(ways)}."
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
