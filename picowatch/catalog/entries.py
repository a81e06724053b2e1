"""Entries of a scan: each candidate becomes a model, or a refusal that says why not."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from picowatch.catalog.candidates import Candidate, check_name, printable
from picowatch.catalog.configs import says_velocity
from picowatch.catalog.folder_files import folder_files, is_folder
from picowatch.catalog.folders import (
    PART_FOLDERS,
    is_part_folder,
    only_lends,
    recognise_checkpoint_folder,
    recognise_part_folder,
)
from picowatch.catalog.gguf import read_any_header
from picowatch.catalog.models import Kind, Model, Recognised, Refused, folders_of
from picowatch.catalog.parts import ASSETS
from picowatch.catalog.recognise import (
    expect_rendered,
    expect_usable,
    recognise,
    variant_by_name,
)
from picowatch.catalog.vaes import vae_by_name
from picowatch.errors import ModelRefused
from picowatch.families import DEMO, FLOWS, UNETS

# The models in the package: their names, what messages call them, and where they are.
EMBEDDED: dict[Kind, tuple[str, str, Path]] = {
    "checkpoint": (DEMO, "the embedded demo model", ASSETS / "demo"),
    "upscaler": ("demo-compact", "the embedded upscaler", ASSETS / "demo-compact.safetensors"),
    "controlnet": ("demo-sketch", "the embedded ControlNet", ASSETS / "demo-sketch.safetensors"),
}
DEMO_UPSCALER, DEMO_CONTROLNET = (EMBEDDED[kind][0] for kind in ("upscaler", "controlnet"))


def model_of(candidate: Candidate, recognised: Callable[[Path], Recognised]) -> Model:
    """Return a model of the kind that its folder is for. Raises ModelRefused with the reason."""
    check_name(candidate)
    path, kind = candidate.path, candidate.kind
    if candidate.layout == "file":
        found = recognised(path)
    elif kind in PART_FOLDERS and is_part_folder(path):
        found = recognise_part_folder(path, kind)
    else:
        found = recognise_checkpoint_folder(path)
    right = folders_of(candidate.root.parent, found.kind)[0]
    expect_usable(found, kind, candidate.layout, right.name)
    model = _model(candidate.name, path, found)
    expect_rendered(model, candidate.layout)
    if model.family in UNETS and candidate.layout == "file" and not model.prediction:
        return replace(model, velocity_beside=says_velocity(path))
    return model


def reason_of(error: ModelRefused | OSError) -> str:
    """Return the reason why a file cannot be used, without the file's name."""
    if isinstance(error, ModelRefused):
        return error.message
    return f"cannot be read: {error.strerror or error}."  # whatever was there a moment ago


def may_pass(error: BaseException | None) -> bool:
    """Whether the system said it: a permission or a disk that is back changes no stamp."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None


@cache
def embedded(kind: Kind) -> Model:
    """The model of this kind that is in the package: a checkpoint, an upscaler, a ControlNet."""
    name, _, path = EMBEDDED[kind]
    if kind == "checkpoint":
        return _model(name, path, recognise_checkpoint_folder(path))
    return _model(name, path, recognise(read_any_header(path)))


def _model(name: str, path: Path, found: Recognised) -> Model:
    variant = variant_by_name(found.family, found.variant, name)
    if found.kind == "vae":
        variant = vae_by_name(found.variant, name)
    by_name = variant != found.variant
    folder = is_folder(path)
    files = [*folder_files(path).values()] if folder else [path]
    missing = ""
    if folder and found.kind == "checkpoint" and found.family in FLOWS and only_lends(path):
        missing = (
            f"{path.name}/ has no weights in transformer/: it only completes transformer files. To "
            "render with it, copy the whole folder."
        )
    return Model(
        name=name,
        layout="folder" if folder else "file",
        path=path,
        bytes=sum(file.stat().st_size for file in files),
        by_name=by_name,
        missing=missing,
        **asdict(replace(found, variant=variant)),
    )


def refusal(candidate: Candidate, reason: str) -> Refused:
    """A refused file keeps its ending: "old.ckpt" may be beside a usable "old.safetensors"."""
    name = candidate.name
    if candidate.layout == "file" and not name.endswith(candidate.path.suffix):
        name += candidate.path.suffix
    return Refused(name=printable(name), kind=candidate.kind, path=candidate.path, reason=reason)
