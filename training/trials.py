"""Pictures to order from a model, and how many of them come out right.

They are made with picowatch's own samplers, all of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from picowatch.engine.samplers import build_sampler
from picowatch.recipe.families import DEMO_RULES
from picowatch.recipe.samplers import SAMPLERS
from training.captions import caption
from training.judge import matches
from training.pictures import as_pictures
from training.scenes import (
    SHAPES,
    THINGS,
    AnimalScene,
    PairScene,
    Scene,
    ShapeScene,
    random_animal,
    random_pair,
    random_shape,
)
from training.untyped import StableDiffusionPipeline
from training.vae import SCALING_FACTOR

BATCH = 10
VAE_FACTOR = 8
# Each sampler with the schedule type that it has when a recipe says none.
SCHEDULE_TYPES = {sampler.name: sampler.automatic for sampler in SAMPLERS}
DEFAULT_SAMPLER = "DPM++ 2M"


@dataclass(frozen=True)
class Trial:
    """One picture to make, and what it must show."""

    scene: Scene
    prompt: str
    seed: int


@dataclass(frozen=True)
class Settings:
    """How to make it."""

    sampler: str = DEFAULT_SAMPLER
    steps: int = 24
    cfg_scale: float = DEMO_RULES.default("cfg_scale")
    width: int = 128
    height: int = 128
    negative_prompt: str = ""


def load_pipeline(model: Path) -> Any:
    """The model in full precision, without a progress bar."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        model, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pictures_of(pipeline: Any, trials: Sequence[Trial], settings: Settings) -> list[Image.Image]:
    """The trials' pictures, each from its own seed."""
    pictures: list[Image.Image] = []
    for batch in batches(trials):
        pictures += made(pipeline, batch, settings)
    return pictures


@torch.no_grad()
def made(
    pipeline: Any,
    trials: Sequence[Trial],
    settings: Settings,
    start: Tensor | None = None,
    strength: float = 1.0,
    kept: Tensor | None = None,
) -> list[Image.Image]:
    """A batch of pictures, from noise or from latents; where `kept` is 1, these stay."""
    sampler = build_sampler(
        settings.sampler,
        SCHEDULE_TYPES[settings.sampler],
        settings.steps,
        dict(pipeline.scheduler.config),
        strength,
    )
    scheduler, states = sampler.scheduler, embedded(pipeline, trials, settings)
    randoms = [torch.Generator().manual_seed(trial.seed) for trial in trials]
    shape = (4, settings.height // VAE_FACTOR, settings.width // VAE_FACTOR)
    noise = torch.stack([torch.randn(shape, generator=one) for one in randoms])
    latents = noise * scheduler.init_noise_sigma
    if start is not None:
        latents = sampler.add_noise(start, noise, sampler.timesteps[:1])
    options = {"generator": randoms} if "generator" in signature(scheduler.step).parameters else {}
    for number, timestep in enumerate(sampler.timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)
        both = pipeline.unet(torch.cat([scaled, scaled]), timestep, states).sample
        without, with_prompt = both.chunk(2)
        guided = without + settings.cfg_scale * (with_prompt - without)
        latents = scheduler.step(guided, timestep, latents, **options, return_dict=False)[0]
        if start is not None and kept is not None:
            there = sampler.timesteps[number + 1 : number + 2]
            original = sampler.add_noise(start, noise, there) if len(there) else start
            latents = kept * original + (1 - kept) * latents
    return as_pictures(pipeline.vae.decode(latents / SCALING_FACTOR).sample)


def embedded(pipeline: Any, trials: Sequence[Trial], settings: Settings) -> Tensor:
    """What the UNet sees of the negative prompts, and of the prompts."""
    texts = [settings.negative_prompt] * len(trials) + [trial.prompt for trial in trials]
    tokens = pipeline.tokenizer(
        texts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    states: Tensor = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    return states


def batches(trials: Sequence[Trial]) -> Iterator[Sequence[Trial]]:
    """The trials, some at a time."""
    for start in range(0, len(trials), BATCH):
        yield trials[start : start + BATCH]


def fresh_trials(name: str, count: int, kinds: Sequence[str] = ()) -> list[Trial]:
    """Shapes, things, animals and pairs in turn, or those of `kinds`.

    Captions and seeds depend on the name alone.
    """
    rng = random.Random(f"trials {name}")
    kinds = kinds or ("shape", "thing", "animal", "pair")
    return [fresh_trial(random_scene_of(kinds[i % len(kinds)], rng), rng) for i in range(count)]


def random_scene_of(kind: str, rng: random.Random) -> Scene:
    """A sharp scene of one kind."""
    if kind == "animal":
        return random_animal(rng)
    if kind == "pair":
        return random_pair(rng)
    return random_shape(rng, SHAPES if kind == "shape" else THINGS)


def fresh_trial(scene: Scene, rng: random.Random) -> Trial:
    """The scene with a caption that says all of it."""
    return Trial(scene, full_caption(scene, rng), rng.randrange(2**32))


def position_trials(name: str, count: int) -> list[Trial]:
    """Shapes whose captions all name a place."""
    rng = random.Random(f"positions {name}")
    trials: list[Trial] = []
    while len(trials) < count:
        scene = random_shape(rng)
        if scene.position:
            trials.append(fresh_trial(scene, rng))
    return trials


def full_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that says background and colours too: what is unsaid cannot be judged."""
    wanted = {"background", *colours_of(scene)}
    while True:
        text = caption(scene, rng).replace("violet", "purple")
        if all(word in text for word in wanted):
            return text


def colours_of(scene: Scene) -> set[str]:
    """The colours of the scene's shapes and things."""
    if isinstance(scene, ShapeScene):
        return {scene.colour}
    if isinstance(scene, PairScene):
        return {colour for colour in (scene.first.colour, scene.second.colour) if colour}
    return set()


def scores(trials: Sequence[Trial], pictures: Sequence[Image.Image]) -> dict[str, float]:
    """Shares of pictures that have each property right, and that have all of them right."""
    found: dict[str, list[bool]] = {}
    for trial, picture in zip(trials, pictures, strict=True):
        right = matches(picture, trial.scene)
        kind = kind_of_scene(trial.scene)
        for name, value in right.items():
            found.setdefault(f"{kind}: {name}", []).append(value)
        found.setdefault("all right", []).append(all(right.values()))
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}


def kind_of_scene(scene: Scene) -> str:
    """What figures are told apart by."""
    if isinstance(scene, AnimalScene):
        return scene.animal
    return "pair" if isinstance(scene, PairScene) else "shape or thing"
