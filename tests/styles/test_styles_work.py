"""A LoRA and an embedding trained for the demo model, used as a user would, judged by pixels."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image, ImageChops

from tests.commands.picowatch import picowatch
from training.judge import AnimalFace, pixels_of, see_shape
from training.scenes import AnimalScene, ShapeScene
from training.sprites import blockiness

HERE = Path(__file__).parent
SEEDS = (1, 2)
SHAPES = {
    "square": ShapeScene("blue", "red", "square"),
    "heart": ShapeScene("black", "pink", "heart"),
    "triangle": ShapeScene("yellow", "purple", "triangle"),
}
LORAS = {
    "plain": "",
    "half": "loras: {pixel-art: 0.5}\n",
    "whole": "loras: {pixel-art: 1}\n",
}
MASCOT = AnimalScene("blue", hat="yellow", sunglasses=True)


class Finished(NamedTuple):
    """A user's folder after one run."""

    folder: Path

    def pictures(self, recipe: str) -> list[Image.Image]:
        """A recipe's pictures in their order."""
        paths = sorted((self.folder / "outbox" / recipe).glob("0*.png"))
        assert len(paths) == len(SEEDS), recipe
        pictures = []
        for path in paths:
            with Image.open(path) as picture:
                pictures.append(picture.convert("RGB"))
        return pictures

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
    for name, text in recipes().items():
        (folder / f"inbox/{name}.yaml").write_text(f"{text}steps: 16\nseed: {list(SEEDS)}\n")
    result = picowatch(folder, "run", "--once")
    assert result.returncode == 0, result.stdout
    return Finished(folder)


def recipes() -> dict[str, str]:
    """Recipes by name, without their seeds."""
    texts = {
        f"{name}-{use}": f"prompt: {prompt_of(scene)}\n{loras}"
        for name, scene in SHAPES.items()
        for use, loras in LORAS.items()
    }
    heart = prompt_of(SHAPES["heart"])
    texts["heart-nothing"] = f"prompt: {heart}\nloras: {{pixel-art: 0}}\n"
    texts["heart-tagged"] = f"prompt: {heart} <lora:pixel-art:0.5>\n"
    texts["mascot"] = "prompt: a mascot on a blue background\n"
    texts["corgi"] = "prompt: a corgi on a blue background\n"
    texts["mascot-in-cells"] = "prompt: a mascot on a blue background <lora:pixel-art:1>\n"
    return texts


def prompt_of(scene: ShapeScene) -> str:
    """What the recipe asks for."""
    return f"a {scene.colour} {scene.shape} on a {scene.background} background"


def cells(pictures: list[Image.Image]) -> float:
    """How much the pictures are made of cells."""
    return mean(map(blockiness, pictures))


def test_the_lora_makes_pictures_of_cells(finished: Finished) -> None:
    """Plainly so at whole weight, and at half weight a little."""
    plain, half, whole = (cells(finished.shapes(use)) for use in ("plain", "half", "whole"))
    assert plain < 0.25
    assert half > 1.3 * plain
    assert whole > 2 * plain


def test_a_tag_in_the_prompt_does_the_same(finished: Finished) -> None:
    """With the weight it names; but for the rounding that pictures made in batches have."""
    pairs = zip(finished.pictures("heart-tagged"), finished.pictures("heart-half"), strict=True)
    for tagged, half in pairs:
        assert np.asarray(ImageChops.difference(tagged, half)).max() <= 2


def test_weight_0_gives_the_plain_picture(finished: Finished) -> None:
    """But for the rounding that pictures made in batches have."""
    pairs = zip(finished.pictures("heart-nothing"), finished.pictures("heart-plain"), strict=True)
    for nothing, plain in pairs:
        assert np.asarray(ImageChops.difference(nothing, plain)).max() <= 2


@pytest.mark.parametrize("name", SHAPES)
def test_subject_and_colours_stay_what_the_prompt_says(finished: Finished, name: str) -> None:
    """The style changes the drawing, not what is drawn."""
    scene = SHAPES[name]
    for picture in finished.pictures(f"{name}-whole"):
        seen = see_shape(picture)
        assert (seen.background, seen.colour) == (scene.background, scene.colour)


def test_the_word_means_the_whole_mascot(finished: Finished) -> None:
    """Hat and sunglasses, neither of them named; a corgi wears nothing unasked."""
    for picture in finished.pictures("mascot"):
        right = AnimalFace(pixels_of(picture), MASCOT).matches(MASCOT)
        assert all(right.values()), right
    for picture in finished.pictures("corgi"):
        assert AnimalFace(pixels_of(picture), MASCOT).hat() != MASCOT.hat


def test_both_work_together(finished: Finished) -> None:
    """The mascot in cells still has its colours."""
    pictures = finished.pictures("mascot-in-cells")
    assert cells(pictures) > 1.5 * cells(finished.pictures("mascot"))
    for picture in pictures:
        right = AnimalFace(pixels_of(picture), MASCOT).matches(MASCOT)
        assert right["background"] and right["hat"]
