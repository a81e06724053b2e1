"""No flow family ignores a field silently: it honours it, warns about it, or refuses it."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from picowatch.families import FAMILIES
from picowatch.recipe.fields import MAPPINGS, PART_FIELDS, ROWS
from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory
from picowatch.recipe.messages.problems import RecipeInvalid
from picowatch.recipe.recipe import Recipe
from tests.recipe.reading import DEMO, FLOW_RULES, read_one

PARTS = {name: row for name, row in PART_FIELDS.items() if name.partition(".")[0] in MAPPINGS}
FIELDS = [name for name, row in {**ROWS, **PARTS}.items() if row.changes_pixels]
# What a recipe says of each field, besides its prompt: nothing that is a default anywhere.
ALONE = (
    *("negative_prompt: blur", "vae: soft", "prediction: v", "sampler: UniPC", "noise: nvidia"),
    *("schedule_type: karras", "steps: 7", "cfg_scale: 3.25", "cfg_rescale: 0.5", "seed: 7"),
    *("cfg_start: 0.25", "cfg_end: 0.75", "guidance: 2.25", "width: 512", "height: 512"),
    *("ensd: 31337", "clip_skip: 2", "hires: true", "upscale: true", "cutout: true"),
    *("loras: film", "tiling: true", "references: a.png", "shrink_to_fit: true", "exact: true"),
    *("resize_to: 90", "format: jpeg", "quality: 60", "quantize: fp8", "step_cache: true"),
    *("image: a.png", "control: {image: a.png, model: canny}", "variation_strength: 0.5"),
    "detail: face",
)
BESIDE_IMAGE = (
    *("denoising_strength: 0.4", "resize: fit", "extend: 16:9", "keep_exif: none", "colour: same"),
    *(
        "mask: b.png",
        *(f"mask: b.png\nmask_{more}" for more in ("blur: 9", "padding: 9", "invert: 1")),
    ),
)
# The last part of a mapping is the one that it is about.
OF_PARTS = (
    *("hires: {scale: 1.5}", "hires: {steps: 5}", "hires: {denoising_strength: 0.4}"),
    *("hires: {upscaler: Nearest}", "upscale: {model: demo-compact}", "upscale: {scale: 3}"),
    *("cutout: {model: demo-cutout}", "cutout: {background: white}", "cutout: {margin: 3}"),
    *("cutout: {size: 100x100}", "cutout: {shadow: true}", "cutout: {find: hat}"),
    *("cutout: {find: hat, confidence: 0.4}", "resize_to: {longest_side: 90}"),
    *("resize_to: {shortest_side: 90}", "resize_to: {width: 90}", "resize_to: {height: 90}"),
    *("resize_to: {megapixels: 1}", "resize_to: {width: 90, height: 90, fit: pad}"),
    *("resize_to: {width: 90, background: white}", "resize_to: {width: 2048, enlarge: true}"),
)
SAMPLES = {
    **{line.partition(":")[0]: line for line in ALONE},
    **{text.split("\n")[-1].partition(":")[0]: f"image: a.png\n{text}" for text in BESIDE_IMAGE},
    **{re.sub(r": \{(.*, )?(\w+):.*", r".\2", text): text for text in OF_PARTS},
    "prompt": "",
    "checkpoint": "",
    "variation_seed": "variation_strength: 0.5\nvariation_seed: 3",
}
# What the engine reads for a flow family; tests/engine/test_flows.py compares the pictures.
HONOURED = {
    *("prompt", "negative_prompt", "sampler", "cfg_scale", "guidance", "steps", "noise", "seed"),
    *("width", "height", "hires", "hires.scale", "hires.steps", "hires.denoising_strength"),
    *("hires.upscaler", "upscale", "upscale.model", "upscale.scale", "image", "resize", "mask"),
    *("mask_blur", "mask_invert", "denoising_strength", "checkpoint", "vae", "loras"),
    *("exact", "mask_padding", "detail", "cfg_rescale", "cfg_start", "cfg_end"),
    *("quantize", "step_cache", "shrink_to_fit", "references", "format", "quality", "keep_exif"),
    *("extend", "cutout", "cutout.model", "cutout.background", "cutout.margin", "cutout.size"),
    *("cutout.shadow", "cutout.find", "cutout.confidence"),
    *("colour", "resize_to", *(name for name in PARTS if name.startswith("resize_to."))),
}
# The daemon reads these when it writes a picture's file.
OF_FILES = ("format", "quality", "keep_exif")
CANNY = ControlNet("canny", FAMILIES["sd1"].name, 768)
INSTALLED = Inventory(
    demo=DEMO, vaes=("soft",), loras=("film",), controlnets=(CANNY,), segmentations=("sam3",)
)
# One of the variants with the same rules, with the recipe that says nothing else.
VARIANTS = {repr(rules): variant for variant, rules in FLOW_RULES.items()}.values()


def test_the_engines_tests_use_each_field() -> None:
    """A field that no line of the engine reads would pass all tests of recipes."""
    folder = Path(__file__).parents[2] / "engine"
    words = {word for file in folder.rglob("*.py") for word in re.findall(r"\w+", file.read_text())}
    named = {name: name.rpartition(".")[2] for name in FIELDS if name not in OF_FILES}
    untested = [name for name, word in named.items() if word not in words]
    assert not untested, f"Add a test in tests/engine that draws with {untested}."


@cache
def usual_recipe(family: str, variant: str) -> tuple[str, Inventory, Recipe]:
    """Return what a recipe for a variant has to say, what is installed, and the recipe read."""
    rules = FLOW_RULES[family, variant]
    it = Checkpoint("it", 1024, family=FAMILIES[family].name, rules=rules)
    inventory = replace(INSTALLED, checkpoints=(it,))
    usual = "prompt: a cube\ncheckpoint: it\n"
    if rules.fills:
        usual += "image: start.png\nmask: start.png\n"
    if rules.references and rules.references.required:
        usual += "references: start.png\n"
    return usual, inventory, read_one(usual, inventory=inventory, texts={})


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_is_honoured_warned_about_or_refused(field: str) -> None:
    """By every variant of every flow family."""
    assert field in SAMPLES, f"Add a recipe with {field} to ALONE or SAMPLES."
    own = SAMPLES[field]
    said = {line.partition(":")[0] for line in own.split("\n")}
    said |= {"mask"} if field == "extend" else set()  # it makes one of its own
    for family, variant in VARIANTS:
        usual, inventory, without = usual_recipe(family, variant)
        kept = [line for line in usual.split("\n") if line.partition(":")[0] not in said]
        try:
            recipe = read_one("\n".join([*kept, own]), inventory=inventory, texts={})
        except RecipeInvalid as refused:
            name = FAMILIES[family].name
            assert any(name in problem.message for problem in refused.problems)
            continue
        if recipe.warnings or not own:
            continue
        ignored = f"{family} {variant} ignores {field} silently; if it is used, add it to HONOURED."
        assert field in HONOURED, ignored
        assert recipe != without
