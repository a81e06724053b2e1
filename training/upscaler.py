"""The demo's upscaler, four times as large: `python -m training.upscaler`.

A small Compact, trained on the demo model's own drawings: sharp ones of 512 pixels, and what is
left of them at 128. A third of these went through the demo model's autoencoder, as its pictures do.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from picowatch.catalog.upscalers import COMPACT, Layout
from picowatch.engine.upscale_networks import Network, network_of
from training.canvas import NATIVE_SIZE
from training.drawing import draw
from training.pictures import as_batch
from training.progress import Progress, rise_and_fall, set_learning_rate
from training.scenes import random_scene
from training.untyped import AutoencoderKL

SCALE = 4
LAYOUT = Layout(COMPACT, SCALE, channels=32, blocks=6)
SEED, HELD_OUT_SEED = 5, 1_000_005
STEPS = 1500
BATCH, CROP = 8, 32
PIECES = 3
PICTURES = 96
PEAK_RATE = 1.5e-3
FITTED_BATCHES = 24
MOST_NOISE = 0.006
MOST_BLUR = 0.5  # pixels of the large picture
# The pixels whose colours the first layer hands on.
CORNERS = ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))
EDGE_WEIGHT = 0.3
ENCODED_SHARE = 0.35
HELD_OUT = 32
SMALLER = (Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def pair(rng: random.Random) -> tuple[Image.Image, Image.Image]:
    """A drawing, and the same in a quarter of its size as cameras and programs make it."""
    side = NATIVE_SIZE * SCALE
    large = draw(random_scene(rng), rng, side, side)
    soft = large.filter(ImageFilter.GaussianBlur(rng.uniform(0, MOST_BLUR)))
    small = soft.resize((NATIVE_SIZE, NATIVE_SIZE), rng.choice(SMALLER))
    return small.convert("RGB"), large.convert("RGB")


@torch.no_grad()
def encoded(vae: Any, small: Tensor) -> Tensor:
    """Pictures as the demo model's autoencoder gives them back."""
    latents = vae.encode(small).latent_dist.mode()
    found: Tensor = vae.decode(latents).sample.clamp(-1, 1)
    return found


class Drawings:
    """Drawn pairs, each small one as it was made and as the autoencoder gives it back."""

    def __init__(self, vae: Any, count: int) -> None:
        rng = random.Random(SEED)
        pairs = [pair(rng) for _ in range(count)]
        self.large = [as_batch([large])[0] for _, large in pairs]
        plain = [as_batch([small]) for small, _ in pairs]
        self.small = [(one[0], encoded(vae, one)[0]) for one in plain]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """What one step sees, from 0 to 1; it depends on the step's number alone."""
        rng, numbers = (
            random.Random(f"{SEED} {step}"),
            torch.Generator().manual_seed(step % 2**32),
        )
        crops = [self._crop(rng) for _ in range(BATCH)]
        small, large = (torch.stack(one) for one in zip(*crops, strict=True))
        noise = torch.randn(small.shape, generator=numbers) * rng.uniform(0, MOST_NOISE)
        return ((small + noise).clamp(-1, 1) + 1) / 2, (large + 1) / 2

    def _crop(self, rng: random.Random) -> tuple[Tensor, Tensor]:
        """The one of some pieces with the most in it; backgrounds are plain."""
        found: list[tuple[float, Tensor, Tensor]] = []
        for _ in range(PIECES):
            index = rng.randrange(len(self.large))
            left, top = (rng.randrange(NATIVE_SIZE - CROP + 1) for _ in range(2))
            one = self.small[index][rng.random() < ENCODED_SHARE]
            small = one[:, top : top + CROP, left : left + CROP]
            rows, columns = (slice(at * SCALE, (at + CROP) * SCALE) for at in (top, left))
            found.append((float(small.std()), small, self.large[index][:, rows, columns]))
        _, small, large = max(found, key=lambda one: one[0])
        if rng.random() < 0.5:
            small, large = small.flip(-1), large.flip(-1)
        if rng.random() < 0.5:
            small, large = small.transpose(1, 2), large.transpose(1, 2)
        return small, large


def loss_of(made: Tensor, goal: Tensor) -> Tensor:
    """The distance of colours, and of the differences between neighbours."""
    edges = sum(functional.l1_loss(made.diff(dim=side), goal.diff(dim=side)) for side in (-1, -2))
    return functional.l1_loss(made, goal) + EDGE_WEIGHT * edges


