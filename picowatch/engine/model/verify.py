"""Refuses model files that change, vanish or are damaged while they are read.

A file is verified by its hash before it is read, and again afterwards, since it may be replaced
meanwhile: weights of another file must not render the picture.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from safetensors import SafetensorError

from picowatch.catalog import Catalog, Kind, Model
from picowatch.catalog.recognise import ARTICLES
from picowatch.engine.failures import as_clause
from picowatch.errors import ModelRefused, RenderFailed

# `verified` of a catalog: takes kind, name and hash.
Verified = Callable[[Kind, str, str], AbstractContextManager[Model]]

# The errors of readers for files with valid headers: wrong offsets, unexpected names of weights,
# configs that are not JSON. torch's errors are not among them: memory or the GPU may be at fault.
_READ_ERRORS = (OSError, SafetensorError, LookupError, ValueError, TypeError, AttributeError)


def _called(kind: Kind, name: str) -> str:
    return f"The {ARTICLES[kind].partition(' ')[2]} {name!r}"


def _found(catalog: Catalog, kind: Kind, name: str, expected_hash: str) -> Model:
    """Return the model that an image requests, found by name and verified by hash."""
    try:
        model = catalog.find(kind, name)
        if catalog.sha256(model) == expected_hash:
            return model
    except ModelRefused as refused:
        remedy = refused.remedy or "When the file is there and complete, save the recipe again."
        raise RenderFailed(refused.message, remedy) from refused
    raise RenderFailed(
        f"{_called(kind, name)}, or what completes it, is no longer the one that was requested.",
        "Save the recipe again to use it as it is now.",
    )


@contextmanager
def verified(catalog: Catalog, kind: Kind, name: str, expected_hash: str) -> Iterator[Model]:
    """Yield the model that an image requests; after the reading inside, verify it again.

    Raises RenderFailed for a file that is missing, incomplete, damaged or replaced.
    """
    model = _found(catalog, kind, name, expected_hash)
    try:
        yield model
    except (*_READ_ERRORS, ModelRefused, RenderFailed) as error:
        _found(catalog, kind, name, expected_hash)
        if isinstance(error, RenderFailed):
            raise
        reason = as_clause(f"{type(error).__name__}: {error}")
        raise RenderFailed(
            f"{_called(kind, name)} is damaged: {reason}.",
            "Get the file again, or another one.",
            traceback.format_exc(),
        ) from error
    _found(catalog, kind, name, expected_hash)
