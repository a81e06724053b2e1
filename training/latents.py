"""Scenes and the latents of their pictures: what the denoiser learns from."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.drawing import draw
from training.pictures import as_batch
from training.precision import autocast
from training.progress import save_whole
from training.scenes import AnimalScene, PairScene, Scene, ShapeScene, Subject, random_scene
from training.untyped import AutoencoderKL
from training.vae import SCALING_FACTOR

SEED = 2
BATCH = 32
PICTURES_OF_A_PART = 2000
PARTS = 16
Size = tuple[int, int]
NATIVE: Size = (128, 128)
# The first part holds some pictures of other sizes too, which teach the model to draw one large
# subject there as well.
OTHERS_BY_SIZE: dict[Size, int] = {
    (192, 128): 200,
    (128, 192): 200,
    (192, 192): 200,
    (256, 256): 100,
}


@dataclass(frozen=True)
class EncodedPictures:
    """Pictures of one size: what they show, and mean and spread of their latents."""

    scenes: list[Scene]
    means: Tensor
    spreads: Tensor

    def sampled(self, chosen: Tensor) -> Tensor:
        """Latents drawn anew from the chosen pictures' posteriors."""
        means, spreads = self.means[chosen].float(), self.spreads[chosen].float()
        return means + spreads * torch.randn_like(means)


def encode_pictures(run_folder: Path, device: torch.device, parts: int = PARTS) -> None:
    """Draw and encodes the training pictures, a part to a file; what is there is kept."""
    folder = run_folder / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    missing = [part for part in range(parts) if not (folder / f"{part}.pt").exists()]
    if not missing:
        return
    vae = AutoencoderKL.from_pretrained(run_folder / "vae").eval()
    vae.to(device, memory_format=torch.channels_last)
    for part in missing:
        sizes = {NATIVE: PICTURES_OF_A_PART, **(OTHERS_BY_SIZE if part == 0 else {})}
        save_whole(
            {
                f"{width}x{height}": encoded(vae, device, part, count, (width, height))
                for (width, height), count in sizes.items()
            },
            folder / f"{part}.pt",
        )


def encoded_pictures(run_folder: Path) -> dict[Size, EncodedPictures]:
    parts = sorted((run_folder / "latents").glob("*.pt"), key=lambda file: int(file.stem))
    stored = [torch.load(part, weights_only=True) for part in parts]
    names = dict.fromkeys(name for part in stored for name in part)
    return {
        as_size(name): as_encoded_pictures([part[name] for part in stored if name in part])
        for name in names
    }


@torch.no_grad()
def encoded(vae: Any, device: torch.device, part: int, count: int, size: Size) -> dict[str, Any]:
    """The record of `count` random pictures of one size."""
    rng = random.Random(f"latents {SEED} {part} {size}")
    scenes: list[dict[str, Any]] = []
    means: list[Tensor] = []
    spreads: list[Tensor] = []
    while len(scenes) < count:
        batch = [random_scene(rng) for _ in range(min(BATCH, count - len(scenes)))]
        pictures = as_batch([draw(scene, rng, *size) for scene in batch])
        with autocast(device):
            posterior = vae.encode(pictures.to(device)).latent_dist
        scenes += [asdict(scene) for scene in batch]
        means.append((posterior.mean.float() * SCALING_FACTOR).half().cpu())
        spreads.append((posterior.std.float() * SCALING_FACTOR).half().cpu())
    print(f"part {part}: encoded {count} pictures of {size}", flush=True)
    return {"scenes": scenes, "means": torch.cat(means), "spreads": torch.cat(spreads)}


def as_size(name: str) -> Size:
    width, height = name.split("x")
    return int(width), int(height)


def as_encoded_pictures(records: list[Mapping[str, Any]]) -> EncodedPictures:
    """The inverse of `encoded`, for records of one size."""
    return EncodedPictures(
        [as_scene(fields) for record in records for fields in record["scenes"]],
        torch.cat([record["means"] for record in records]),
        torch.cat([record["spreads"] for record in records]),
    )


def as_scene(fields: Mapping[str, Any]) -> Scene:
    if "shape" in fields:
        return ShapeScene(**fields)
    if "animal" in fields:
        return AnimalScene(**fields)
    first, second = Subject(**fields["first"]), Subject(**fields["second"])
    return PairScene(**{**fields, "first": first, "second": second})
