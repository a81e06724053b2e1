"""The autoencoder: 128x128 pictures to 16x16 latents and back."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.muon import Optimizers
from training.pictures import drawn_crops, drawn_pictures
from training.precision import autocast
from training.progress import Progress, RateOfStage, Schedule, run_stage
from training.untyped import AutoencoderKL

SEED = 1
HELD_OUT_SEED = 1_000_001
SCALING_FACTOR = 0.18215  # Stable Diffusion 1.x; our latents are normalised to suit it
SCHEDULE = Schedule(steps=16_000, rate=7e-4, rise=100, fall=3000)
DECODER_SCHEDULE = Schedule(steps=6000, rate=4e-4, rise=100, fall=3000)
CROP = 64
CROPS_IN_A_PICTURE = 2
CROPPED_PICTURES = 4  # 8 crops cost as much as 2 whole pictures
WHOLE_PICTURES, ONLY_WHOLE_PICTURES = 2, 4
WHOLE_SHARE = 0.25
LAST_STEPS = 600
WEIGHT_DECAY = 1e-4
EDGE_WEIGHT = 1.0
KL_WEIGHT = 3e-4
# What a sampler leaves is a little off. A share of the latents is, too, by up to this part of
# their spread; a decoder that has seen only clean ones draws wobbling edges from a sampler's.
LARGEST_DRIFT, DRIFTING_SHARE = 0.1, 0.25
AVERAGE_DECAY = 0.998
PICTURES_FOR_STATISTICS = 1024
PICTURES_HELD_OUT = 128


def new_vae() -> Any:
    vae = AutoencoderKL(
        block_out_channels=(32, 48, 64, 64),
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


def train_vae(run_folder: Path, device: torch.device, steps: int | None = None) -> None:
    """Trains, folds the latents' statistics in and writes `vae/`; done work is not repeated."""
    target = run_folder / "vae"
    if (target / "config.json").exists():
        return
    progress = Progress(run_folder, "vae")
    torch.manual_seed(SEED)
    # Channels last: a sixth faster on the CPU.
    vae = new_vae().to(device, memory_format=torch.channels_last)
    step = train(vae, progress, RateOfStage(SCHEDULE.with_steps(steps), progress), device)
    normalise_latents(vae, device)
    save_vae(vae, target, device, progress, step)


def refine_decoder(run_folder: Path, device: torch.device, steps: int | None = None) -> None:
    """Train the decoder alone on whole pictures, into `vae/`: the latents stay what they are."""
    progress = Progress(run_folder, "decoder")
    vae = AutoencoderKL.from_pretrained(run_folder / "vae")
    vae.to(device, memory_format=torch.channels_last)
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    rate = RateOfStage(DECODER_SCHEDULE.with_steps(steps), progress)
    step = train(vae, progress, rate, device, all_whole=True)
    save_vae(vae, run_folder / "vae", device, progress, step)


def train(
    vae: Any,
    progress: Progress,
    rate: RateOfStage,
    device: torch.device,
    *,
    all_whole: bool = False,
) -> int:
    """Train from the saved state on, leave the average's weights, and return how many steps."""
    optimizer = Optimizers(vae, rate.schedule.rate, WEIGHT_DECAY)

    def one_step(step: int) -> dict[str, Tensor]:
        torch.manual_seed(SEED + step)
        whole = all_whole or rate.end(step) - step <= LAST_STEPS
        return vae_step(vae, optimizer, pictures_of_step(step, whole=whole).to(device))

    step = run_stage(vae, optimizer, progress, rate, AVERAGE_DECAY, one_step)
    vae.eval()
    return step


def save_vae(vae: Any, target: Path, device: torch.device, progress: Progress, step: int) -> None:
    """Write the autoencoder, and logs how exact it is."""
    progress.log(step, held_out_psnr=held_out_psnr(vae, device))
    vae.to("cpu").save_pretrained(target)


def pictures_of_step(step: int, *, whole: bool) -> Tensor:
    """The pictures of one step: mostly crops, or whole ones only."""
    rng = random.Random(f"vae {SEED} {step}")
    if whole:
        return drawn_pictures(rng, ONLY_WHOLE_PICTURES)
    if rng.random() < WHOLE_SHARE:
        return drawn_pictures(rng, WHOLE_PICTURES)
    return drawn_crops(rng, CROPPED_PICTURES, CROPS_IN_A_PICTURE, CROP)


def vae_step(vae: Any, optimizer: Optimizers, pictures: Tensor) -> dict[str, Tensor]:
    with autocast(pictures.device):
        posterior = vae.encode(pictures).latent_dist
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    latents = drifting(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
    with autocast(pictures.device):
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


def drifting(latents: Tensor) -> Tensor:
    """The latents, some of them with a little noise, measured by each channel's spread.

    The encoder learns nothing from these: it would give up detail for codes that bear noise.
    """
    spread = latents.detach().std((0, 2, 3), keepdim=True)
    strength = LARGEST_DRIFT * torch.rand(len(latents), 1, 1, 1, device=latents.device)
    drifts = torch.rand_like(strength) < DRIFTING_SHARE
    drifted = latents.detach() + strength * spread * torch.randn_like(latents)
    return torch.where(drifts, drifted, latents)


@torch.no_grad()
def normalise_latents(vae: Any, device: torch.device) -> None:
    """Make latents times the scaling factor have mean 0 and spread 1 in every channel.

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
