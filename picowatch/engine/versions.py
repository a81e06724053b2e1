"""The versions that pixels depend on, without importing the libraries."""

from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from picowatch import __version__

_LIBRARIES = ("torch", "diffusers", "transformers")


@cache
def versions() -> dict[str, str]:
    """Our version and those of torch, diffusers and transformers, where installed."""
    found = {"picowatch": __version__}
    for library in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