@torch.no_grad()
def start_near_a_filter(network: Network) -> None:
    """Let some channels hand on the colours of each pixel and of its four diagonal neighbours.

    A last layer can make every filter of 5x5 pixels of them, such as Lanczos. The other channels
    begin as random ones.
    """
    layers: Any = network.body
    first, linear = layers[0], 3 * len(CORNERS)
    first.weight[:linear] = 0
    first.bias.zero_()
    for index, (row, column) in enumerate(CORNERS):
        for colour in range(3):
            first.weight[3 * index + colour, colour, 1 + row, 1 + column] = 1
    for layer in layers[2:-1:2]:
        layer.weight[:linear] *= 0.02
        layer.bias.zero_()
        for channel in range(linear):
            layer.weight[channel, channel, 1, 1] = 1
    for activation in layers[1:-1:2]:
        activation.weight[:linear] = 1


@torch.no_grad()
def fit_last_layer(network: Network, drawings: Drawings) -> None:
    """By least squares: the best that can be made of the channels as they are."""
    layers: Any = network.body
    last, inner = layers[-1], layers[:-1]
    side = 9 * LAYOUT.channels + 1
    squares, products = torch.zeros(side, side).double(), torch.zeros(side, 3 * SCALE**2).double()
    for step in range(FITTED_BATCHES):
        seen, goal = drawings.batch(-1 - step)
        rows = functional.unfold(inner(seen), 3, padding=1).transpose(1, 2).flatten(0, 1)
        rows = torch.cat([rows, torch.ones(len(rows), 1)], 1).double()
        details = goal - functional.interpolate(seen, scale_factor=float(SCALE))
        wanted = functional.pixel_unshuffle(details, SCALE).flatten(2).transpose(1, 2)
        squares += rows.T @ rows
        products += rows.T @ wanted.flatten(0, 1).double()
    squares += 1e-4 * squares.diagonal().mean() * torch.eye(side)
    found = torch.linalg.solve(squares, products).float()
    last.weight.copy_(found[:-1].T.view_as(last.weight))
    last.bias.copy_(found[-1])


def train(run_folder: Path, vae: Any, steps: int) -> Network:
    """The trained network; killed, it goes on where it was."""
    torch.manual_seed(SEED)
    network = network_of(LAYOUT)
    drawings = Drawings(vae, PICTURES)
    start_near_a_filter(network)
    fit_last_layer(network, drawings)
    optimizer = torch.optim.Adam(network.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99))
    progress, first = Progress(run_folder, "upscaler"), 0
    if saved := progress.load():
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    for step in range(first, steps):
        set_learning_rate(
            optimizer,
            PEAK_RATE * rise_and_fall(step, steps, rise=100, fall=3 * steps // 4),
        )
        seen, goal = drawings.batch(step)
        loss = loss_of(network(seen), goal)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 0.5)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)
        if progress.save_is_due():
            state = {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            progress.save({**state, "step": step + 1})
    return network


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels."""
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return 10 * math.log10(255**2 / error)


@torch.no_grad()
def measure(network: Network, vae: Any) -> dict[str, tuple[float, float]]:
    """PSNR on held-out drawings, of what is small by averaging, and after the autoencoder."""
    rng = random.Random(HELD_OUT_SEED)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(HELD_OUT):
        side = NATIVE_SIZE * SCALE
        large = draw(random_scene(rng), rng, side, side).convert("RGB")
        plain = as_batch([large.resize((NATIVE_SIZE, NATIVE_SIZE), Image.Resampling.BOX)])
        versions = [plain, encoded(vae, plain)]
        goal = np.asarray(large)
        for name in ("bicubic", "lanczos", "demo-compact"):
            values = []
            for small in versions:
                pixels = ((small[0].permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
                if name == "demo-compact":
                    made = network((small + 1) / 2)[0].permute(1, 2, 0).clamp(0, 1) * 255
                    larger = made.round().to(torch.uint8).numpy()
                else:
                    method = Image.Resampling[name.upper()]
                    larger = np.asarray(Image.fromarray(pixels).resize(large.size, method))
                values.append(psnr(larger, goal))
            found.setdefault(name, []).append((values[0], values[1]))
    return {name: (float(np.mean([v[0] for v in each])), float(np.mean([v[1] for v in each])))
            for name, each in found.items()}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run-dir", type=Path, default=Path("training/runs/demo"))
    parser.add_argument("--model", type=Path, default=Path("picowatch/assets/demo"))
    parser.add_argument(
        "--out", type=Path, default=Path("picowatch/assets/demo-compact.safetensors")
    )
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args(arguments)
    vae = AutoencoderKL.from_pretrained(options.model / "vae", torch_dtype=torch.float32).eval()
    network = train(options.run_dir, vae, options.steps)
    halves = {name: one.half().contiguous() for name, one in network.state_dict().items()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, options.out, {"format": "pt"})
    network.load_state_dict({name: one.float() for name, one in halves.items()})
    for name, (plain, after) in measure(network, vae).items():
        print(f"{name}: {plain:.2f} dB, after the autoencoder {after:.2f} dB")


if __name__ == "__main__":
    main()
