"""Trains a LoRA and an embedding for the demo model: `python -m training.styles`.

`pixel-art.safetensors` is a LoRA that draws everything in coarse cells; `mascot.safetensors` is
a textual inversion (https://arxiv.org/abs/2208.01618) whose word means one corgi and all it wears.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import save_file
from torch import Tensor, nn

from training.adapters import adapters_for, kohya_metadata, parameters_of, write_lora
from training.captions import SCENE_FORMS, caption, pick, with_right_articles
from training.drawing import draw
from training.noise import (
    loss_weights,
    noisy_and_target,
    signal_shares,
    spread_timesteps,
    with_decoupled_layout,
)
from training.pictures import as_batch
from training.precision import autocast
from training.progress import rise_and_fall, set_learning_rate
from training.scenes import COLOURS, AnimalScene, Scene
from training.sprites import FITTING_STEPS, fitted_latents, sharp_scenes, sprite
from training.tokenizer import MAX_TOKENS
from training.untyped import StableDiffusionPipeline
from training.vae import SCALING_FACTOR

SEED = 4
BATCH = 16
WARM_UP = 20
REPORTED = 50  # steps
NO_CAPTION_SHARE = 0.1

STYLE = "pixel-art"
TRIGGER = "pixel art"
TRIGGER_SHARE = 0.5
SPRITES = 80
LORA_STEPS = 400
LORA_RATE = 5e-3

MASCOT = "mascot"
MASCOT_LOOK = AnimalScene("white", hat="yellow", sunglasses=True)
STAND_IN = "corgi"  # stands where the vectors go
# Each vector starts as a mean of words: from "corgi" alone 200 steps lead only to the sunglasses.
START_WORDS = (("corgi", "sunglasses"), ("yellow", "hat"))
VECTORS = len(START_WORDS)
MASCOT_PICTURES = 96
EMBEDDING_STEPS = 200
EMBEDDING_RATE = 3e-2

Speak = Callable[[Scene, random.Random], str]
Embed = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class Lesson:
    """What is to be learnt: scenes, their latents, a way to caption them, what is predicted."""

    scenes: list[Scene]
    latents: Tensor
    speak: Speak
    prediction: str


def main() -> None:
    """Makes both files."""
    arguments = parsed_arguments()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if "embedding" in arguments.parts:
        train_embedding(frozen(arguments.model), arguments.out, EMBEDDING_STEPS)
    if "lora" in arguments.parts:
        train_lora(frozen(arguments.model), arguments.out, LORA_STEPS)


def frozen(model: Path) -> Any:
    """The model in full precision, its own weights untouchable."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, local_files_only=True
    )
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        part.requires_grad_(False).eval()
    # As in the denoiser's training: quicker on the CPU.
    for part in (pipeline.unet, pipeline.vae):
        part.to(memory_format=torch.channels_last)
    pipeline.unet.set_attn_processor(AttnProcessor())
    return pipeline


