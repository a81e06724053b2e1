"""The keys of A1111's extension ADetailer: read into `detail`, and written back."""

import re
from dataclasses import replace
from typing import Any

import pytest

from picowatch.recipe.a1111.writer import parameters_text
from picowatch.recipe.parts import Detail
from tests.recipe.reading import INVENTORY, check_warned, hash_of, read_one

INSTALLED = replace(INVENTORY, segmentations=("clipseg",), loras=("ink",))
BEGIN = "a man\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x96, Model: demo"
VERSION = "ADetailer version: 24.11.1"


def keys(number: str = "", model: str = "face_yolov8n.pt", **others: Any) -> str:
    """What ADetailer writes of a pass that is as usual, with other values."""
    usual = {
        "model": model, **{name: prompt for name, prompt in others.items() if "prompt" in name},
        "confidence": 0.3, "dilate_erode": 4, "mask_blur": 4, "denoising_strength": 0.4,
        "inpaint_only_masked": True, "inpaint_padding": 32,
    } | others  # fmt: skip
    named = {name.replace("_", " "): value for name, value in usual.items()}
    return ", ".join(f"ADetailer {name}{number}: {value}" for name, value in named.items())


SEPARATE: dict[str, Any] = {
    "use_inpaint_width_height": True,
    "inpaint_width": 128,
    "inpaint_height": 64,
}
FACE = Detail("face", model="clipseg", size="64x96")
HAND, PERSON = replace(FACE, find="hand"), replace(FACE, find="person")
# What ADetailer wrote, and what is drawn again.
TEXTS: dict[str, list[Detail]] = {
    keys(): [FACE],
    keys(model="mediapipe_face_full"): [FACE],
    keys(confidence=0.55, dilate_erode=-12, denoising_strength=0, inpaint_padding=0): [
        replace(FACE, confidence=0.55, grow=-12, denoising_strength=0.0, mask_padding=0)
    ],
    keys(prompt='"blue eyes, <lora:ink:0.8>"', negative_prompt='"blur, dim"'): [
        replace(FACE, prompt="blue eyes, <lora:ink:0.8>", negative_prompt="blur, dim")
    ],
    keys(negative_prompt="{a|b}"): [replace(FACE, negative_prompt="\\{a|b}")],
    keys(mask_only_top_k=1): [replace(FACE, count=1)],
    keys(use_separate_steps=True, steps=28): [replace(FACE, steps=28)],
    keys(**SEPARATE): [replace(FACE, size="128x64")],
    keys(model="yolov8x-worldv2.pt", model_classes='"cat, dog"'): [replace(FACE, find="cat, dog")],
    f"{keys()}, {keys(' 2nd', 'hand_yolov8n.pt')}, {keys(' 3rd', 'person_yolov8n-seg.pt')}": [
        FACE, HAND, PERSON
    ],
    f"{keys(' 2nd', 'hand_yolov8n.pt', **SEPARATE)}": [replace(HAND, size="128x64")],
}  # fmt: skip


def adetailers(text: str) -> dict[str, str]:
    """The values of ADetailer in a text, but for the name of the model."""
    found = dict(re.findall(r'(ADetailer [\w ]+): ("[^"]*"|[^,\n]*)', text))
    return {key: value for key, value in found.items() if not key.startswith("ADetailer model")}


@pytest.mark.parametrize(("written", "meant"), TEXTS.items())
def test_a_text_gives_details_and_goes_back(written: str, meant: list[Detail]) -> None:
    """With the same keys and values, and a warning that another model finds."""
    recipe = read_one(f"{BEGIN}, {written}, {VERSION}", "a.txt", inventory=INSTALLED)
    assert list(recipe.detail) == meant
    assert len(recipe.warnings) == len({detail.find for detail in meant})
    assert all("models/segmentation" in warning for warning in recipe.warnings)
    (request,) = recipe.image_requests(hash_of)
    text = parameters_text(request, "0.1.0")
    first_only = written.replace(" 2nd", "") if len(meant) == 1 else written
    assert adetailers(text) == adetailers(first_only.replace("{a|b}", "\\{a|b}"))
    (again,) = read_one(text, "b.txt", inventory=INSTALLED).image_requests(hash_of)
    assert again.detail == request.detail


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("ADetailer model: None", []),
        (keys(tab_enable=False), []),
        (keys(model="eyeful_v2.pt"), ["'eyes' is found by …"]),
        (keys(model="gone.pt"), ["Recipes have no 'ADetailer model: gone.pt' setting; …"]),
        (keys(controlnet_model="None", mask_min_ratio="0.0"), ["'face' is found …"]),
        (keys(use_separate_CFG_scale=True, CFG_scale=5),
         ["'face' is found …", "Recipes have no 'ADetailer cfg scale: 5' setting; …"]),
        (keys(inpaint_only_masked=False), ["'face' is found …", "ADetailer's whole picture …"]),
        (keys(prompt='"[PROMPT], smiling [SEP] sad"', negative_prompt='"[PROMPT], a hat"'),
         ["'face' is found …", "Recipes have no 'ADetailer prompt: sad' setting; …"]),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_say_is_a_warning(written: str, said: list[str]) -> None:
    """A pass that is off, or whose model nobody knows, is left out."""
    begin = BEGIN.replace("Steps", "Negative prompt: dim\nSteps")
    recipe = read_one(f"{begin}, {written}", "a.txt", inventory=INSTALLED)
    check_warned(recipe, *said)
    if "[PROMPT]" in written:  # each is that of the picture
        (detail,) = recipe.detail
        assert (detail.prompt, detail.negative_prompt) == ("a man, smiling", "dim, a hat")
    assert bool(recipe.detail) == any("is found" in warning for warning in said)


def test_the_loras_of_a_recipe_are_in_the_texts_prompts() -> None:
    """Those of the field `loras` act on details with a prompt of their own, too."""
    recipe = "prompt: a man\nloras: {ink: 0.5}\nseed: 1\ndetail: [{find: face, prompt: eyes}, hand]"
    (request,) = read_one(recipe, inventory=INSTALLED).image_requests(hash_of)
    text = parameters_text(request, "0.1.0")
    assert text.count("<lora:ink:0.5>") == 2
    (again,) = read_one(text, "b.txt", inventory=INSTALLED).image_requests(hash_of)
    assert [detail.loras for detail in again.detail] == [request.loras, ()]
