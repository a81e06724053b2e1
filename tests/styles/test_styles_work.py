"""A LoRA and an embedding trained for the demo model, used as a user would, judged by pixels."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.commands.picowatch import picowatch
from training.scenes import COLOURS

HERE = Path(__file__).parent
SEEDS = (1, 2)
SHAPES = {"square": ("red", "blue"), "triangle": ("purple", "yellow")}
LORAS = {"plain": 0, "half": 0.5, "whole": 1}
CELL = 8  # pixels of the LoRA's cells
CLEAR_STEP = 90  # between neighbouring pixels, of 765


class Finished(NamedTuple):
    """A user's folder after one run."""

    folder: Path

    def pictures(self, recipe: str) -> list[Image.Image]:
        """A recipe's pictures in their order."""
        paths = sorted((self.folder / "outbox" / recipe).glob("0*.png"))
        assert len(paths) == len(SEEDS), recipe
        return [Image.open(path).convert("RGB") for path in paths]

    def shapes(self, use: str) -> list[Image.Image]:
        """The pictures of all shapes that were made with one use of the LoRA."""
        return [picture for shape in SHAPES for picture in self.pictures(f"{shape}-{use}")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """One `run --once` over every shape with every use of the LoRA, and over the mascot."""
    folder = tmp_path_factory.mktemp("user")
    for kind, name in (("loras", "pixel-art"), ("embeddings", "mascot")):
        (folder / "models" / kind).mkdir(parents=True)
        shutil.copy(HERE / f"{name}.safetensors", folder / "models" / kind)
    (folder / "inbox").mkdir()
    for name, prompt in prompts().items():
        text = f"prompt: {prompt}\nsteps: 16\nseed: {list(SEEDS)}\n"
        (folder / f"inbox/{name}.yaml").write_text(text)
    result = picowatch(folder, "run", "--once")
    assert result.returncode == 0, result.stdout
    return Finished(folder)


def prompts() -> dict[str, str]:
    """Prompts by the names of their recipes."""
    mascot = "a mascot on a blue background"
    return {
        f"{shape}-{use}": f"a {colour} {shape} on a {ground} background <lora:pixel-art:{weight}>"
        for shape, (colour, ground) in SHAPES.items()
        for use, weight in LORAS.items()
    } | {
        "mascot": mascot,
        "corgi": "a corgi on a blue background",
        "mascot-in-cells": f"{mascot} <lora:pixel-art:1>",
    }


def shares(picture: Image.Image) -> dict[str, float]:
    """The share of the picture that is nearest to each colour."""
    pixels = np.asarray(picture, dtype=np.int64).reshape(-1, 1, 3)
    nearest = ((pixels - np.array([*COLOURS.values()])) ** 2).sum(2).argmin(1)
    counts = np.bincount(nearest, minlength=len(COLOURS)) / len(nearest)
    return dict(zip(COLOURS, counts.tolist(), strict=True))


def blockiness(picture: Image.Image) -> float:
    """The share of the clear steps between neighbouring pixels that lie on the cells' borders.

    An eighth where cells mean nothing.
    """
    pixels = np.asarray(picture).astype(np.float64)
    on_borders = total = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(pixels, axis=axis)).sum(axis=2)
        steps = np.where(steps >= CLEAR_STEP, steps, 0).sum(axis=1 - axis)
        on_borders += float(steps[CELL - 1 :: CELL].sum())
        total += float(steps.sum())
    return on_borders / total if total else 0.0


def cells(pictures: list[Image.Image]) -> float:
    """How much the pictures are made of cells."""
    return mean(map(blockiness, pictures))


def test_the_lora_makes_pictures_of_cells(finished: Finished) -> None:
    """Plainly so at whole weight, and at half weight a little."""
    plain, half, whole = (cells(finished.shapes(use)) for use in ("plain", "half", "whole"))
    assert plain < 0.25
    assert half > 1.3 * plain
    assert whole > 2 * plain


@pytest.mark.parametrize("name", SHAPES)
def test_colours_stay_what_the_prompt_says(finished: Finished, name: str) -> None:
    """The style changes the drawing, not what is drawn."""
    for picture in finished.pictures(f"{name}-whole"):
        found = shares(picture)
        background, colour = sorted(found, key=lambda one: -found[one])[:2]
        assert (colour, background) == SHAPES[name]


def test_the_word_means_the_whole_mascot(finished: Finished) -> None:
    """Its yellow hat and its sunglasses, neither of them named; a corgi wears nothing unasked."""
    for mascot, corgi in zip(finished.pictures("mascot"), finished.pictures("corgi"), strict=True):
        worn, bare = shares(mascot), shares(corgi)
        assert worn["yellow"] > 0.02 > 0.01 > bare["yellow"], (worn, bare)
        assert worn["black"] > 1.5 * bare["black"], (worn, bare)


def test_both_work_together(finished: Finished) -> None:
    """The mascot in cells still has its colours."""
    pictures = finished.pictures("mascot-in-cells")
    assert cells(pictures) > 1.5 * cells(finished.pictures("mascot"))
    for picture in pictures:
        found = shares(picture)
        assert max(found, key=lambda one: found[one]) == "blue"
        assert found["yellow"] > 0.02
