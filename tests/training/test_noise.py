"""What the denoiser is asked, and how its learning rate moves."""

from __future__ import annotations

import pytest
import torch

from training.noise import (
    new_sampler,
    noisy_and_target,
    signal_shares,
)


def test_the_target_leads_back_to_the_clean_latents_whatever_is_shown() -> None:
    """Taking the target out of the noisy latents leaves the captioned picture."""
    torch.manual_seed(1)
    clean, unrelated = torch.randn(4, 4, 16, 16), torch.randn(4, 4, 16, 16)
    share = signal_shares()[torch.tensor([100, 500, 800, 999])]
    signal, rest = (part.sqrt().view(-1, 1, 1, 1) for part in (share, 1 - share))
    for shown in (clean, unrelated, torch.zeros_like(clean)):
        noisy, v = noisy_and_target(clean, shown, share)
        assert torch.allclose(signal * noisy - rest * v, clean, atol=1e-4)


def test_the_noise_is_stable_diffusions() -> None:
    """Other programs compute their schedules from these values."""
    sampler = new_sampler()
    assert float(sampler.alphas_cumprod[999]) == pytest.approx(0.00466, abs=1e-5)
    assert (sampler.config.steps_offset, sampler.config.set_alpha_to_one) == (1, False)
