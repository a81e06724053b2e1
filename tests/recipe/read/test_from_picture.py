"""The field `from`: a picture's settings as what a recipe starts from."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.request import DetailUse, LoraUse
from tests.metadata.requests import CORGI
from tests.recipe.reading import DEMO, check_said, chunk_of, hash_of, read_one, refused

DREAM = Checkpoint("dreamshaper_8", 512)
INVENTORY = Inventory(demo=DEMO, checkpoints=(DREAM,), loras=("x", "pixel"))
REQUEST = replace(
    CORGI,
    prompt="a <lora:x:0.5> corgi",
    unexpanded_prompt="a <lora:x:0.5> {corgi|cat}",
    negative_prompt="dim",
    loras=(LoraUse("pixel", "b" * 64, -1.0), LoraUse("x", "a" * 64, 0.5)),
    image="photo.png",
    image_hash="1" * 64,
    denoising_strength=0.3,
)
FACE = DetailUse("face", model="clipseg", prompt="a face <lora:x:1>", size="512x768")
CHUNK = chunk_of(REQUEST)
A1111 = {
    "parameters": "a corgi\nNegative prompt: dim\nSteps: 30, Sampler: DPM++ 2M, Schedule type: "
    "Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, Model: dreamshaper_8\n"
}


def read(
    text: str, texts: Mapping[str, str], inventory: Inventory = INVENTORY, defaults: str = ""
) -> Recipe:
    return read_one(text, inventory=inventory, defaults=defaults, texts=texts)


def test_a_picture_without_mask_sets_the_folders_mask_aside() -> None:
    """The picture's start image was redrawn completely."""
    defaults = "mask: folder.png\nmask_blur: 9\nmask_invert: true\n"
    recipe = read("from: corgi.png", CHUNK, defaults=defaults)
    assert (recipe.image, recipe.mask) == ("photo.png", "")
    own = read("from: corgi.png\nmask: own.png", CHUNK, defaults=defaults)
    assert (own.mask, own.mask_blur) == ("own.png", 9)
    for text, padding in (("", 32), (", Masked area padding: 0", 0)):
        texts = {"parameters": f"a corgi\nSteps: 3, Inpaint area: Only masked{text}"}
        assert read("from: corgi.png\nimage: a.png\nmask: b.png", texts).mask_padding == padding


def test_what_a_recipe_switches_off_takes_along_what_belongs_to_it() -> None:
    """There is no warning: nobody who removes the mask needs one about its blur."""
    masked = replace(REQUEST, mask="m.png", mask_hash="2" * 64, mask_blur=9, mask_invert=True)
    texts = chunk_of(replace(masked, variation_strength=0.1, variation_seed=3))
    for off in ("image: none", "mask: none", "image: none\nmask: none"):
        recipe = read(f"from: corgi.png\n{off}\nvariation_strength: 0", texts)
        assert (recipe.mask, recipe.variation_seed, recipe.warnings) == ("", None, ())


def test_all_below_a_pictures_values_belongs_to_them() -> None:
    """A template with blank lines is no prompt, remarks are no values, a sampler may be missing."""
    text = (
        "a corgi\nSteps: 30, Seed: 42, Size: 64x64\nTime taken: 12.3 sec.\n"
        "Template: a __dog__\n\nwith a hat\nNegative Template: dim"
    )
    recipe = read("from: corgi.png\ncheckpoint: dreamshaper_8", {"parameters": text})
    assert (recipe.prompt, recipe.steps, recipe.seed) == ("a corgi", 30, 42)
    assert recipe.warnings == ()
    recipe = read("from: corgi.png", {"parameters": "a cat\nNegative prompt: dim\n\ndark"})
    assert (recipe.prompt, recipe.negative_prompt) == ("a cat", "dim\n\ndark")
    # What nobody can see, and so not remove, is left out; line ends leave a space.
    text = "a\u0085c\u2028d\x0be\x7f\r\nSteps: 3, Model: dreamshaper_8\0"
    recipe = read("from: a.png", {"parameters": text})
    assert (recipe.prompt, recipe.checkpoint) == ("a c d e", "dreamshaper_8")


