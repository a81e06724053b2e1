"""Drawn pictures as tensors: drawing is so quick that no picture is ever stored."""

from __future__ import annotations

import random

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.canvas import NATIVE_SIZE
from training.drawing import draw
from training.scenes import random_scene


def drawn_pictures(
    rng: random.Random, count: int, width: int = NATIVE_SIZE, height: int = NATIVE_SIZE
) -> Tensor:
    """Random scenes as a batch in [-1, 1]."""
    return as_batch([draw(random_scene(rng), rng, width, height) for _ in range(count)])


def drawn_crops(rng: random.Random, pictures: int, crops: int, size: int) -> Tensor:
    """Square pieces, some from each of several drawn pictures."""
    pieces = []
    for _ in range(pictures):
        picture = draw(random_scene(rng), rng)
        for _ in range(crops):
            left, top = (rng.randint(0, NATIVE_SIZE - size) for _ in range(2))
            pieces.append(picture.crop((left, top, left + size, top + size)))
    return as_batch(pieces)


def as_batch(pictures: list[Image.Image]) -> Tensor:
    """Pictures of one size as floats in [-1, 1], channels first."""
    pixels = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
