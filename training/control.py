"""Trains a ControlNet for the demo model: `python -m training.control`.

It draws what a sketch shows: white lines on black, as canny and inverted drawings give them.
"Adding Conditional Control to Text-to-Image Diffusion Models", https://arxiv.org/abs/2302.05543.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file
from torch import Tensor, nn

from picowatch.engine.preprocess import canny
from training.captions import caption
from training.drawing import draw
from training.noise import (
    TIMESTEPS,
    loss_weights,
    noisy_and_target,
    signal_shares,
    with_decoupled_layout,
)
from training.pictures import as_batch
from training.progress import Averages, Progress, rise_and_fall, save_whole, set_learning_rate
from training.scenes import Scene, ShapeScene, random_scene
from training.styles import encoded, frozen, prediction_of, tokens_of
from training.untyped import ControlNetModel
from training.vae import SCALING_FACTOR

SEED = 5
NAME = "demo-sketch"
PICTURES = 2000
BATCH = 16
STEPS = 940
PEAK_RATE = 1e-3
WARM_UP = 50
FALL = 500
AVERAGE_DECAY = 0.995
REPORTED = 50  # steps
# What the sketch alone decides, the caption does not say: half of the captions say nothing.
NO_CAPTION_SHARE = 0.3
# Noise in which the layout is decided comes more often.
TIMESTEP_SKEW = 0.6
# The layers that read the sketch; narrower than usual, for a file of two megabytes.
HINT_CHANNELS = (16, 16, 32, 32)
THRESHOLDS = (60, 120)


@dataclass(frozen=True)
class Sketches:
    """Scenes, their pictures' latents, and their sketches, 1 where there is a line."""

    scenes: list[Scene]
    latents: Tensor
    lines: Tensor


def main() -> None:
    """Trains until the last step and writes the file; killed, it goes on where it was."""
    arguments = parsed_arguments()
    torch.set_num_threads(arguments.threads)
    model = frozen(arguments.model)
    sketches = kept_sketches(model.vae, arguments.run_dir, arguments.pictures)
    average = train(model, sketches, arguments.run_dir, arguments.steps)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.half().contiguous() for name, value in average.items()}
    save_file(tensors, arguments.out / f"{NAME}.safetensors", {"modelspec.title": NAME})


def new_control(unet: Any) -> Any:
    """Without attention, as the small ControlNets for SDXL; the rest begins as the UNet's half."""
    config = {
        name: value
        for name, value in unet.config.items()
        if name in ("in_channels", "block_out_channels", "layers_per_block", "norm_num_groups")
    }
    control = ControlNetModel(
        **config,
        down_block_types=("DownBlock2D",) * len(unet.config.block_out_channels),
        mid_block_type="UNetMidBlock2D",
        cross_attention_dim=unet.config.cross_attention_dim,
        conditioning_embedding_out_channels=HINT_CHANNELS,
    )
    wanted = control.state_dict()
    control.load_state_dict(
        {name: value for name, value in unet.state_dict().items() if name in wanted}, strict=False
    )
    return control.requires_grad_(True).train()


