"""What is measured of a model, each measure on captions and seeds of its own."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from PIL import Image, ImageDraw

from training.drawing import draw
from training.judge import background_roughness, edge_sharpness, matches, pixels_of, see_shape
from training.scenes import COLOURS, CorgiScene, ShapeScene, random_corgi, random_shape
from training.trials import (
    SAMPLERS,
    Settings,
    Trial,
    fresh_trials,
    full_caption,
    pictures_of,
    position_trials,
    scores,
    use_sampler,
)
from training.untyped import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline

Measure = Callable[[Any], dict[str, float]]

OTHER_SIZES = ((192, 128), (128, 192), (192, 192), (256, 256))
UNKNOWN_PROMPTS = (
    "a castle on a hill at sunset",
    "portrait of a woman, oil painting",
    "a spaceship over the ocean",
    "a red sports car on a street",
    "two cats and a dog in the garden",
    "an astronaut riding a horse",
    "breakfast table with coffee",
    "8k, trending, highly detailed",
    "ein roter Kreis",
    "東京の夜",
    "a green dragon",
    "a very nice blue elephant wearing shoes",
)
CLEAN_LIKENESS = 0.75
CLEAN_ROUGHNESS = 8.0
SPEED = "speed"
BLURRED_BELOW = 25.0


def all_measures(share: float) -> dict[str, Measure]:
    """Every measure by name; `share` makes each of them that much shorter."""

    def count(full: int) -> int:
        return max(6, round(full * share))

    native = Settings()
    measures: dict[str, Measure] = {
        "DPM++ 2M Karras, CFG 7.5": scored(fresh_trials("main", count(300)), native),
        "position words": scored(position_trials("main", count(100)), native),
    }
    for name in list(SAMPLERS)[1:]:
        trials = fresh_trials(name, count(60))
        measures[f"{name}, CFG 7.5"] = scored(trials, replace(native, sampler=name))
    for scale in (5.0, 12.0):
        trials = fresh_trials(f"cfg {scale}", count(60))
        measures[f"CFG {scale:g}"] = scored(trials, replace(native, cfg_scale=scale))
    for width, height in OTHER_SIZES:
        settings = replace(native, width=width, height=height)
        trials = fresh_trials(f"{width}x{height}", count(24))
        measures[f"{width}x{height}"] = scored(trials, settings)
    measures["negative prompt"] = lambda pipeline: negative_prompt(pipeline, count(60))
    measures["the word blurry"] = lambda pipeline: blurry_word(pipeline, count(30))
    measures["unknown words"] = lambda pipeline: unknown_words(pipeline, count(36))
    measures["start image"] = lambda pipeline: start_image(pipeline, count(40))
    measures["mask"] = lambda pipeline: masked(pipeline, count(40))
    measures[SPEED] = speed
    return measures


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


def negative_prompt(pipeline: Any, count: int) -> dict[str, float]:
    """A colour in the negative prompt is avoided; "blurry" there leaves the picture right."""
    trials = fresh_trials("negative", count)
    settings = Settings(negative_prompt="blurry, low quality")
    pictures = pictures_of(pipeline, trials, settings)
    figures = {f"blurry: {name}": value for name, value in scores(trials, pictures).items()}
    return {
        "blurry: all right": figures["blurry: all right"],
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
    """A flat background, and on it something that clearly is one of our shapes or a corgi."""
    if background_roughness(picture) > CLEAN_ROUGHNESS:
        return False
    poses = (CorgiScene(""), CorgiScene("", hat="red"), CorgiScene("", bow_tie="red"))
    corgi = any(matches(picture, pose)["face"] for pose in poses)
    return corgi or see_shape(picture).likeness > CLEAN_LIKENESS


def start_image(pipeline: Any, count: int) -> dict[str, float]:
    """From a drawn shape, at strength 0.6: the prompt's colours, the start image's layout."""
    rng = random.Random("start images")
    other = StableDiffusionImg2ImgPipeline.from_pipe(pipeline)
    colours, layouts = 0, 0
    for i in range(count):
        drawn = random_shape(rng)
        background, colour = rng.sample(list(COLOURS), 2)
        wanted = replace(drawn, background=background, colour=colour)
        use_sampler(other, "DPM++ 2M Karras")
        made = other(
            full_caption(wanted, rng),
            image=draw(drawn, rng),
            strength=0.6,
            num_inference_steps=24,
            guidance_scale=7.5,
            generator=torch.Generator().manual_seed(i),
        ).images[0]
        right = matches(made, wanted)
        colours += right["colour"] and right["background"]
        layouts += right["shape"] and right["position"] and right["size"]
    return {"new colours": colours / count, "old layout": layouts / count}


def masked(pipeline: Any, count: int) -> dict[str, float]:
    """A plain corgi's top half is drawn anew with a hat; the rest must stay as it was."""
    rng = random.Random("masks")
    other = StableDiffusionInpaintPipeline.from_pipe(pipeline)
    mask = Image.new("L", (128, 128), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 127, 47), fill=255)
    hats, changes = 0, []
    for i in range(count):
        bare = replace(random_corgi(rng), hat=None, sunglasses=False, bow_tie=None)
        hat = rng.choice([name for name in COLOURS if name != bare.background])
        wanted = replace(bare, hat=hat)
        # Drawn where a corgi with a hat is drawn, so that the hat has room.
        start = without_hat(wanted, i)
        use_sampler(other, "DPM++ 2M Karras")
        made = other(
            full_caption(wanted, rng),
            image=start,
            mask_image=mask,
            strength=1.0,
            num_inference_steps=24,
            guidance_scale=7.5,
            width=128,
            height=128,
            generator=torch.Generator().manual_seed(i),
        ).images[0]
        hats += matches(made, wanted)["hat"]
        changes.append(mean_change(start, made))
    return {
        "asked hat": hats / count,
        "change outside the mask (levels)": statistics.mean(changes),
    }


def without_hat(scene: CorgiScene, seed: int) -> Image.Image:
    """The corgi at a hat wearer's place, its hat wiped away by the background."""
    picture = draw(scene, random.Random(seed))
    ImageDraw.Draw(picture).rectangle((0, 0, 127, 40), fill=picture.getpixel((2, 2)))
    return picture


def mean_change(before: Image.Image, after: Image.Image) -> float:
    """The mean difference of the lower half's pixels."""
    return float(abs(pixels_of(before)[64:] - pixels_of(after)[64:]).mean())


def speed(pipeline: Any) -> dict[str, float]:
    """Median seconds of one picture alone, 24 steps with CFG."""
    trial = fresh_trials("speed", 1)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        pictures_of(pipeline, trial, Settings())
        seconds.append(time.perf_counter() - start)
    return {"one picture (seconds)": statistics.median(seconds[1:])}
