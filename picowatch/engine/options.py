"""What an engine is told once, when it is built. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Precision = Literal["auto", "float16", "bfloat16", "float32"]
Memory = Literal["auto", "full", "low"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """The settings an engine needs.

    `models` is the folder with checkpoints/, vae/, loras/ and embeddings/. `device` is "auto",
    "cuda", "cuda:N", "mps" or "cpu". `hash_cache` is the daemon's file of model hashes; the
    engine reads it and never writes it. `threads` bounds the CPU threads of one batch; None
    leaves it to torch. `start_images` is the folder that keeps start images and masks, each
    named by its sha256. `memory` says where the ladder begins when memory runs out.
    """

    models: Path
    device: str = "auto"
    precision: Precision = "auto"
    hash_cache: Path | None = None
    threads: int | None = None
    start_images: Path | None = None
    memory: Memory = "auto"