def train(model: Any, sketches: Sketches, run_folder: Path, steps: int) -> dict[str, Tensor]:
    """Trains until `control.state.pt` holds the last step; gives the average of the weights."""
    torch.manual_seed(SEED)
    progress, averages = Progress(run_folder, "control"), Averages()
    control = new_control(model.unet).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(control.parameters(), lr=PEAK_RATE, weight_decay=0.01)
    average = {name: value.clone() for name, value in control.state_dict().items()}
    first_step = 0
    if saved := progress.load():
        control.load_state_dict(saved["control"])
        optimizer.load_state_dict(saved["optimizer"])
        average, first_step = saved["average"], saved["step"]
    for step in range(first_step, steps):
        rate = PEAK_RATE * rise_and_fall(step, steps, rise=WARM_UP, fall=FALL)
        set_learning_rate(optimizer, rate)
        loss = loss_of(model, control, sketches, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(control.parameters(), 1.0)
        optimizer.step()
        averages.add(loss=loss.detach())
        decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
        for name, value in control.state_dict().items():
            average[name].lerp_(value, 1 - decay)
        if (step + 1) % REPORTED == 0:
            progress.log(step + 1, rate=rate, **averages.taken())
        if progress.save_is_due() or step + 1 == steps:
            state = {"control": control.state_dict(), "optimizer": optimizer.state_dict()}
            progress.save({**state, "average": average, "step": step + 1})
    return average


def loss_of(model: Any, control: Any, sketches: Sketches, step: int) -> Tensor:
    """The error of one step's examples, which depend on nothing but its number."""
    torch.manual_seed(SEED + step)
    rng = random.Random(f"control {SEED} {step}")
    chosen = [rng.randrange(len(sketches.scenes)) for _ in range(BATCH)]
    scenes = [sketches.scenes[one] for one in chosen]
    texts = ["" if rng.random() < NO_CAPTION_SHARE else caption(one, rng) for one in scenes]
    clean = sketches.latents[chosen]
    hints = sketches.lines[chosen].float()[:, None].expand(-1, 3, -1, -1)
    spans = (torch.arange(BATCH) + torch.rand(BATCH)) / BATCH
    timesteps = (spans**TIMESTEP_SKEW * TIMESTEPS).long().clamp(0, TIMESTEPS - 1)
    shown = with_decoupled_layout(clean, timesteps, torch.ones(BATCH, dtype=torch.bool))
    noisy, target = noisy_and_target(clean, shown, signal_shares()[timesteps], prediction_of(model))
    with torch.no_grad():
        states = encoded(model, tokens_of(model, texts))
    down, middle = control(noisy, timesteps, states, hints, return_dict=False)
    predicted = model.unet(
        noisy,
        timesteps,
        states,
        down_block_additional_residuals=down,
        mid_block_additional_residual=middle,
    ).sample
    errors = (predicted - target).square().mean((1, 2, 3))
    loss: Tensor = (errors * loss_weights(prediction_of(model))[timesteps]).mean()
    return loss


def kept_sketches(vae: Any, run_folder: Path, count: int) -> Sketches:
    """Draws and encodes the training pictures, or reads them if that was done before."""
    file, rng = run_folder / "sketches.pt", random.Random(f"sketches {SEED}")
    run_folder.mkdir(parents=True, exist_ok=True)
    scenes = [without_place(replace(random_scene(rng), blurry=False)) for _ in range(count)]
    if not file.exists():
        parts, lines = [], []
        for begin in range(0, count, BATCH):
            pictures = [placed(draw(one, rng), rng) for one in scenes[begin : begin + BATCH]]
            lines += [sketched(picture, rng) for picture in pictures]
            with torch.no_grad():
                parts.append(vae.encode(as_batch(pictures)).latent_dist.mode() * SCALING_FACTOR)
        save_whole({"latents": torch.cat(parts), "lines": torch.from_numpy(np.stack(lines))}, file)
    kept = torch.load(file, weights_only=True)
    return Sketches(scenes, kept["latents"], kept["lines"])


def without_place(scene: Scene) -> Scene:
    """Size and position are the sketch's to say."""
    return replace(scene, size="", position="") if isinstance(scene, ShapeScene) else scene


def placed(picture: Image.Image, rng: random.Random) -> Image.Image:
    """The picture moved, turned and scaled at random, its background all around."""
    scale, angle = rng.uniform(0.55, 1.25), rng.uniform(-25, 25)
    free = 20 + 40 * max(0.0, 1 - scale)
    shift = round(rng.uniform(-free, free)), round(rng.uniform(-free, free))
    centre = picture.width / 2, picture.height / 2
    turned = picture.rotate(
        angle, Image.Resampling.BICUBIC, translate=shift, fillcolor=picture.getpixel((0, 0))
    )
    left, top = (middle - middle / scale for middle in centre)
    return turned.transform(
        picture.size,
        Image.Transform.AFFINE,
        (1 / scale, 0, left, 0, 1 / scale, top),
        Image.Resampling.BICUBIC,
        fillcolor=picture.getpixel((0, 0)),
    )


def sketched(picture: Image.Image, rng: random.Random) -> Any:
    """The picture's edges as somebody might draw them: as wide as a pen, and not quite true."""
    lines = Image.fromarray(canny(np.asarray(picture), *THRESHOLDS))
    width = rng.choice((1, 1, 3, 3, 5))
    if width > 1:
        lines = lines.filter(ImageFilter.MaxFilter(width))
    return wobbled(np.asarray(lines), rng) > 127


def wobbled(lines: Any, rng: random.Random) -> Any:
    """Each pixel from up to two pixels beside, smoothly different across the picture."""
    height, width = lines.shape
    most = rng.choice((0.0, 1.0, 2.0))
    state = np.random.default_rng(rng.randrange(2**32))

    def offsets() -> Any:
        coarse = Image.fromarray(state.uniform(-most, most, (6, 6)).astype(np.float32))
        return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))

    rows, columns = np.mgrid[:height, :width]
    rows = (rows + offsets()).round().astype(int).clip(0, height - 1)
    columns = (columns + offsets()).round().astype(int).clip(0, width - 1)
    return lines[rows, columns]


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("picowatch/assets/demo"))
    parser.add_argument("--out", type=Path, default=Path("picowatch/assets"))
    parser.add_argument("--run-dir", type=Path, default=Path("training/runs/control"))
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
