"""UNet and text encoder, trained together from nothing on the pictures' latents."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training.captions import caption, only_unknown_words, with_unknown_words
from training.latents import EncodedPictures, Size
from training.noise import (
    loss_weights,
    noisy_and_target,
    signal_shares,
    spread_timesteps,
    with_decoupled_layout,
)
from training.progress import Averages, Progress, rise_and_fall, set_learning_rate
from training.scenes import POSITIONS, SHAPES, SIZES, Scene, ShapeScene
from training.tokenizer import MAX_TOKENS
from training.untyped import UNet2DConditionModel
from training.workers import average_gradients, worker_count, worker_number

SEED = 3
STEPS = 8_000
BATCH = 16
PEAK_RATE = 8e-4
WARM_UP = 200
FALL = 2500
AVERAGE_DECAY = 0.999
NATIVE: Size = (128, 128)
OTHER_SIZES_SHARE = 0.08
NO_CAPTION_SHARE = 0.1
UNKNOWN_WORDS_SHARE = 0.05
ONLY_UNKNOWN_WORDS_SHARE = 0.015
PROBE_WEIGHT = 0.1
PROBED = {"position": len(POSITIONS), "size": len(SIZES), "subject": len(SHAPES) + 1}
UNSAID = -100  # cross_entropy's ignore_index


class Denoiser(nn.Module):
    """The two networks that are kept, and the probes that are thrown away.

    The probes read position, size and subject from the caption's embedding: without them the
    text encoder hardly tells left from right.
    """

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = new_unet()
        self.text_encoder = new_text_encoder(tokenizer)
        self.probes = nn.ModuleDict(
            {
                name: nn.Linear(self.text_encoder.config.hidden_size, classes)
                for name, classes in PROBED.items()
            }
        )


def new_unet() -> Any:
    """An untrained UNet."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 80, 112),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    start_branches_at_zero(unet)
    # Plain attention: at such narrow heads a third faster than SDPA's backward on the CPU.
    unet.set_attn_processor(AttnProcessor())
    return unet


@torch.no_grad()
def start_branches_at_zero(unet: Any) -> None:
    """zero_module() of the original latent diffusion code, which diffusers leaves out."""
    for name, module in unet.named_modules():
        if name.endswith(("conv2", "proj_out")) or name == "conv_out":
            module.weight.zero_()
            module.bias.zero_()


def new_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained CLIP text encoder for the tokenizer."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=64,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            # SDPA's backward is slow on the CPU.
            attn_implementation="eager",
        )
    )


@dataclass(frozen=True)
class Examples:
    """One step's noisy latents, the noise to find in them, the captions' tokens and labels."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    tokens: Tensor
    labels: dict[str, Tensor]

    def part(self, number: int, count: int) -> Examples:
        """Every `count`th example from the given one on."""
        return Examples(
            self.noisy[number::count],
            self.target[number::count],
            self.timesteps[number::count],
            self.tokens[number::count],
            {name: labels[number::count] for name, labels in self.labels.items()},
        )


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
        rate = PEAK_RATE * rise_and_fall(step, steps, rise=WARM_UP, fall=FALL)
        set_learning_rate(optimizer, rate)
        examples = examples_of(step, pictures, tokenizer).part(worker_number(), worker_count())
        averages.add(**denoiser_step(denoiser, optimizer, examples))
        if worker_number() > 0:
            continue
        follow(average, denoiser, step)
        if (step + 1) % 100 == 0:
            progress.log(step + 1, rate=rate, **averages.taken())
        if progress.save_is_due() or step + 1 == steps:
            state = {"denoiser": denoiser.state_dict(), "optimizer": optimizer.state_dict()}
            progress.save({**state, "average": average, "step": step + 1})


def examples_of(
    step: int, pictures: dict[Size, EncodedPictures], tokenizer: CLIPTokenizer
) -> Examples:
    """The examples of one step; they depend on nothing but its number."""
    torch.manual_seed(SEED + step)
    rng = random.Random(f"denoiser {SEED} {step}")
    others = [size for size in pictures if size != NATIVE]
    size = rng.choice(others) if others and rng.random() < OTHER_SIZES_SHARE else NATIVE
    count = BATCH * NATIVE[0] * NATIVE[1] // (size[0] * size[1])
    chosen = [rng.randrange(len(pictures[size].scenes)) for _ in range(count)]
    scenes = [pictures[size].scenes[i] for i in chosen]
    texts = [caption_or_nothing(scene, rng) for scene in scenes]
    labels = [labels_of(scene, text) for scene, text in zip(scenes, texts, strict=True)]
    tokens = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    clean = pictures[size].sampled(torch.tensor(chosen))
    timesteps = spread_timesteps(count)
    captioned = torch.tensor([bool(text) for text in texts])
    shown = with_decoupled_layout(clean, timesteps, captioned)
    noisy, target = noisy_and_target(clean, shown, signal_shares()[timesteps])
    return Examples(
        noisy,
        target,
        timesteps,
        tokens.input_ids,
        {name: torch.tensor([label[name] for label in labels]) for name in PROBED},
    )


def caption_or_nothing(scene: Scene, rng: random.Random) -> str:
    """Mostly a caption; a tenth is left out, which is what classifier-free guidance needs.

    Some captions have made-up words, or hold nothing else: the tokens of foreign words would
    otherwise never be trained, and a prompt with one would disturb the picture.
    """
    chance = rng.random()
    if chance < NO_CAPTION_SHARE:
        return ""
    if chance < NO_CAPTION_SHARE + ONLY_UNKNOWN_WORDS_SHARE and not scene.blurry:
        return only_unknown_words(rng)
    text = caption(scene, rng)
    return with_unknown_words(text, rng) if rng.random() < UNKNOWN_WORDS_SHARE else text


def labels_of(scene: Scene, text: str) -> dict[str, int]:
    """What the probes must find; nothing where the caption may not say it."""
    if scene.blurry or "background" not in text:
        return dict.fromkeys(PROBED, UNSAID)
    if isinstance(scene, ShapeScene):
        return {
            "position": POSITIONS.index(scene.position),
            "size": SIZES.index(scene.size),
            "subject": SHAPES.index(scene.shape),
        }
    return {"position": UNSAID, "size": UNSAID, "subject": len(SHAPES)}


def denoiser_step(
    denoiser: Denoiser, optimizer: torch.optim.Optimizer, examples: Examples
) -> dict[str, Tensor]:
    """One step; gives the parts of its loss."""
    device = next(denoiser.parameters()).device
    timesteps = examples.timesteps.to(device)
    with torch.autocast(device.type, torch.bfloat16):
        text: Any = denoiser.text_encoder(examples.tokens.to(device))
        hints = {name: probe(text.pooler_output) for name, probe in denoiser.probes.items()}
        predicted = denoiser.unet(
            examples.noisy.to(device), timesteps, text.last_hidden_state
        ).sample
    errors = (predicted.float() - examples.target.to(device)).square().mean((1, 2, 3))
    weighted = (errors * loss_weights().to(device)[timesteps]).mean()
    probed = torch.stack(
        [probe_loss(hint.float(), examples.labels[name].to(device)) for name, hint in hints.items()]
    )
    loss = weighted + PROBE_WEIGHT * probed.sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    average_gradients(denoiser.parameters())
    nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
    optimizer.step()
    return {
        "mse": errors.detach().mean(),
        "weighted": weighted.detach(),
        "position_probe": probed[0].detach(),
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
