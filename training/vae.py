"""The autoencoder: 128x128 pictures to 16x16 latents and back."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.pictures import drawn_crops, drawn_pictures
from training.progress import Averages, Progress, rise_and_fall, set_learning_rate
from training.untyped import AutoencoderKL

SEED = 1
HELD_OUT_SEED = 1_000_001
SCALING_FACTOR = 0.18215  # Stable Diffusion 1.x; our latents are normalised to suit it
PEAK_RATE = 1.2e-3
WARM_UP = 100
BATCH = 8
CROP = 64
EDGE_WEIGHT = 0.5
KL_WEIGHT = 3e-4
PICTURES_FOR_STATISTICS = 2048
PICTURES_HELD_OUT = 256


@dataclass(frozen=True)
class VaeSteps:
    """Steps on crops, four times as cheap, then on whole pictures.

    The learning rate is a cosine over `cosine` steps, which it leaves for a straight fall to zero
    in the last `fall` of them.
    """

    crops: int = 6000
    whole: int = 900
    cosine: int = 8000
    fall: int = 800

    @property
    def total(self) -> int:
        """Both kinds."""
        return self.crops + self.whole

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        done = min(step, self.total - self.fall) / self.cosine
        cosine = 0.5 * (1 + math.cos(math.pi * done)) + 0.005
        ends = rise_and_fall(step, self.total, rise=WARM_UP, fall=self.fall)
        return PEAK_RATE * cosine * ends


def new_vae() -> Any:
    """An untrained autoencoder."""
    vae = AutoencoderKL(
        block_out_channels=(16, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        # Two groups: with eight, groups of two channels lose the colours of flat areas.
        norm_num_groups=2,
        sample_size=128,
        scaling_factor=SCALING_FACTOR,
    )
    start_near_identity(vae)
    return vae


@torch.no_grad()
def start_near_identity(vae: Any) -> None:
    """Residual branches start at zero, resampling at about identity: half the loss at step 600."""
    for name, module in vae.named_modules():
        if name.endswith(("conv2", "to_out.0")):
            module.weight.zero_()
            module.bias.zero_()
        elif name.endswith("downsamplers.0.conv"):
            module.weight.mul_(0.1)
            module.weight[:, :, :2, :2] += identity_kernel(module) / 4
            module.bias.zero_()
        elif name.endswith("upsamplers.0.conv"):
            module.weight.mul_(0.1)
            module.weight[:, :, 1:2, 1:2] += identity_kernel(module)
            module.bias.zero_()
        elif name.endswith("conv_shortcut"):
            torch.nn.init.orthogonal_(module.weight)
            module.bias.zero_()


def identity_kernel(convolution: Any) -> Tensor:
    """A 1x1 kernel that hands each channel on."""
    return torch.eye(convolution.weight.shape[0])[:, :, None, None]


def train_vae(run_folder: Path, device: torch.device, steps: VaeSteps) -> None:
    """Trains, folds the latents' statistics in and writes `vae/`; done work is not repeated."""
    target = run_folder / "vae"
    if (target / "config.json").exists():
        return
    progress = Progress(run_folder, "vae")
    torch.manual_seed(SEED)
    # Channels last: a sixth faster on the CPU.
    vae = new_vae().to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        vae.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-4
    )
    first_step = 0
    if saved := progress.load():
        vae.load_state_dict(saved["vae"])
        optimizer.load_state_dict(saved["optimizer"])
        first_step = saved["step"]
    averages = Averages()
    for step in range(first_step, steps.total):
        rate = steps.rate(step)
        set_learning_rate(optimizer, rate)
        averages.add(**vae_step(vae, optimizer, batch_of(step, steps).to(device)))
        if (step + 1) % 200 == 0:
            progress.log(step + 1, rate=rate, **averages.taken())
        if progress.save_is_due():
            state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
            progress.save({**state, "step": step + 1})
    vae.eval()
    normalise_latents(vae, device)
    progress.log(steps.total, held_out_psnr=held_out_psnr(vae, device))
    vae.to("cpu").save_pretrained(target)


def batch_of(step: int, steps: VaeSteps) -> Tensor:
    """The pictures of one step; they depend on nothing but its number."""
    torch.manual_seed(SEED + step)
    rng = random.Random(f"vae {SEED} {step}")
    if step < steps.crops:
        return drawn_crops(rng, BATCH, CROP)
    return drawn_pictures(rng, BATCH)


def vae_step(vae: Any, optimizer: torch.optim.Optimizer, pictures: Tensor) -> dict[str, Tensor]:
    """One step; gives the parts of its loss."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        posterior = vae.encode(pictures).latent_dist
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
    with torch.autocast(pictures.device.type, torch.bfloat16):
        decoded = vae.decode(latents).sample
    error = decoded.float() - pictures
    absolute, squared = error.abs().mean(), error.square().mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    loss = absolute + squared + EDGE_WEIGHT * edges + KL_WEIGHT * kl
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()
    figures = {"l1": absolute, "mse": squared, "edges": edges, "kl": kl}
    return {name: figure.detach() for name, figure in figures.items()}


@torch.no_grad()
def normalise_latents(vae: Any, device: torch.device) -> None:
    """Makes latents times the scaling factor have mean 0 and spread 1 in every channel.

    Exactly, by folding it into the 1x1 convolutions on both sides of the latents.
    """
    rng = random.Random(f"vae statistics {SEED}")
    means = torch.cat(
        [
            vae.encode(drawn_pictures(rng, 32).to(device)).latent_dist.mean
            for _ in range(PICTURES_FOR_STATISTICS // 32)
        ]
    )
    centre, spread = means.mean((0, 2, 3)), means.std((0, 2, 3))
    factor = 1 / (spread * SCALING_FACTOR)
    before, after = vae.quant_conv, vae.post_quant_conv
    before.weight[:4] *= factor[:, None, None, None]
    before.bias[:4] = (before.bias[:4] - centre) * factor
    before.bias[4:] += 2 * factor.log()
    after.bias += after.weight[:, :, 0, 0] @ centre
    after.weight /= factor[None, :, None, None]


@torch.no_grad()
def held_out_psnr(vae: Any, device: torch.device) -> float:
    """Mean decibels over pictures that were never trained on."""
    rng = random.Random(HELD_OUT_SEED)
    ratios = []
    for _ in range(PICTURES_HELD_OUT // 32):
        pictures = drawn_pictures(rng, 32).to(device)
        decoded = vae.decode(vae.encode(pictures).latent_dist.mode()).sample.clamp(-1, 1)
        squared = ((decoded - pictures) / 2).square().mean((1, 2, 3))
        ratios.append(-10 * squared.log10())
    return float(torch.cat(ratios).mean())
