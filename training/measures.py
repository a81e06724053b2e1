"""What is measured of a model, each measure on captions and seeds of its own."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from training.drawing import draw
from training.judge import (
    background_roughness,
    edge_sharpness,
    matches,
    mean_distance,
    pixels_of,
    roundness,
    see_shape,
    straightness,
)
from training.pictures import as_batch
from training.scenes import COLOURS, AnimalScene, ShapeScene, random_animal, random_shape
from training.trials import (
    DEFAULT_SAMPLER,
    SCHEDULE_TYPES,
    Settings,
    Trial,
    fresh_trial,
    fresh_trials,
    made,
    pictures_of,
    position_trials,
    random_scene_of,
    scores,
)
from training.vae import SCALING_FACTOR

Measure = Callable[[Any], dict[str, float]]

OTHER_SIZES = ((192, 128), (128, 192), (192, 192), (256, 256))
FEW_STEPS = 8
OTHER_SCALES = (2.0, 7.5, 12.0)
STRENGTHS = (0.3, 0.5, 0.7)
SEEDS_OF_A_PROMPT = 8
UNKNOWN_PROMPTS = (
    "a castle on a hill at sunset",
    "portrait of a woman, oil painting",
    "a spaceship over the ocean",
    "a red sports car on a street",
    "two horses and a cow in the garden",
    "an astronaut riding a horse",
    "breakfast table with coffee",
    "8k, trending, highly detailed",
    "ein roter Kreis",
    "東京の夜",
    "a green dragon",
    "a very nice blue elephant wearing shoes",
)
CLEAN_LIKENESS = 0.75
CLEAN_ROUGHNESS = 12.0
SPEED = "speed"
BLURRED_BELOW = 25.0


def all_measures(share: float) -> dict[str, Measure]:
    """Every measure by name; `share` makes each of them that much shorter."""

    def count(full: int) -> int:
        return max(6, round(full * share))

    native = Settings()
    measures: dict[str, Measure] = {
        f"{DEFAULT_SAMPLER}, CFG {native.cfg_scale:g}": scored(
            fresh_trials("main", count(400)), native
        ),
        "position words": scored(position_trials("main", count(100)), native),
        "variety": partial(variety, count=count(24)),
        "outlines": partial(outlines, count=count(40)),
    }
    for name in SCHEDULE_TYPES:
        trials = fresh_trials(name, count(60), ("shape", "thing", "animal"))
        for steps in (24, FEW_STEPS):
            settings = replace(native, sampler=name, steps=steps)
            measures[f"{name}, {steps} steps"] = all_right(trials, settings)
    for scale in OTHER_SCALES:
        trials = fresh_trials(f"cfg {scale}", count(60))
        measures[f"CFG {scale:g}"] = scored(trials, replace(native, cfg_scale=scale))
    for width, height in OTHER_SIZES:
        settings = replace(native, width=width, height=height)
        trials = fresh_trials(f"{width}x{height}", count(24))
        measures[f"{width}x{height}"] = scored(trials, settings)
    measures["negative prompt"] = partial(negative_prompt, count=count(60))
    measures["the word blurry"] = partial(blurry_word, count=count(30))
    measures["unknown words"] = partial(unknown_words, count=count(36))
    for strength in STRENGTHS:
        measures[f"start image, strength {strength:g}"] = partial(
            start_image, strength=strength, count=count(40)
        )
    measures["mask"] = partial(masked, count=count(40))
    measures[SPEED] = speed
    return measures


def size_of_files(model: Path) -> dict[str, float]:
    """All files of the model."""
    megabytes = sum(file.stat().st_size for file in model.rglob("*") if file.is_file()) / 1e6
    return {"all files (MB)": megabytes}


def scored(trials: list[Trial], settings: Settings) -> Measure:
    """How many of the trials come out right."""

    def measure(pipeline: Any) -> dict[str, float]:
        pictures = pictures_of(pipeline, trials, settings)
        figures = scores(trials, pictures)
        figures["edge sharpness (levels)"] = statistics.median(map(edge_sharpness, pictures))
        roughness = statistics.mean(map(background_roughness, pictures))
        figures["background roughness (levels)"] = roughness
        return figures

    return measure


def all_right(trials: list[Trial], settings: Settings) -> Measure:
    """How many of the trials come out quite right."""

    def measure(pipeline: Any) -> dict[str, float]:
        figures = scores(trials, pictures_of(pipeline, trials, settings))
        return {"all right": figures["all right"]}

    return measure


def variety(pipeline: Any, count: int) -> dict[str, float]:
    """How far the seeds of a prompt are apart, against drawings of the same scene."""
    rng = random.Random("variety")
    of_model, of_drawings = [], []
    for i in range(count):
        scene = random_scene_of(("shape", "thing", "animal", "pair")[i % 4], rng)
        prompt = fresh_trial(scene, rng).prompt
        trials = [Trial(scene, prompt, seed) for seed in range(SEEDS_OF_A_PROMPT)]
        of_model.append(mean_distance(pictures_of(pipeline, trials, Settings())))
        of_drawings.append(mean_distance([draw(scene, rng) for _ in trials]))
    return {
        "between seeds (levels)": statistics.mean(of_model),
        "between drawings (levels)": statistics.mean(of_drawings),
        "seeds against drawings": statistics.mean(of_model) / statistics.mean(of_drawings),
    }


def outlines(pipeline: Any, count: int) -> dict[str, float]:
    """Circles against the best ellipse, squares against the best square; drawings beside them."""
    rng = random.Random("outlines")
    figures = {}
    for shape, judge in (("circle", roundness), ("square", straightness)):
        trials: list[Trial] = []
        while len(trials) < count:
            background, colour = rng.sample(list(COLOURS), 2)
            trials.append(fresh_trial(ShapeScene(background, colour, shape), rng))
        pictures = pictures_of(pipeline, trials, Settings())
        drawings = [draw(trial.scene, rng) for trial in trials]
        figures[f"{shape}s (overlap)"] = statistics.mean(map(judge, pictures))
        figures[f"{shape}s, drawn (overlap)"] = statistics.mean(map(judge, drawings))
    return figures


def negative_prompt(pipeline: Any, count: int) -> dict[str, float]:
    """Whether a negative prompt leaves the picture right, and keeps a colour away."""
    trials = fresh_trials("negative", count)
    settings = Settings(negative_prompt="blurry, low quality")
    pictures = pictures_of(pipeline, trials, settings)
    return {
        "blurry: all right": scores(trials, pictures)["all right"],
        "blurry: edge sharpness (levels)": statistics.median(map(edge_sharpness, pictures)),
        "a colour is avoided": colour_avoided(pipeline, count),
    }


def colour_avoided(pipeline: Any, count: int) -> float:
    """The share of stars of unsaid colour that do not have the colour of the negative prompt."""
    rng = random.Random("avoided colours")
    avoided = 0
    for i in range(count // 3):
        colour, background = rng.sample(list(COLOURS), 2)
        scene = ShapeScene(background, colour, "star")
        trial = Trial(scene, f"a star on {article(background)} background", i)
        settings = Settings(negative_prompt=f"{article(colour)} star")
        avoided += see_shape(pictures_of(pipeline, [trial], settings)[0]).colour != colour
    return avoided / (count // 3)


def article(word: str) -> str:
    """The word after its article."""
    return ("an " if word[0] in "aeiou" else "a ") + word


def blurry_word(pipeline: Any, count: int) -> dict[str, float]:
    """The share of pictures without sharp edges when the prompt asks for it."""
    trials = [
        replace(trial, prompt=f"blurry, {trial.prompt}") for trial in fresh_trials("blurry", count)
    ]
    pictures = pictures_of(pipeline, trials, Settings())
    return {"blurred": sum(edge_sharpness(p) < BLURRED_BELOW for p in pictures) / len(pictures)}


def unknown_words(pipeline: Any, count: int) -> dict[str, float]:
    """The share of clean pictures, whatever they show, for prompts the model cannot know."""
    scene = ShapeScene("white", "red", "circle")
    trials = [
        Trial(scene, UNKNOWN_PROMPTS[i % len(UNKNOWN_PROMPTS)], 100 + i) for i in range(count)
    ]
    pictures = pictures_of(pipeline, trials, Settings())
    return {"clean": sum(map(is_clean, pictures)) / len(pictures)}


def is_clean(picture: Image.Image) -> bool:
    """A flat background, and on it something that clearly is one of our shapes or an animal."""
    if background_roughness(picture) > CLEAN_ROUGHNESS:
        return False
    poses = (AnimalScene(""), AnimalScene("", hat="red"), AnimalScene("", "cat"))
    animal = any(matches(picture, pose)["face"] for pose in poses)
    return animal or see_shape(picture).likeness > CLEAN_LIKENESS


def start_image(pipeline: Any, strength: float, count: int) -> dict[str, float]:
    """From a drawn shape: the prompt's colours, the start image's layout."""
    rng = random.Random("start images")
    colours, layouts = 0, 0
    for _ in range(count):
        drawn = replace(random_shape(rng), position="")
        background, colour = rng.sample(list(COLOURS), 2)
        wanted = replace(drawn, background=background, colour=colour)
        picture = draw(drawn, rng)
        latents = latents_of(pipeline, picture)
        after = made(pipeline, [fresh_trial(wanted, rng)], Settings(), latents, strength)[0]
        right, before = matches(after, wanted), see_shape(picture)
        colours += right["colour"] and right["background"]
        layouts += (before.shape, before.position) == (
            see_shape(after).shape,
            see_shape(after).position,
        )
    return {"new colours": colours / count, "old layout": layouts / count}


@torch.no_grad()
def latents_of(pipeline: Any, picture: Image.Image) -> Tensor:
    """The picture's latents."""
    latents: Tensor = pipeline.vae.encode(as_batch([picture])).latent_dist.mode()
    return latents * SCALING_FACTOR


