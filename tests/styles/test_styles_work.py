"""A LoRA and an embedding trained for the demo model, used as a user would, judged by pixels."""

import shutil
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
from PIL import Image

from tests.colours import shares
from tests.commands.picowatch import picowatch

HERE = Path(__file__).parent
SHAPES = {"square": ("red", "blue"), "triangle": ("purple", "yellow")}
PROMPTS = {
    f"{shape}-{weight}": f"a {colour} {shape} on a {ground} background <lora:pixel-art:{weight}>"
    for shape, (colour, ground) in SHAPES.items()
    for weight in (0, 0.5, 1)
} | {name: f"a {name} on a blue background" for name in ("mascot", "corgi")}
pytestmark = pytest.mark.heavy
CELL = 8  # pixels of the LoRA's cells
CLEAR_STEP = 90  # between neighbouring pixels, of 765
Pictures = dict[str, list[Image.Image]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Pictures:
    """The pictures of one `run --once` in a user's folder, two of each prompt."""
    folder = tmp_path_factory.mktemp("user")
    for kind, name in (("loras", "pixel-art"), ("embeddings", "mascot")):
        (folder / "models" / kind).mkdir(parents=True)
        shutil.copy(HERE / f"{name}.safetensors", folder / "models" / kind)
    (folder / "inbox").mkdir()
    for name, prompt in PROMPTS.items():
        (folder / f"inbox/{name}.yaml").write_text(f"prompt: {prompt}\nsteps: 16\nseed: [1, 2]\n")
    result = picowatch(folder, "run", "--once")
    assert result.returncode == 0, result.stdout
    paths = {name: sorted((folder / "outbox" / name).glob("0*.png")) for name in PROMPTS}
    assert {len(found) for found in paths.values()} == {2}
    return {name: [Image.open(path).convert("RGB") for path in paths[name]] for name in paths}


def blockiness(picture: Image.Image) -> float:
    """The share of clear steps on the cells' borders: an eighth where cells mean nothing."""
    pixels = np.asarray(picture).astype(np.float64)
    on_borders = total = 0.0
    for axis in (0, 1):
        steps = np.abs(np.diff(pixels, axis=axis)).sum(axis=2)
        steps = np.where(steps >= CLEAR_STEP, steps, 0).sum(axis=1 - axis)
        on_borders += float(steps[CELL - 1 :: CELL].sum())
        total += float(steps.sum())
    return on_borders / total if total else 0.0


def test_the_lora_makes_pictures_of_cells(pictures: Pictures) -> None:
    """Plainly so at whole weight, and at half weight a little."""
    plain, half, whole = (
        mean(blockiness(each) for shape in SHAPES for each in pictures[f"{shape}-{weight}"])
        for weight in (0, 0.5, 1)
    )
    assert plain < 0.25
    assert half > 1.3 * plain
    assert whole > 2 * plain


@pytest.mark.parametrize("name", SHAPES)
def test_colours_stay_what_the_prompt_says(pictures: Pictures, name: str) -> None:
    """The style changes the drawing, not what is drawn."""
    for picture in pictures[f"{name}-1"]:
        background, colour = list(shares(picture))[:2]
        assert (colour, background) == SHAPES[name]


def test_the_word_means_the_whole_mascot(pictures: Pictures) -> None:
    """Its yellow hat and its sunglasses, neither of them named; a corgi wears nothing unasked."""
    for mascot, corgi in zip(pictures["mascot"], pictures["corgi"], strict=True):
        worn, bare = shares(mascot), shares(corgi)
        assert worn["yellow"] > 0.02 > 0.01 > bare["yellow"], (worn, bare)
        assert worn["black"] > 1.5 * bare["black"], (worn, bare)
