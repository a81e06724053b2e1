"""Trains UNet and text encoder together, from nothing, on the pictures' latents."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTokenizer

from training.examples import SECOND_ROUND_FROM, SEED, UNSAID, Examples, examples_of
from training.latents import EncodedPictures, Size
from training.networks import PROBED, Denoiser
from training.noise import loss_weights
from training.progress import Averages, Progress, rise_and_fall, set_learning_rate
from training.workers import average_gradients, worker_count, worker_number

STEPS = 8000
PEAK_RATE = 8e-4
WARM_UP = 200
FALL = 2500
SECOND_PEAK_RATE = 5e-4
SECOND_WARM_UP = 50
SECOND_FALL = 700
AVERAGE_DECAY = 0.999
PROBE_WEIGHT = 0.1
LAYOUT_PROBES = ("position", "size", "subject")
# Layout was learnt within these steps and colours hardly, so the other probes joined here.
OTHER_PROBES_FROM = 1850


def train_denoiser(
    run_folder: Path,
    device: torch.device,
    pictures: dict[Size, EncodedPictures],
    tokenizer: CLIPTokenizer,
    steps: int = STEPS,
) -> None:
    """Trains until `denoiser.state.pt` holds the last step; its average is what is exported."""
    progress = Progress(run_folder, "denoiser")
    torch.manual_seed(SEED)
    denoiser = Denoiser(tokenizer).to(device).train()
    denoiser.unet.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        denoiser.parameters(), lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    average = {name: value.clone() for name, value in denoiser.state_dict().items()}
    first_step = 0
    if saved := progress.load():
        denoiser.load_state_dict(saved["denoiser"])
        optimizer.load_state_dict(saved["optimizer"])
        average = {name: value.to(device) for name, value in saved["average"].items()}
        first_step = saved["step"]
    averages = Averages()
    for step in range(first_step, steps):
        rate = learning_rate(step, steps)
        set_learning_rate(optimizer, rate)
        examples = examples_of(step, pictures, tokenizer)
        examples = examples.part(worker_number(), worker_count())
        probed = PROBED if step >= OTHER_PROBES_FROM else LAYOUT_PROBES
        averages.add(**denoiser_step(denoiser, optimizer, examples, probed))
        if worker_number() > 0:
            continue
        follow(average, denoiser, step)
        if (step + 1) % 100 == 0:
            progress.log(step + 1, rate=rate, **averages.taken())
        if progress.save_is_due() or step + 1 == steps:
            state = {"denoiser": denoiser.state_dict(), "optimizer": optimizer.state_dict()}
            progress.save({**state, "average": average, "step": step + 1})


def learning_rate(step: int, steps: int) -> float:
    """Two rounds, each with a rise and a long fall."""
    if step < SECOND_ROUND_FROM:
        return PEAK_RATE * rise_and_fall(step, SECOND_ROUND_FROM, rise=WARM_UP, fall=FALL)
    step, steps = step - SECOND_ROUND_FROM, steps - SECOND_ROUND_FROM
    return SECOND_PEAK_RATE * rise_and_fall(step, steps, rise=SECOND_WARM_UP, fall=SECOND_FALL)


def denoiser_step(
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    probed: Collection[str],
) -> dict[str, Tensor]:
    """One step; gives the parts of its loss."""
    device = next(denoiser.parameters()).device
    timesteps = examples.timesteps.to(device)
    with torch.autocast(device.type, torch.bfloat16):
        text: Any = denoiser.text_encoder(examples.tokens.to(device))
        hints = {name: denoiser.probes[name](text.pooler_output) for name in probed}
        predicted = denoiser.unet(
            examples.noisy.to(device), timesteps, text.last_hidden_state
        ).sample
    errors = (predicted.float() - examples.target.to(device)).square().mean((1, 2, 3))
    weighted = (errors * loss_weights().to(device)[timesteps]).mean()
    probe_losses = [
        probe_loss(hint.float(), examples.labels[name].to(device)) for name, hint in hints.items()
    ]
    loss = weighted + PROBE_WEIGHT * torch.stack(probe_losses).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(denoiser.parameters())
    nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
    optimizer.step()
    return {
        "mse": errors.detach().mean(),
        "weighted": weighted.detach(),
        "probes": torch.stack(probe_losses).sum().detach(),
    }


def probe_loss(hint: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the labels that the captions say; zero when they say none."""
    total = nn.functional.cross_entropy(hint, labels, ignore_index=UNSAID, reduction="sum")
    return total / (labels != UNSAID).sum().clamp(min=1)


@torch.no_grad()
def follow(average: dict[str, Tensor], denoiser: Denoiser, step: int) -> None:
    """Moves the exponential moving average on by one step; early it follows faster."""
    decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
    for name, value in denoiser.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