def masked(pipeline: Any, count: int) -> dict[str, float]:
    """A plain animal's top part is drawn anew with a hat; the rest must stay as it was."""
    rng = random.Random("masks")
    hats, changes = 0, []
    for _ in range(count):
        bare = replace(random_animal(rng), hat=None, sunglasses=False, bow_tie=None)
        wanted = replace(bare, hat=rng.choice([c for c in COLOURS if c != bare.background]))
        # Drawn where an animal with a hat is drawn, so that the hat has room.
        start, kept = without_hat(wanted, rng)
        latents = latents_of(pipeline, start)
        trial = fresh_trial(wanted, rng)
        after = made(pipeline, [trial], Settings(), latents, 1.0, kept)[0]
        hats += matches(after, wanted)["hat"]
        changes.append(change_below(start, after, kept))
    return {
        "asked hat": hats / count,
        "change outside the mask (levels)": statistics.mean(changes),
    }


def without_hat(scene: AnimalScene, rng: random.Random) -> tuple[Image.Image, Tensor]:
    """The animal at a hat wearer's place, its hat wiped away by the background.

    With it, 1 for the latents below the hat's brim.
    """
    picture = draw(scene, rng)
    hat = abs(pixels_of(picture) - COLOURS[scene.hat or ""]).sum(axis=2) < 60
    rows = hat.nonzero()[0]
    brim = int(rows.max()) if len(rows) else 40
    ImageDraw.Draw(picture).rectangle((0, 0, 127, brim), fill=picture.getpixel((2, 2)))
    kept = torch.ones(1, 1, 16, 16)
    kept[:, :, : brim // 8 + 1] = 0
    return picture, kept


def change_below(before: Image.Image, after: Image.Image, kept: Tensor) -> float:
    """The mean difference of the kept part's pixels, a cell away from its border."""
    row = int((1 - kept[0, 0, :, 0]).sum()) * 8 + 8
    return float(abs(pixels_of(before)[row:] - pixels_of(after)[row:]).mean())


def speed(pipeline: Any) -> dict[str, float]:
    """Median seconds of one picture alone, 24 steps with CFG."""
    trial = fresh_trials("speed", 1)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        pictures_of(pipeline, trial, Settings())
        seconds.append(time.perf_counter() - start)
    return {"one picture (seconds)": statistics.median(seconds[1:])}