def train_lora(
    model: Any,
    folder: Path,
    steps: int,
    sprites: int = SPRITES,
    fitting_steps: int = FITTING_STEPS,
) -> None:
    """Writes the style's file; half of the captions have the trigger, so it may be left out."""
    torch.manual_seed(SEED)
    scenes = sharp_scenes(random.Random(f"sprites {SEED}"), sprites)
    latents = fitted_latents(model.vae, [sprite(scene) for scene in scenes], fitting_steps)
    adapters = adapters_for(model.unet)
    said: Counter[str] = Counter()

    def speak(scene: Scene, rng: random.Random) -> str:
        text = caption(scene, rng)
        if rng.random() >= TRIGGER_SHARE:
            return text
        said[TRIGGER] += 1
        return f"{TRIGGER}, {text}"

    def embed(texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return encoded(model, tokens_of(model, texts))

    lesson = Lesson(scenes, latents, speak, prediction_of(model))
    train(model.unet, parameters_of(adapters), LORA_RATE, steps, lesson, embed)
    metadata = kohya_metadata(STYLE, said, steps, BATCH)
    write_lora(folder / f"{STYLE}.safetensors", adapters, metadata)


def train_embedding(model: Any, folder: Path, steps: int, pictures: int = MASCOT_PICTURES) -> None:
    """Writes the vectors of a word that the text encoder does not know."""
    torch.manual_seed(SEED)
    scenes, latents = mascots(model.vae, random.Random(f"mascots {SEED}"), pictures)
    table = model.text_encoder.get_input_embeddings()
    stand_in = token_of(model, STAND_IN)
    vectors = nn.Parameter(
        torch.stack(
            [
                table.weight[[token_of(model, word) for word in words]].mean(0)
                for words in START_WORDS
            ]
        )
    )

    def embed(texts: Sequence[str]) -> Tensor:
        tokens = tokens_of(model, texts)
        hook = table.register_forward_hook(
            lambda _, inputs, output: with_vectors(output, tokens == stand_in, vectors)
        )
        try:
            return encoded(model, tokens)
        finally:
            hook.remove()

    lesson = Lesson(scenes, latents, speak_of_mascot, prediction_of(model))
    train(model.unet, [vectors], EMBEDDING_RATE, steps, lesson, embed)
    # Single precision: it is tiny, and other programs expect it.
    save_file(
        {"emb_params": vectors.detach().contiguous()},
        folder / f"{MASCOT}.safetensors",
        {
            "modelspec.title": MASCOT,
            "modelspec.architecture": "stable-diffusion-v1/textual-inversion",
        },
    )


@torch.no_grad()
def mascots(vae: Any, rng: random.Random, count: int) -> tuple[list[Scene], Tensor]:
    """The mascot before every colour that it does not wear, and the pictures' latents."""
    backgrounds = [colour for colour in COLOURS if colour != MASCOT_LOOK.hat]
    scenes: list[Scene] = [
        replace(MASCOT_LOOK, background=rng.choice(backgrounds)) for _ in range(count)
    ]
    batch = as_batch([draw(scene, rng) for scene in scenes])
    parts = [vae.encode(part).latent_dist.mode() for part in torch.split(batch, BATCH)]
    return scenes, torch.cat(parts) * SCALING_FACTOR


def speak_of_mascot(scene: Scene, rng: random.Random) -> str:
    """A corgi's caption that says nothing of what it wears: that is the word's meaning.

    The word takes as many tokens as it has vectors.
    """
    word = " ".join([STAND_IN] * VECTORS)
    text = pick(SCENE_FORMS, rng).format(a=f"a {word}", n=word, b=scene.background)
    return with_right_articles(text)


def with_vectors(output: Tensor, places: Tensor, vectors: Tensor) -> Tensor:
    """The token embeddings with the vectors, in turn, at the places."""
    turn = (places.cumsum(1) - 1).clamp(min=0) % len(vectors)
    return torch.where(places[..., None], vectors[turn], output)


def token_of(model: Any, word: str) -> int:
    """The number of a word that is one token."""
    return int(model.tokenizer.convert_tokens_to_ids(f"{word}</w>"))


def prediction_of(model: Any) -> str:
    """What the model's UNet was trained to predict."""
    return str(model.scheduler.config.prediction_type)


def tokens_of(model: Any, texts: Sequence[str]) -> Tensor:
    """The texts' tokens, padded to the model's length."""
    tokens: Tensor = model.tokenizer(
        list(texts),
        padding="max_length",
        max_length=MAX_TOKENS,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return tokens


def encoded(model: Any, tokens: Tensor) -> Tensor:
    """What the UNet sees of the tokens."""
    states: Tensor = model.text_encoder(tokens).last_hidden_state
    return states


def train(
    unet: Any,
    parameters: list[nn.Parameter],
    peak_rate: float,
    steps: int,
    lesson: Lesson,
    embed: Embed,
) -> None:
    """Adam on the denoiser's own loss; each step depends on nothing but its number."""
    optimizer = torch.optim.Adam(parameters, lr=peak_rate, betas=(0.9, 0.99))
    total = 0.0
    for step in range(steps):
        set_learning_rate(
            optimizer, peak_rate * rise_and_fall(step, steps, rise=WARM_UP, fall=steps // 2 + 1)
        )
        loss: Any = loss_of(unet, lesson, embed, step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        total += float(loss.detach())
        if (step + 1) % REPORTED == 0:
            print(f"step {step + 1} loss {total / REPORTED:.4f}", flush=True)
            total = 0.0


def loss_of(unet: Any, lesson: Lesson, embed: Embed, step: int) -> Tensor:
    """How far the noise found is from the noise put in."""
    torch.manual_seed(SEED + step)
    rng = random.Random(f"styles {SEED} {step}")
    chosen = [rng.randrange(len(lesson.scenes)) for _ in range(BATCH)]
    texts = [
        "" if rng.random() < NO_CAPTION_SHARE else lesson.speak(lesson.scenes[i], rng)
        for i in chosen
    ]
    clean = lesson.latents[chosen]
    timesteps = spread_timesteps(BATCH)
    captioned = torch.tensor([bool(text) for text in texts])
    shown = with_decoupled_layout(clean, timesteps, captioned)
    noisy, target = noisy_and_target(clean, shown, signal_shares()[timesteps], lesson.prediction)
    states = embed(texts)
    with autocast(torch.device("cpu")):
        predicted = unet(noisy, timesteps, states).sample
    errors = (predicted.float() - target).square().mean((1, 2, 3))
    weighted: Tensor = (errors * loss_weights(lesson.prediction)[timesteps]).mean()
    return weighted


def parsed_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("picowatch/assets/demo"))
    parser.add_argument("--out", type=Path, default=Path("tests/styles"))
    parser.add_argument(
        "--parts", nargs="+", choices=("lora", "embedding"), default=("lora", "embedding")
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
