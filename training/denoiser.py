"""Train UNet and text encoder together, from nothing, on the pictures' latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from training.examples import SEED, UNSAID, Examples, examples_of
from training.latents import encoded_pictures
from training.muon import Optimizers
from training.networks import Denoiser
from training.precision import autocast
from training.progress import Progress, RateOfStage, Schedule, run_stage

SCHEDULE = Schedule(steps=40_000, rate=8e-4, rise=200, fall=2500)
AVERAGE_DECAY = 0.9995
WEIGHT_DECAY = 0.01
# What turns tokens, latents and answers into vectors and back has no directions to balance.
BY_ADAM = ("text_encoder.embeddings", "unet.conv_in", "unet.conv_out", "probes")
PROBE_WEIGHT = 0.1
# Meanwhile more training pictures may have been encoded.
STEPS_BETWEEN_LOOKS = 500


def train_denoiser(
    run_folder: Path, device: torch.device, tokenizer: CLIPTokenizer, steps: int | None = None
) -> None:
    """Train until `denoiser.state.pt` holds the last step; its average is what is exported."""
    progress = Progress(run_folder, "denoiser")
    torch.manual_seed(SEED)
    denoiser = Denoiser(tokenizer).to(device).train()
    denoiser.unet.to(memory_format=torch.channels_last)
    optimizer = Optimizers(denoiser, SCHEDULE.rate, WEIGHT_DECAY, by_adam=BY_ADAM)
    pictures = encoded_pictures(run_folder)

    def one_step(step: int) -> dict[str, Tensor]:
        nonlocal pictures
        if step % STEPS_BETWEEN_LOOKS == 0:
            pictures = encoded_pictures(run_folder)
        return denoiser_step(denoiser, optimizer, examples_of(step, pictures, tokenizer).to(device))

    rate = RateOfStage(SCHEDULE.with_steps(steps), progress)
    run_stage(denoiser, optimizer, progress, rate, AVERAGE_DECAY, one_step)


def denoiser_step(
    denoiser: Denoiser, optimizer: Optimizers, examples: Examples
) -> dict[str, Tensor]:
    """Take one step; return the parts of its loss."""
    with autocast(examples.noisy.device):
        text: Any = denoiser.text_encoder(examples.tokens)
        hints = {name: probe(text.pooler_output) for name, probe in denoiser.probes.items()}
        predicted = denoiser.unet(
            examples.noisy, examples.timesteps, text.last_hidden_state
        ).sample.float()
    errors = (predicted - examples.target).square().mean((1, 2, 3))
    weighted = (errors * examples.weights).mean()
    probe_losses = [probe_loss(hint.float(), examples.labels[name]) for name, hint in hints.items()]
    loss = weighted + PROBE_WEIGHT * torch.stack(probe_losses).sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
    optimizer.step()
    return {
        "mse": errors.detach().mean(),
        "weighted": weighted.detach(),
        "probes": torch.stack(probe_losses).sum().detach(),
    }


def probe_loss(hint: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy over the labels that the captions say; zero when they say none."""
    total = nn.functional.cross_entropy(hint, labels, ignore_index=UNSAID, reduction="sum")
    return total / (labels != UNSAID).sum().clamp(min=1)
