"""Pictures to order from a model, and how many of them come out right."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from training.captions import caption
from training.judge import matches
from training.noise import new_sampler
from training.scenes import CorgiScene, Scene, ShapeScene, random_corgi, random_shape
from training.untyped import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)

BATCH = 10
SAMPLERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "DPM++ 2M Karras": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    ),
    "DPM++ 2M SDE Karras": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "Euler a": (EulerAncestralDiscreteScheduler, {}),
    "Euler": (EulerDiscreteScheduler, {}),
    "DDIM": (DDIMScheduler, {}),
    "UniPC": (UniPCMultistepScheduler, {}),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True}),
}


@dataclass(frozen=True)
class Trial:
    """One picture to make, and what it must show."""

    scene: Scene
    prompt: str
    seed: int


@dataclass(frozen=True)
class Settings:
    """How to make it."""

    sampler: str = "DPM++ 2M Karras"
    steps: int = 24
    cfg_scale: float = 7.5
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


def use_sampler(pipeline: Any, name: str) -> None:
    """Puts a sampler in, made from Stable Diffusion 1.5's settings.

    Not from the settings of the sampler before it: Karras's sigmas would stay in them.
    """
    kind, options = SAMPLERS[name]
    settings = {**new_sampler().config, "clip_sample": False}
    pipeline.scheduler = kind.from_config(settings, **options)


def pictures_of(pipeline: Any, trials: Sequence[Trial], settings: Settings) -> list[Image.Image]:
    """The trials' pictures, each from its own seed."""
    use_sampler(pipeline, settings.sampler)
    pictures: list[Image.Image] = []
    for batch in batches(trials):
        made: Any = pipeline(
            [trial.prompt for trial in batch],
            negative_prompt=[settings.negative_prompt] * len(batch),
            num_inference_steps=settings.steps,
            guidance_scale=settings.cfg_scale,
            width=settings.width,
            height=settings.height,
            generator=[torch.Generator().manual_seed(trial.seed) for trial in batch],
        )
        pictures += made.images
    return pictures


def batches(trials: Sequence[Trial]) -> Iterator[Sequence[Trial]]:
    """The trials, some at a time."""
    for start in range(0, len(trials), BATCH):
        yield trials[start : start + BATCH]


def fresh_trials(name: str, count: int) -> list[Trial]:
    """Two shapes for each corgi, with captions and seeds that depend on the name alone."""
    rng = random.Random(f"trials {name}")
    trials = []
    for i in range(count):
        scene: Scene = random_corgi(rng) if i % 3 == 2 else random_shape(rng)
        trials.append(Trial(scene, full_caption(scene, rng), rng.randrange(2**32)))
    return trials


def position_trials(name: str, count: int) -> list[Trial]:
    """Shapes whose captions all name a side."""
    rng = random.Random(f"positions {name}")
    trials: list[Trial] = []
    while len(trials) < count:
        scene = random_shape(rng)
        if scene.position:
            trials.append(Trial(scene, full_caption(scene, rng), rng.randrange(2**32)))
    return trials


def full_caption(scene: Scene, rng: random.Random) -> str:
    """A caption that says the background too: what is unsaid cannot be judged."""
    while "background" not in (text := caption(scene, rng)):
        pass
    return text


def scores(trials: Sequence[Trial], pictures: Sequence[Image.Image]) -> dict[str, float]:
    """Shares of pictures that have each property right.

    "all right" leaves the position out, which has two lines of its own: the words for it, and
    whether a shape without such words is in the centre.
    """
    found: dict[str, list[bool]] = {}
    for trial, picture in zip(trials, pictures, strict=True):
        right = matches(picture, trial.scene)
        position = right.pop("position", None)
        kind = "corgi" if isinstance(trial.scene, CorgiScene) else "shape"
        for name, value in right.items():
            label = "shape" if name == "shape" else f"{kind} {name}"
            found.setdefault(label, []).append(value)
        found.setdefault("all right", []).append(all(right.values()))
        if position is not None and isinstance(trial.scene, ShapeScene):
            label = "position words" if trial.scene.position else "centred"
            found.setdefault(label, []).append(position)
    return {name: sum(values) / len(values) for name, values in found.items()}
