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
from training.progress import save_whole
from training.scenes import CorgiScene, Scene, ShapeScene, random_scene
from training.untyped import AutoencoderKL
from training.vae import SCALING_FACTOR

SEED = 2
BATCH = 32
Size = tuple[int, int]

# Mostly the native size; the others teach the model to draw one large subject there too.
PICTURES_BY_SIZE: dict[Size, int] = {
    (128, 128): 12_000,
    (192, 128): 300,
    (128, 192): 300,
    (192, 192): 300,
    (256, 256): 200,
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


def encode_pictures(
    run_folder: Path, device: torch.device, pictures_by_size: Mapping[Size, int]
) -> dict[Size, EncodedPictures]:
    """Draws and encodes the training pictures, or reads them if that was done before."""
    file = run_folder / "latents.pt"
    if not file.exists():
        vae = AutoencoderKL.from_pretrained(run_folder / "vae").eval()
        vae.to(device, memory_format=torch.channels_last)
        save_whole(
            {
                f"{width}x{height}": encoded(vae, device, count, (width, height))
                for (width, height), count in pictures_by_size.items()
            },
            file,
        )
    stored = torch.load(file, weights_only=True)
    return {as_size(name): as_encoded_pictures(record) for name, record in stored.items()}


@torch.no_grad()
def encoded(vae: Any, device: torch.device, count: int, size: Size) -> dict[str, Any]:
    """The record of `count` random pictures of one size."""
    rng = random.Random(f"latents {SEED} {size}")
    scenes: list[dict[str, Any]] = []
    means: list[Tensor] = []
    spreads: list[Tensor] = []
    while len(scenes) < count:
        batch = [random_scene(rng) for _ in range(min(BATCH, count - len(scenes)))]
        pictures = as_batch([draw(scene, rng, *size) for scene in batch])
        with torch.autocast(device.type, torch.bfloat16):
            posterior = vae.encode(pictures.to(device)).latent_dist
        scenes += [asdict(scene) for scene in batch]
        means.append((posterior.mean.float() * SCALING_FACTOR).half().cpu())
        spreads.append((posterior.std.float() * SCALING_FACTOR).half().cpu())
    print(f"encoded {count} pictures of {size}", flush=True)
    return {"scenes": scenes, "means": torch.cat(means), "spreads": torch.cat(spreads)}


def as_size(name: str) -> Size:
    """The inverse of "192x128"."""
    width, height = name.split("x")
    return int(width), int(height)


def as_encoded_pictures(record: Mapping[str, Any]) -> EncodedPictures:
    """The inverse of `encoded`."""
    scenes: list[Scene] = [
        ShapeScene(**fields) if "shape" in fields else CorgiScene(**fields)
        for fields in record["scenes"]
    ]
    return EncodedPictures(scenes, record["means"], record["spreads"])