def test_the_recipe_overrides_the_picture_and_the_picture_the_defaults() -> None:
    defaults = "steps: 3\ncount: 2\nclip_skip: 4\n"
    recipe = read("from: a.png\nseed: 7\nwidth: 256\nsampler: DDIM", A1111, defaults=defaults)
    assert (recipe.steps, recipe.count, recipe.clip_skip) == (30, 2, 4)
    assert (recipe.seed, recipe.size) == (7, "256x768")
    assert (recipe.sampler, recipe.schedule_type) == ("DDIM", "uniform")


def problem(text: str, texts: Mapping[str, str], inventory: Inventory = INVENTORY) -> str:
    (found,) = refused(text, inventory=inventory, texts=texts).problems
    assert (found.line, found.column) == (1, 7)
    return found.message


def test_what_a_picture_gives_can_be_swept() -> None:
    recipe = read("from: a.png\nsweep: {cfg_scale: [5, 7], 'prompt: corgi': [cat]}", A1111)
    read_so = [(r.prompt, r.cfg_scale, r.steps) for r in recipe.image_requests(hash_of)]
    assert read_so == [("a cat", 5, 30), ("a cat", 7, 30)]


def test_a_missing_checkpoint_is_named_with_its_hash() -> None:
    """A recipe that names another model has no error."""
    bare = replace(INVENTORY, checkpoints=())
    assert problem("from: a.png", CHUNK, bare) == (
        "no checkpoint 'dreamshaper_8' in models/checkpoints. Only demo is available. Put its file "
        "there, or write 'checkpoint: …': only the picture asks for it. (in a.png, rendered with "
        "the file whose hash begins 879db523c3)"
    )
    assert read("from: a.png\nmodel: demo", CHUNK, bare).checkpoint == "demo"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "a.png: it contains no settings that picowatch can read. Unedited pictures by … …"),
        ({"picowatch-sheet": "{}"}, "a.png: it is a contact sheet. The settings are in its …"),
        ({"picowatch": "{"}, "a.png: the picture's 'picowatch' text is not JSON."),
        ({"picowatch": '{"format": 2}'}, "… text has format 2; … A newer picowatch can read it."),
        ({"picowatch": CHUNK["picowatch"].replace('"request": {', '"request": {"styles": 1, ')},
         "a.png: … 'picowatch' text is damaged: request.styles: this version does not know it."),
        ({"parameters": "a corgi"}, "a.png: its 'parameters' text has no line 'Steps: …'."),
    ],
)  # fmt: skip
def test_pictures_that_give_no_recipe_are_explained(texts: dict[str, str], message: str) -> None:
    check_said([problem("from: a.png", texts)], message)


@pytest.mark.parametrize(
    ("written", "uses"),
    [("{x: 0.1}", [("x", 0.1)]), ("{pixel: 1}", [("pixel", 1.0)]), ("none", [])],
)
@pytest.mark.parametrize(
    "texts",
    [
        chunk_of(replace(REQUEST, detail=(FACE,))),
        {"parameters": "a <lora:x:.5:1> corgi <lora:pixel:-1>\nNegative prompt: dim <lora:x:1>\n"
                       "Steps: 3, Seed: 4, Model: dreamshaper_8, ADetailer model: face_yolov8n.pt, "
                       "ADetailer prompt: a face <lora:x:1>"},
    ],
)  # fmt: skip
def test_loras_of_the_recipe_replace_all_of_the_pictures(
    written: str, uses: list[tuple[str, float]], texts: dict[str, str]
) -> None:
    """This includes those in its prompt, where A1111 always has them, and in those of details."""
    inventory = replace(INVENTORY, segmentations=("clipseg",))
    for loras in (f"loras: {written}", f"sweep: {{loras: [{written}]}}"):
        recipe = read(f"from: corgi.png\n{loras}", texts, inventory)
        (request,) = (image for each in recipe.variants for image in each.image_requests(hash_of))
        for used in (request.loras, *(detail.loras for detail in request.detail)):
            assert [(lora.name, lora.weight) for lora in used] == uses
        assert request.prompt.split() == ["a", "corgi"]
        assert request.negative_prompt == "dim"
        assert [detail.prompt for detail in request.detail] == ["a face"]
