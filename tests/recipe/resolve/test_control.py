"""The field `control`: what its entries say, and what is wrong with them."""

from dataclasses import replace

import pytest

from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory
from picowatch.recipe.parts import Control
from tests.recipe.reading import DEMO, check_refused, of_family, read_one

SD1, XL = "Stable Diffusion 1.x", "Stable Diffusion XL"
INSTALLED = Inventory(
    demo=replace(DEMO, family=SD1, text_width=64),
    checkpoints=(
        Checkpoint("photo", 512, family=SD1, text_width=768),
        Checkpoint("large", 1024, family=XL, text_width=2048),
        of_family("flow", "flux", "schnell"),
    ),
    controlnets=(
        ControlNet("canny", SD1, 768),
        ControlNet("sd15/depth", SD1, 768),
        ControlNet("xl-small", XL),
        ControlNet("union", XL, 2048, 6),
        ControlNet("promax", XL, 2048, 8),
    ),
    depths=("Depth-Anything",),
    refused={"controlnet": {"lora.safetensors": "is a Control-LoRA."}},
    default_checkpoint="photo",
)


def controls(text: str, inventory: Inventory = INSTALLED) -> tuple[Control, ...]:
    return read_one(f"prompt: a\n{text}", inventory=inventory).control


def check(text: str, message: str, inventory: Inventory = INSTALLED) -> None:
    check_refused(f"prompt: a\n{text}", message, inventory=inventory)


@pytest.mark.parametrize(
    "written",
    [
        "control: {image: a.png, model: canny}",
        "control: {image: ./a.png, controlnet: models/controlnet/canny.safetensors}",
        "control: {image: a.png, model: canny, module: none, control_mode: Balanced}",
        "image: a.png\ncontrol: {model: canny}",
    ],
)
def test_one_entry_is_a_mapping_or_a_list_of_one(written: str) -> None:
    """Other programs' names of its fields work; without an image, it follows the start image."""
    assert controls(written) == (Control("a.png", "canny"),)


def test_the_only_model_that_guesses_depth_is_meant() -> None:
    """One of several has to be named; without any, the error says which command gets one."""
    text = "control: {image: a.png, model: depth, preprocess: depth}"
    assert controls(text)[0].depth == "Depth-Anything"
    two = replace(INSTALLED, depths=("large", "small"))
    assert controls(text.replace("}", ", depth: small}"), two)[0].depth == "small"
    check(text, "no depth model is named, and several are installed…", two)
    none = replace(INSTALLED, depths=())
    where = "--local-dir models/depth/Depth-Anything-V2-Small-hf"
    check(text, f"…hf download depth-anything/Depth-Anything-V2-Small-hf {where}…", none)


def test_a_union_is_told_what_its_map_shows() -> None:
    """The preprocessor tells it, if there is one."""
    for written, kind in {
        "preprocess: canny": "hard edges",
        "preprocess: depth": "depth",
        "kind: pose": "pose",
        "kind: Soft Edges": "soft edges",
        "preprocess: canny, kind: segments": "segments",
    }.items():
        text = f"checkpoint: large\ncontrol: {{image: a.png, model: union, {written}}}"
        assert controls(text)[0].kind == kind


# What is said of an entry for canny with more.
OF_CANNY = {
    "kind: pose": "the ControlNet 'canny' is not a union: it follows one kind of map. Remove kind.",
    "preprocess: openpose": "control preprocess must be canny, …, not 'openpose'.",
    "preprocess: inpaint": "'preprocess: inpaint' shows a ControlNet … Add image and mask.",
    "start: 0.8, end: 0.2": "control begins at 0.8, after its end at 0.2.",
    "low: 50": "control low has no effect without 'preprocess: canny'. Remove it.",
}
CANNY = "control: {image: a.png, model: canny"


@pytest.mark.parametrize(
    ("written", "message"),
    [
        *((f"{CANNY}, {more}}}", message) for more, message in OF_CANNY.items()),
        ("control: canny", "control must be a mapping like … or a list of them, not 'canny'. …"),
        ("control: {image: a.png}", "control names no model … Installed: canny and sd15/depth."),
        ("control: {model: canny}", "control has no picture to follow. Write 'image: …' there."),
        ("control: {image: a.png, model: union, kind: pose}",
         f"the ControlNet 'union' is for {XL}, but … 'photo' belongs to {SD1}. Use a ControlNet …"),
        (f"checkpoint: demo\n{CANNY}}}", "…'canny' is for … 'demo' is of another size. Use a …"),
        (f"checkpoint: flow\n{CANNY}}}", "FLUX.1 has no control: … Remove it."),
        ("checkpoint: large\ncontrol: {image: a.png, model: union}",
         "… 'union' must be told what the map shows, … Write 'kind: …' with pose, … segments."),
        ("control: {image: ../a.png, model: canny}", "control image must stay within inbox/ …"),
        (f"control: [{CANNY[9:]}}}, {CANNY[9:]}}}]\nsweep: {{'control: weight': [0, 1]}}",
         "'control: weight' could vary any of the 2 entries of control. Sweep 'control' itself, …"),
    ],
)  # fmt: skip
def test_mistakes_are_told_in_full(written: str, message: str) -> None:
    check(written, message)


def test_a_sweep_varies_what_a_controlnet_says() -> None:
    """Its weight by name, or all of it."""
    text = "prompt: a\ncontrol: {image: a.png, model: canny}\nsweep:\n"
    swept = read_one(f"{text}  'control: weight': 0..1 step 0.5", inventory=INSTALLED)
    assert [variant.control[0].weight for variant in swept.variants] == [0, 0.5, 1]
    assert swept.sweep[0].label == "control: weight"
    text += "  control: [{image: b.png, model: canny}, none]"
    whole = read_one(text, inventory=INSTALLED)
    assert [len(variant.control) for variant in whole.variants] == [1, 0]
    assert [path for _, path in whole.pictures] == ["b.png"]


def test_a_folders_controlnet_that_does_not_fit_is_left_out() -> None:
    """With a warning; the others are used."""
    for checkpoint, written, count in (
        ("flow", "{image: a.png, model: canny}", 0),
        ("large", "[{image: a.png, model: canny}, {image: a.png, model: xl-small}]", 1),
        ("photo", "[{image: a.png, model: canny}, {image: a.png, model: union}]", 1),
    ):
        text, defaults = f"prompt: a\ncheckpoint: {checkpoint}", f"control: {written}"
        recipe = read_one(text, inventory=INSTALLED, defaults=defaults)
        assert (len(recipe.control), len(recipe.warnings)) == (count, 1)
