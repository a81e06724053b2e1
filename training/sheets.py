"""Contact sheets of a model's pictures, with the prompts beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from training.scenes import ShapeScene
from training.trials import SCHEDULE_TYPES, Settings, Trial, pictures_of

SEEDS = 4
COLUMNS = 8
ANY_SCENE = ShapeScene("white", "red", "circle")

PROMPTS = (
    "a corgi",
    "a corgi on a yellow background",
    "a corgi wearing a red hat on a blue background",
    "a corgi with sunglasses on a pink background",
    "a corgi wearing a blue bow tie on a white background",
    "a corgi wearing a yellow hat and a red bow tie on a green background",
    "a cute corgi wearing a white hat, sunglasses and a blue bow tie, red background",
    "a puppy in a pink bow tie, black background",
    "a cat",
    "a cat on an orange background",
    "a cat wearing a green party hat and sunglasses, purple background",
    "a kitten with a yellow bow tie on a blue background",
    "a corgi under a tree",
    "a corgi under a tree on a blue background",
    "a red balloon above a house",
    "a cat and a corgi, pink background",
    "a cat next to a pink cupcake on a white background",
    "a moon above a house on a black background",
    "a sun above a tree, blue background",
    "a red heart to the left of a blue star on a yellow background",
    "a house",
    "a red house on a white background",
    "a sun on a blue background",
    "a tree",
    "a moon on a purple background",
    "a pink balloon on a blue background",
    "a cupcake on a green background",
    "a white cupcake on a purple background",
    "a red circle",
    "a large red circle on a blue background",
    "a green square on a white background",
    "a yellow star on a purple background",
    "a pink heart on a black background",
    "an orange triangle on a blue background",
    "a purple ring on a yellow background",
    "a red circle on the left on a white background",
    "a small white star at the top on a blue background",
    "a black heart in the middle, pink background",
    "blurry, a red circle on a white background",
    "an astronaut riding a horse",
)
SAMPLER_PROMPTS = (PROMPTS[29], PROMPTS[31], PROMPTS[2], PROMPTS[9], PROMPTS[14], PROMPTS[21])


def write_sheets(pipeline: Any, folder: Path) -> None:
    """`sheet` has four seeds of each prompt side by side, `samplers` a row for each sampler."""
    folder.mkdir(parents=True, exist_ok=True)
    trials = [Trial(ANY_SCENE, prompt, seed) for prompt in PROMPTS for seed in range(SEEDS)]
    write_sheet(folder, "sheet", pictures_of(pipeline, trials, Settings()), PROMPTS, COLUMNS)
    pictures: list[Image.Image] = []
    trials = [Trial(ANY_SCENE, prompt, seed) for seed, prompt in enumerate(SAMPLER_PROMPTS)]
    for name in SCHEDULE_TYPES:
        pictures += pictures_of(pipeline, trials, Settings(sampler=name))
    captions = [f"{name}: {', '.join(SAMPLER_PROMPTS)}" for name in SCHEDULE_TYPES]
    write_sheet(folder, "samplers", pictures, captions, len(SAMPLER_PROMPTS))


def write_sheet(
    folder: Path,
    name: str,
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    columns: int,
) -> None:
    """A grid of the pictures, and their captions in the same order."""
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * width, rows * height))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    sheet.save(folder / f"{name}.png")
    (folder / f"{name}.txt").write_text("\n".join(captions) + "\n", "utf-8")
