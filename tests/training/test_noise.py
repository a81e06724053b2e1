"""What the denoiser is asked, and how its learning rate moves."""

from __future__ import annotations

import pytest
import torch

from training.noise import (
    DECOUPLED_FROM,
    loss_weights,
    new_sampler,
    noisy_and_target,
    signal_shares,
    spread_timesteps,
    with_decoupled_layout,
)
from training.progress import rise_and_fall


def test_the_target_leads_back_to_the_clean_latents_whatever_is_shown() -> None:
    """Taking the target out of the noisy latents leaves the captioned picture."""
    torch.manual_seed(1)
    clean, unrelated = torch.randn(4, 4, 16, 16), torch.randn(4, 4, 16, 16)
    share = signal_shares()[torch.tensor([100, 500, 800, 999])]
    signal, rest = (part.sqrt().view(-1, 1, 1, 1) for part in (share, 1 - share))
    for shown in (clean, unrelated, torch.zeros_like(clean)):
        noisy, v = noisy_and_target(clean, shown, share)
        assert torch.allclose(signal * noisy - rest * v, clean, atol=1e-4)


def test_only_strong_noise_with_a_caption_hides_another_picture() -> None:
    """Weak noise, and pictures without captions, keep their own latents."""
    torch.manual_seed(2)
    clean = torch.randn(400, 4, 2, 2)
    weak = torch.full((400,), DECOUPLED_FROM)
    strong = torch.full((400,), 999)
    yes, no = torch.ones(400, dtype=torch.bool), torch.zeros(400, dtype=torch.bool)
    assert torch.equal(with_decoupled_layout(clean, weak, yes), clean)
    assert torch.equal(with_decoupled_layout(clean, strong, no), clean)
    changed = (with_decoupled_layout(clean, strong, yes) != clean).any(dim=(1, 2, 3))
    assert 100 < int(changed.sum()) < 220


def test_timesteps_cover_the_whole_range_in_every_batch() -> None:
    """Each tenth of the range is met once by ten examples."""
    timesteps = spread_timesteps(10).sort().values
    assert torch.equal(timesteps // 100, torch.arange(10))


def test_strong_noise_weighs_most() -> None:
    """There the caption alone decides."""
    weights = loss_weights()
    assert weights[0] < weights[500] <= weights[999] == weights.max()


def test_the_noise_is_stable_diffusions() -> None:
    """Other programs compute their schedules from these values."""
    sampler = new_sampler()
    assert float(sampler.alphas_cumprod[999]) == pytest.approx(0.00466, abs=1e-5)
    assert (sampler.config.steps_offset, sampler.config.set_alpha_to_one) == (1, False)


def test_the_learning_rate_rises_holds_and_falls() -> None:
    """Straight lines at both ends, 1 between them."""
    rates = [rise_and_fall(step, 100, rise=10, fall=20) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert set(rates[9:80]) == {1.0}
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)
