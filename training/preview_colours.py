"""Fits the colours of previews to an autoencoder: `python -m training.preview_colours MODEL`.

Prints `DEMO` of `COLOURS` in picowatch/engine/preview.py: what each latent channel adds to red,
green and blue.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from torch import Tensor

from training.pictures import drawn_pictures
from training.untyped import AutoencoderKL
from training.vae import SCALING_FACTOR

SEED = 9
BATCHES, BATCH = 8, 16
CELL = 8  # pixels of a latent's side
# The channels resemble each other. Without it, large factors would cancel out in clean latents,
# but not in predicted ones.
PENALTY = 0.01


def main() -> None:
    """Prints the rows, the constant last, and what share of unseen colours they explain."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="a folder with vae/")
    vae = AutoencoderKL.from_pretrained(parser.parse_args().model / "vae").eval()
    channels, colours = latents_and_colours(vae)
    seen = len(channels) * 3 // 4
    factors = fitted(channels[:seen], colours[:seen])
    for row in factors.tolist():
        print("    (" + ", ".join(f"{value:.4f}" for value in row) + "),")
    unseen = colours[seen:]
    left = (unseen - channels[seen:] @ factors).square().sum()
    share = 1 - left / (unseen - unseen.mean(0)).square().sum()
    print(f"explains {share:.0%} of the colours")


@torch.inference_mode()
def latents_and_colours(vae: AutoencoderKL) -> tuple[Tensor, Tensor]:
    """Of each cell of random drawings: its latents and a one; its mean colour, from -1 to 1."""
    rng = random.Random(SEED)
    channels, colours = [], []
    for _ in range(BATCHES):
        pictures = drawn_pictures(rng, BATCH)
        latents = vae.encode(pictures).latent_dist.mean * SCALING_FACTOR
        channels.append(latents.movedim(1, -1).flatten(0, 2))
        means = torch.nn.functional.avg_pool2d(pictures, CELL)
        colours.append(means.movedim(1, -1).flatten(0, 2))
    together = torch.cat(channels).double()
    return torch.cat([together, torch.ones(len(together), 1)], 1), torch.cat(colours).double()


def fitted(channels: Tensor, colours: Tensor) -> Tensor:
    """Ridge regression; the constant is not penalised."""
    penalty = PENALTY * len(channels) * torch.eye(channels.shape[1], dtype=torch.float64)
    penalty[-1, -1] = 0
    factors: Tensor = torch.linalg.solve(channels.T @ channels + penalty, channels.T @ colours)
    return factors


if __name__ == "__main__":
    main()
