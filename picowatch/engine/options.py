"""The options of an engine, and the versions of its libraries. Imports no torch."""

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from picowatch import __version__

Precision = Literal["auto", "float16", "bfloat16", "float32"]
Memory = Literal["auto", "full", "low"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The settings an engine needs.

    `models` is the folder with checkpoints/, vae/, loras/ and embeddings/. `device` is "auto",
    "cuda", "cuda:N", "mps" or "cpu". `hash_cache` is the daemon's file of model hashes; the
    engine reads it and never writes it. `threads` bounds the CPU threads of one batch; None
    means this engine's share of the cores. `start_images` is the folder of start images and
    masks, each named by its sha256. `memory` says where the memory ladder begins. `compile`:
    denoisers are compiled (compile.py), and on a CPU kept in the folder `cache`, if there is one.
    It is the engine number `ordinal` of the machine's `engines`, which share its GPUs or its cores.
    """

    models: Path
    device: str = "auto"
    precision: Precision = "auto"
    hash_cache: Path | None = None
    threads: int | None = None
    start_images: Path | None = None
    memory: Memory = "auto"
    compile: bool = False
    cache: Path | None = None
    ordinal: int = 0
    engines: int = 1


def cache_folder() -> Path | None:
    """Return the folder of compiled models in XDG_CACHE_HOME or ~/.cache, None without a home."""
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user id without a user, as in containers
        return None
    return Path(root) / "picowatch" / "compiled"


@cache
def versions() -> dict[str, str]:
    """Our version and those of the libraries that pixels depend on, where they are installed."""
    found = {"picowatch": __version__}
    for library in ("torch", "diffusers", "transformers"):
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    return found
