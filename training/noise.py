"""Stable Diffusion 1.x's noise, and what the denoiser is asked about it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from training.untyped import PNDMScheduler

TIMESTEPS = 1000
DECOUPLED_FROM, DECOUPLED_FULLY_FROM = 750, 950
DECOUPLED_SHARE = 0.35
LARGEST_SNR_WEIGHT = 5.0


def new_sampler() -> Any:
    """The sampler that the model's folder names, with Stable Diffusion 1.5's settings."""
    return PNDMScheduler(
        num_train_timesteps=TIMESTEPS,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="v_prediction",
    )


@cache
def signal_shares() -> Tensor:
    """The share of the picture's variance that is left at each timestep, DDPM's alpha-bar."""
    shares: Tensor = new_sampler().alphas_cumprod
    return shares


@cache
def loss_weights() -> Tensor:
    """Min-SNR weighting (Hang et al. 2023), not lowered where noise is strong: captions decide."""
    share = signal_shares()
    snr = share / (1 - share)
    return (LARGEST_SNR_WEIGHT / snr).clamp(max=1)


def spread_timesteps(count: int) -> Tensor:
    """Random timesteps, one from each of `count` equal spans, in random order."""
    spans = torch.arange(count) + torch.rand(count)
    timesteps = (spans * TIMESTEPS / count).long().clamp(0, TIMESTEPS - 1)
    return timesteps[torch.randperm(count)]


def with_decoupled_layout(clean: Tensor, timesteps: Tensor, captioned: Tensor) -> Tensor:
    """The latents to put under the noise: mostly the clean ones, sometimes unrelated ones.

    Even at the last timestep 0.5 % of the picture's variance shines through the noise. Trained
    on that alone, the network reads the layout from it rather than from the caption, and when
    sampling starts it obeys a layout that it sees in pure noise. So at strong noise a share of
    the captioned examples hides another picture's latents, or none, under the noise.
    """
    ramp = (timesteps - DECOUPLED_FROM) / (DECOUPLED_FULLY_FROM - DECOUPLED_FROM)
    decoupled = (torch.rand(len(clean)) < DECOUPLED_SHARE * ramp.clamp(0, 1)) & captioned
    empty = torch.rand(len(clean)) < 0.5
    unrelated = torch.where(as_column(empty), torch.zeros_like(clean), clean.roll(1, 0))
    return torch.where(as_column(decoupled), unrelated, clean)


def noisy_and_target(clean: Tensor, shown: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Noise over `shown`, and what to predict so that `clean` is what remains.

    Where both are the same, this is Salimans and Ho's v (2022): `signal` times the noise minus
    `rest` times the picture. An error in v moves the picture little even where noise is strong;
    the same error in predicted noise is divided by `signal`, and guidance multiplies it.
    """
    signal, rest = as_column(share.sqrt()), as_column((1 - share).sqrt())
    noisy = signal * shown + rest * torch.randn_like(shown)
    return noisy, (signal * noisy - clean) / rest


def as_column(values: Tensor) -> Tensor:
    """One value per example, shaped to multiply pictures."""
    return values.view(-1, 1, 1, 1)
