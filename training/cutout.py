"""Train demo-cutout, which cuts the demo model's figures out: `python -m training.cutout`.

A drawing knows what is figure: drawn on white and on black, it differs where it is not. Half of
the pictures go through the demo model's autoencoder first, so that they look as if it had drawn
them. Ten minutes on one core.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from picowatch.catalog.cutouts import DEPTHS, Layout, Widths
from picowatch.engine.networks.cutout import Network, as_seen
from training.canvas import Canvas, jittered
from training.drawing import LARGEST_SHADING, SHADE, SHADING_SHARE, draw_scene
from training.scenes import COLOURS, Scene, random_scene
from training.untyped import AutoencoderKL

INSIDE, GIVES = 8, 16  # channels
SIDE = 128
SIZES = ((128, 128), (128, 128), (192, 128), (128, 192))
DRAWINGS, BATCH, STEPS = 1200, 8, 450
RATE, RISE = 4e-3, 50
SEED = 3
OUT = Path("picowatch/assets/demo-cutout.safetensors")


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--steps", type=int, default=STEPS)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    pictures, masks = drawn_pairs(random.Random(SEED), DRAWINGS)
    write(trained(pictures, masks, arguments.steps), arguments.out)


def drawn_pair(rng: random.Random, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """A picture, and how much of each of its pixels is figure."""
    scene = random_scene(rng)
    shading = rng.uniform(0, LARGEST_SHADING) if rng.random() < SHADING_SHARE else 0.0
    background = jittered(rng, COLOURS[scene.background], SHADE)
    state = rng.getstate()
    canvas = Canvas(*size, background, shading)
    draw_scene(canvas, scene, rng)
    grounds = [seen_on(colour, scene, state, size) for colour in ((0, 0, 0), (255, 255, 255))]
    return canvas.reduced(), Image.fromarray((255 - (grounds[1] - grounds[0])).astype(np.uint8))


def seen_on(
    ground: tuple[int, int, int], scene: Scene, state: object, size: tuple[int, int]
) -> np.ndarray[tuple[int, int], np.dtype[np.int16]]:
    """The red of the same drawing before another ground."""
    rng = random.Random()
    rng.setstate(state)  # type: ignore[arg-type]
    canvas = Canvas(*size, ground)
    draw_scene(canvas, scene, rng)
    return np.asarray(canvas.reduced())[..., 0].astype(np.int16)


@torch.no_grad()
def drawn_pairs(rng: random.Random, count: int) -> tuple[list[Image.Image], Tensor]:
    """Pictures, and their masks as the network is to give them."""
    vae = AutoencoderKL.from_pretrained("picowatch/assets/demo/vae")
    pictures, masks = [], []
    for index in range(count):
        picture, mask = drawn_pair(rng, rng.choice(SIZES))
        if index % 2:
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1
            latents = vae.encode(pixels).latent_dist.mean
            latents = latents + 0.1 * rng.random() * latents.std() * torch.randn_like(latents)
            levels = (vae.decode(latents).sample[0].clamp(-1, 1) + 1) * 127.5
            picture = Image.fromarray(levels.byte().permute(1, 2, 0).numpy())
        pictures.append(picture)
        masks.append(mask.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return pictures, torch.from_numpy(np.stack([np.asarray(mask) for mask in masks]))[:, None]


def narrow_layout() -> Layout:
    """U²-Net small with an eighth of its weights."""
    stages = {}
    for stage in DEPTHS:
        takes = 3 if stage == "stage1" else 2 * GIVES if stage.endswith("d") else GIVES
        stages[stage] = Widths(takes, INSIDE, GIVES)
    return Layout(0, stages)


def trained(pictures: list[Image.Image], masks: Tensor, steps: int) -> Network:
    """The network after so many steps; each of its six masks and their mixture learn."""
    network = Network(narrow_layout(), SIDE)
    network.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen = torch.cat([as_seen(picture, network) for picture in pictures])
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=RISE / STEPS)
    order = torch.randperm(steps * BATCH) % len(seen)
    for step, chosen in enumerate(order.view(steps, BATCH)):
        pixels, wanted = seen[chosen], masks[chosen].float() / 255
        if step % 2:
            pixels, wanted = pixels.flip(-1), wanted.flip(-1)
        pixels = (pixels + 0.02 * torch.rand(1) * torch.randn_like(pixels))[:, torch.randperm(3)]
        each = network.masks(pixels.contiguous(memory_format=torch.channels_last))
        mixed = network.outconv(torch.cat(each, 1))
        losses = [
            functional.binary_cross_entropy_with_logits(mask, wanted) for mask in (mixed, *each)
        ]
        optimizer.zero_grad()
        torch.autograd.backward(2 * losses[0] + torch.stack(losses[1:]).mean())
        optimizer.step()
        rate.step()
        if step % 20 == 0:
            print(f"{step}: {losses[0].item():.4f}", flush=True)
    network.eval()
    return network


def write(network: Network, file: Path) -> None:
    """In half precision, with the size that it was trained for."""
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, file, {"format": "pt", "modelspec.resolution": f"{SIDE}x{SIDE}"})


if __name__ == "__main__":
    main()
