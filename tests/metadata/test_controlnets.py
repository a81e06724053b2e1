"""ControlNets in A1111's text: written as its extension writes them, and read in every variant."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.metadata import parameters_text
from picowatch.recipe.request import ControlUse
from tests.metadata.requests import CORGI
from tests.recipe.reading import read_one


def written(hashes: dict[str, str] | None = None, **values: Any) -> str:
    use = ControlUse("a.png", "sd15/control_v11p_sd15_canny", **values)
    text = parameters_text(replace(CORGI, control=(use,)), "0.1.0", {}, hashes)
    return text.partition("ControlNet 0: ")[2].partition(", Version")[0]


def test_the_text_is_the_extensions() -> None:
    """Key for key."""
    hashes = {"sd15/control_v11p_sd15_canny": "d14c016b"}
    assert written(hashes, preprocess="canny") == (
        '"Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, Resize Mode: Crop '
        "and Resize, Processor Res: 512, Threshold A: 100.0, Threshold B: 200.0, Guidance Start: "
        '0.0, Guidance End: 1.0, Pixel Perfect: True, Control Mode: Balanced"'
    )


def test_other_preprocessors_and_modes_have_the_extensions_names() -> None:
    """A model that is a folder has no hash there."""
    assert written(preprocess="invert", weight=0.5, end=0.8, mode="control") == (
        '"Module: invert (from white bg & black line), Model: control_v11p_sd15_canny, Weight: '
        "0.5, Resize Mode: Crop and Resize, Processor Res: 512, Threshold A: 0.5, Threshold B: "
        "0.5, Guidance Start: 0.0, Guidance End: 0.8, Pixel Perfect: True, Control Mode: "
        'ControlNet is more important"'
    )


def test_without_controlnets_the_text_has_none() -> None:
    """Byte for byte as before."""
    assert "ControlNet" not in parameters_text(CORGI, "0.1.0")


BEFORE = "a corgi\nSteps: 20, Sampler: Euler, Seed: 1, Size: 512x512, "
CANNY = "control_v11p_sd15_canny"


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        (
            f'"Module: canny, Model: {CANNY} [d14c016b], Weight: 1.0, Resize Mode: Crop and '
            "Resize, Processor Res: 512, Threshold A: 100.0, Threshold B: 200.0, Guidance Start: "
            '0.0, Guidance End: 1.0, Pixel Perfect: True, Control Mode: Balanced"',
            f"model: {CANNY}, preprocess: canny",
        ),
        (
            f'"Module: canny, Model: {CANNY} [d14c016b], Weight: 0.7, Resize Mode: Crop and '
            "Resize, Processor Res: 512, Threshold A: 50, Threshold B: 150, Guidance Start: 0.1, "
            "Guidance End: 0.9, Pixel Perfect: True, Control Mode: My prompt is more important, "
            'Hr Option: Both"',
            f"model: {CANNY}, preprocess: canny, mode: prompt, weight: 0.7, start: 0.1, end: 0.9, "
            "low: 50, high: 150",
        ),
        (
            f'"preprocessor: canny, model: {CANNY} [d14c016b], weight: 1, starting/ending: (0, '
            "0.5), resize mode: Crop and Resize, pixel perfect: False, control mode: Balanced, "
            'preprocessor params: (512, 100, 150)"',
            f"model: {CANNY}, preprocess: canny, end: 0.5, high: 150",
        ),
        (
            f'"Module: none, Model: {CANNY} [d14c016b], Weight: 1, Resize Mode: 1, Low Vram: '
            'False, Guidance Start: 0, Guidance End: 1, Pixel Perfect: False, Control Mode: 2"',
            f"model: {CANNY}, mode: control",
        ),
        (
            '"Module: dw_openpose_full, Model: control_v11p_sd15_openpose [cab727d4], Weight: 1"',
            "model: control_v11p_sd15_openpose",
        ),
        ('"what is this"', "model: …"),
    ],
    ids=["extension", "forge", "older", "numbers", "detector", "nonsense"],
)
def test_what_to_write_with_the_missing_picture_is_told(text: str, entry: str) -> None:
    """The picture is in no such text, so it can only be a warning."""
    recipe = read_one(f"{BEFORE}ControlNet 0: {text}, Version: v1.9.4\n", "a.txt")
    assert recipe.warnings == (
        "ControlNet 0 was left out: its picture is not in this text. To use it, add the picture "
        f"and 'control: {{image: …, {entry}}}'.",
    )
