"""Refuses model files that change, vanish or are damaged while they are read.

A file is verified by its hash before it is read, and again afterwards, since it may be replaced
meanwhile: weights of another file must not render the picture.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from picowatch.catalog import Catalog, Kind, Model
from picowatch.engine.failures import as_clause
from picowatch.errors import ModelRefused, RenderFailed

Found = TypeVar("Found")
# Returns the file or folder of a model by kind, name and hash.
FindFile = Callable[[Kind, str, str], Path]

_KIND_NAMES: dict[Kind, str] = {
    "lora": "LoRA",
    "vae": "VAE",
    "controlnet": "ControlNet",
    "depth": "depth model",
    "cutout": "cutout model",
}
_WHEN_COMPLETE = "When the file is there and complete, save the recipe again."

# The errors of readers for files with valid headers: wrong offsets, unexpected names of weights,
# configs that are not JSON. torch's errors are not among them: memory or the GPU may be at fault.
_READ_ERRORS = (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError)


def find_model(catalog: Catalog, kind: Kind, name: str, expected_hash: str) -> Model:
    """Return the model that an image requests, found by name and verified by hash."""
    try:
        model = catalog.find(kind, name)
        if catalog.sha256(model) == expected_hash:
            return model
    except ModelRefused as refused:
        raise RenderFailed(refused.message, refused.remedy or _WHEN_COMPLETE) from refused
    raise RenderFailed(
        f"The {_KIND_NAMES.get(kind, kind)} {name!r} is a different file now than when this "
        "image was requested.",
        "Save the recipe again to use it as it is now.",
    )


@contextmanager
def unchanged(
    find: Callable[[Kind, str, str], Found], kind: Kind, name: str, expected_hash: str
) -> Iterator[Found]:
    """Yield what `find` finds and verifies; after the reading inside, verify it again.

    `find` raises RenderFailed for a file that is missing, incomplete or another one.
    """
    found = find(kind, name, expected_hash)
    try:
        yield found
    except (*_READ_ERRORS, ModelRefused, RenderFailed) as error:
        find(kind, name, expected_hash)
        if isinstance(error, RenderFailed):
            raise
        reason = as_clause(f"{type(error).__name__}: {error}")
        raise RenderFailed(
            f"The {_KIND_NAMES.get(kind, kind)} {name!r} is damaged: {reason}.",
            "Get the file again, or another one.",
            traceback.format_exc(),
        ) from error
    find(kind, name, expected_hash)
