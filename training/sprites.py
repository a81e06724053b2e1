"""Scenes as pixel art: flat colours on a coarse grid, and latents that the VAE decodes to them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import max_pool2d

from training.canvas import NATIVE_SIZE, Canvas, Colour
from training.drawing import draw_scene
from training.pictures import as_batch
from training.precision import autocast
from training.scenes import COLOURS, Scene, random_scene
from training.vae import EDGE_WEIGHT, SCALING_FACTOR

CELL = 8  # pixels; the VAE's factor, so that every cell has a latent of its own
FITTING_STEPS = 30
FITTING_RATE = 2.0
DRIFT_WEIGHT = 0.01
BATCH = 8
CLEAR_STEP = 90  # levels of the three channels together


class Middle(random.Random):
    """Always the middle of a range: sprites are symmetric and do not waver."""

    def uniform(self, a: float, b: float) -> float:
        """The mean of both ends."""
        return (a + b) / 2


def sprite(scene: Scene) -> Image.Image:
    """The scene in cells, each of the colour that most of it has."""
    canvas = Canvas(NATIVE_SIZE, NATIVE_SIZE, COLOURS[scene.background], outlined=False)
    draw_scene(canvas, scene, Middle(0))
    cells = NATIVE_SIZE // CELL
    small = Image.new("RGB", (cells, cells))
    side = canvas.image.width // cells
    for x in range(cells):
        for y in range(cells):
            left, top = x * side, y * side
            piece = canvas.image.crop((left, top, left + side, top + side))
            small.putpixel((x, y), most_frequent_colour(piece))
    return small.resize((NATIVE_SIZE, NATIVE_SIZE), Image.Resampling.NEAREST)


def most_frequent_colour(piece: Image.Image) -> Colour:
    """The colour of most pixels."""
    # As bytes: Pillow 12 renamed the list of pixels.
    pixels = piece.tobytes()
    counts = Counter(pixels[i : i + 3] for i in range(0, len(pixels), 3))
    red, green, blue = counts.most_common(1)[0][0]
    return red, green, blue


def sharp_scenes(rng: random.Random, count: int) -> list[Scene]:
    """Scenes of the training mixture, none of them blurry."""
    return [replace(random_scene(rng), blurry=False) for _ in range(count)]


def fitted_latents(vae: Any, pictures: Sequence[Image.Image], steps: int) -> Tensor:
    """Scaled latents whose decoded pictures are as close to the given ones as steps allow.

    The encoder has never seen stairs and smooths them away; the decoder can draw them.
    """
    parts = []
    for start in range(0, len(pictures), BATCH):
        parts.append(fitted_batch(vae, as_batch(list(pictures[start : start + BATCH])), steps))
        print(f"fitted {start + len(parts[-1])} of {len(pictures)} sprites", flush=True)
    return torch.cat(parts) * SCALING_FACTOR


def fitted_batch(vae: Any, wanted: Tensor, steps: int) -> Tensor:
    """Adam on what is added to the encoder's latents; the rate falls to zero.

    Only where colours meet, and little: a style learnt from wild latents is full of stains.
    """
    with torch.no_grad():
        encoded: Tensor = vae.encode(wanted).latent_dist.mode()
    busy = busy_cells(wanted)
    added = torch.zeros_like(encoded, requires_grad=True)
    optimizer = torch.optim.Adam([added], lr=FITTING_RATE)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, max(1, steps))
    for _ in range(steps):
        with autocast(wanted.device):
            decoded = vae.decode(encoded + busy * added).sample
        error = decoded.float() - wanted
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        drift = (SCALING_FACTOR * busy * added).square().mean()
        loss = error.abs().mean() + EDGE_WEIGHT * edges + DRIFT_WEIGHT * drift
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        falling.step()
    return (encoded + busy * added).detach()


def busy_cells(wanted: Tensor) -> Tensor:
    """1 for cells that have another colour beside them, 0 for the rest."""
    colours = wanted[:, :, ::CELL, ::CELL]
    highest = max_pool2d(colours, 3, stride=1, padding=1)
    lowest = -max_pool2d(-colours, 3, stride=1, padding=1)
    return (highest > lowest).any(1, keepdim=True).float()


def blockiness(picture: Image.Image) -> float:
    """The share of the clear steps between neighbouring pixels that lie on the cells' borders.

    An eighth where cells mean nothing, one in a sprite.
    """
    pixels = np.asarray(picture.convert("RGB")).astype(np.float64)
    on_borders = total = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(pixels, axis=axis)).sum(axis=2)
        steps = np.where(steps >= CLEAR_STEP, steps, 0).sum(axis=1 - axis)
        on_borders += float(steps[CELL - 1 :: CELL].sum())
        total += float(steps.sum())
    return on_borders / total if total else 0.0
