"""Contact sheets of a model's pictures, with the prompts beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from training.scenes import ShapeScene
from training.trials import SAMPLERS, Settings, Trial, pictures_of

COLUMNS = 8
ANY_SCENE = ShapeScene("white", "red", "circle")

PROMPTS = (
    "a large red circle on a blue background",
    "a green square on a white background",
    "a yellow star on a purple background",
    "a pink heart on a black background",
    "an orange triangle on a blue background",
    "a purple ring on a yellow background",
    "a white star on a red background",
    "a black heart on a pink background",
    "a corgi on a yellow background",
    "a corgi wearing a red hat on a blue background",
    "a corgi with sunglasses on a pink background",
    "a corgi wearing a blue bow tie on a white background",
    "a corgi wearing a green party hat and sunglasses, purple background",
    "a corgi wearing a yellow hat and a red bow tie on a green background",
    "a corgi in a pink bow tie, black background",
    "a cute corgi on an orange background",
    "a red circle on the left on a white background",
    "a blue square on the right on an orange background",
    "a yellow heart at the top on a red background",
    "a green triangle at the bottom on a pink background",
    "a small white star on the left on a blue background",
    "a tiny pink ring on the right, green background",
    "black circle at the top, yellow background",
    "purple background with a small orange star at the bottom",
    "red circle",
    "blue corgi hat",
    "a castle on a hill at sunset",
    "an astronaut riding a horse",
    "a huge black ring, orange background",
    "a photo of a white square on a black background",
    "blurry, a red circle on a white background",
    "a corgi wearing a white hat, sunglasses and a blue bow tie on a red background",
)
SAMPLER_PROMPTS = PROMPTS[:4] + PROMPTS[11:14] + PROMPTS[17:18]


def write_sheets(pipeline: Any, folder: Path) -> None:
    """`sheet` shows the default sampler, `samplers` a row for each sampler."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sheet(folder, "sheet", pictures_of(pipeline, trials_of(PROMPTS), Settings()), PROMPTS)
    pictures: list[Image.Image] = []
    captions: list[str] = []
    for name in SAMPLERS:
        pictures += pictures_of(pipeline, trials_of(SAMPLER_PROMPTS), Settings(sampler=name))
        captions += [f"{name}: {prompt}" for prompt in SAMPLER_PROMPTS]
    write_sheet(folder, "samplers", pictures, captions)


def trials_of(prompts: Sequence[str]) -> list[Trial]:
    """The prompts with seeds 1, 2, 3 and so on."""
    return [Trial(ANY_SCENE, prompt, seed) for seed, prompt in enumerate(prompts, start=1)]


def write_sheet(
    folder: Path, name: str, pictures: Sequence[Image.Image], captions: Sequence[str]
) -> None:
    """A grid of the pictures, and their captions in the same order."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % COLUMNS * width, i // COLUMNS * height))
    sheet.save(folder / f"{name}.png")
    (folder / f"{name}.txt").write_text("\n".join(captions) + "\n", "utf-8")
