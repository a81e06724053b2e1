"""The field `from`: a picture's settings as what a recipe starts from."""

import json
from collections.abc import Mapping

import pytest

from picowatch.errors import PictureUnreadable
from picowatch.recipe import (
    Checkpoint,
    DefaultsFile,
    Inventory,
    Recipe,
    RecipeInvalid,
    read_recipes,
)
from picowatch.recipe.request import ImageRequest, LoraUse
from tests.recipe.reading import DEMO, PicturesWith, hash_of

INVENTORY = Inventory(
    demo=DEMO,
    checkpoints=(Checkpoint("dreamshaper_8", 512),),
    vaes=("mse",),
    loras=("x", "pixel"),
)
REQUEST = ImageRequest(
    prompt="a <lora:x:0.5> corgi",
    negative_prompt="dim",
    checkpoint="dreamshaper_8",
    checkpoint_hash="879db523c3" + "0" * 54,
    vae="mse",
    vae_hash="d" * 64,
    sampler="Euler",
    schedule_type="beta",
    steps=30,
    cfg_scale=6.5,
    width=512,
    height=768,
    seed=42,
    clip_skip=2,
    exact=True,
    loras=(LoraUse("pixel", "b" * 64, -1.0), LoraUse("x", "a" * 64, 0.5)),
    image="photo.png",
    image_hash="1" * 64,
    denoising_strength=0.3,
    resize="fit",
    unexpanded_prompt="a <lora:x:0.5> {corgi|cat}",
)
CHUNK = {"picowatch": json.dumps({"format": 1, "request": REQUEST.as_dict()})}
A1111 = {
    "parameters": "a corgi\nNegative prompt: dim\nSteps: 30, Sampler: DPM++ 2M, Schedule type: "
    "Karras, CFG scale: 6.5, Seed: 42, Size: 512x768, Model hash: 879db523c3, Model: "
    "dreamshaper_8, Face restoration: CodeFormer, Denoising strength: 0.3\n"
}


def read(
    text: str,
    texts: Mapping[str, str],
    inventory: Inventory = INVENTORY,
    name: str = "a.yaml",
    defaults: str = "",
) -> Recipe:
    files = [DefaultsFile("_defaults.yaml", defaults.encode())]
    recipes = read_recipes(
        name, text.encode(), inventory, files, pictures=PicturesWith(lambda path: texts)
    )
    return recipes[0]


def test_a_picture_without_mask_sets_the_folders_mask_aside() -> None:
    """The picture's start image was redrawn completely."""
    defaults = "mask: folder.png\nmask_blur: 9\nmask_invert: true\n"
    recipe = read("from: corgi.png", CHUNK, defaults=defaults)
    assert (recipe.image, recipe.mask) == ("photo.png", "")
    own = read("from: corgi.png\nmask: own.png", CHUNK, defaults=defaults)
    assert (own.mask, own.mask_blur) == ("own.png", 9)


@pytest.mark.parametrize("off", ["image: none", "mask: none", "image: none\nmask: none"])
def test_what_a_recipe_switches_off_takes_along_what_belongs_to_it(off: str) -> None:
    """There is no warning: nobody who removes the mask needs one about its blur."""
    masked = REQUEST.as_dict() | {"mask": "m.png", "mask_blur": 9, "mask_invert": True}
    request = masked | {"mask_hash": "2" * 64, "variation_strength": 0.1, "variation_seed": 3}
    recipe = read(
        f"from: corgi.png\n{off}\nvariation_strength: 0",
        {"picowatch": json.dumps({"format": 1, "request": request})},
    )
    assert recipe.warnings == ()
    assert (recipe.mask, recipe.variation_seed) == ("", None)


def test_a1111s_text_is_read_with_warnings_for_what_a_recipe_cannot_say() -> None:
    """There is also a warning about what the picture lacks, like its start image."""
    recipe = read("from: corgi.png", A1111)
    assert (recipe.prompt, recipe.negative_prompt, recipe.seed) == ("a corgi", "dim", 42)
    assert (recipe.checkpoint, recipe.sampler, recipe.size) == (
        "dreamshaper_8", "DPM++ 2M", "512x768",
    )  # fmt: skip
    assert recipe.warnings == (
        "Recipes have no 'Face restoration: CodeFormer' setting; it was ignored.",
        "denoising_strength has no effect without image or hires. It was left out. (in corgi.png)",
    )
    with_image = read("from: corgi.png\nimage: b.png", A1111)
    assert (with_image.image, with_image.denoising_strength) == ("b.png", 0.3)


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


@pytest.mark.parametrize(
    ("prompt", "written"),
    [
        ("a {red|blue} fox", r"a \{red|blue} fox"),
        ("a __dog__ {best}", r"a \__dog\__ \{best}"),
    ],
)
def test_wildcards_in_a_pictures_prompt_are_words(prompt: str, written: str) -> None:
    """They were drawn already; a text without wildcards stays as it is."""
    texts = {"parameters": f"{prompt}\nSteps: 3, Seed: 1, Model: dreamshaper_8"}
    (request,) = read("from: a.png", texts).image_requests(hash_of)
    assert (request.prompt, request.unexpanded_prompt) == (written, "")


def test_what_nobody_can_see_is_left_out_of_a_pictures_text() -> None:
    """Nobody can remove it from the picture."""
    texts = {"parameters": "a\u0085 c\r\nSteps: 3, Seed: 1, Model: dreamshaper_8\0"}
    recipe = read("from: a.png", texts)
    assert (recipe.prompt, recipe.checkpoint) == ("a c", "dreamshaper_8")


def test_the_recipe_overrides_the_picture_and_the_picture_the_defaults() -> None:
    """Field by field."""
    defaults = "steps: 3\ncount: 2\nclip_skip: 4\n"
    recipe = read("from: a.png\nseed: 7\nwidth: 256\nsampler: DDIM", A1111, defaults=defaults)
    assert (recipe.steps, recipe.count, recipe.clip_skip) == (30, 2, 4)
    assert (recipe.seed, recipe.size) == (7, "256x768")
    assert (recipe.sampler, recipe.schedule_type) == ("DDIM", "uniform")


def test_what_a_picture_gives_can_be_swept() -> None:
    """Users try other seeds and steps of a picture they like."""
    recipe = read("from: a.png\nsweep: {cfg_scale: [5, 7], 'prompt: corgi': [cat]}", A1111)
    requests = recipe.image_requests(hash_of)
    assert [(r.prompt, r.cfg_scale, r.steps) for r in requests] == [
        ("a cat", 5, 30),
        ("a cat", 7, 30),
    ]


def problem(text: str, texts: Mapping[str, str], inventory: Inventory = INVENTORY) -> str:
    with pytest.raises(RecipeInvalid) as caught:
        read(text, texts, inventory)
    (found,) = caught.value.problems
    assert (found.line, found.column) == (1, 7)
    return found.message


def test_missing_models_are_named_with_their_hashes() -> None:
    """The message says what to do; a recipe that names another model has no error."""
    bare = Inventory(demo=DEMO, vaes=("mse",), loras=("x", "pixel"))
    assert problem("from: a.png", CHUNK, bare) == (
        "no checkpoint 'dreamshaper_8' in models/checkpoints. Only demo is available. (in a.png, "
        "rendered with the file whose hash begins 879db523c3)"
    )
    assert read("from: a.png\nmodel: demo", CHUNK, bare).checkpoint == "demo"
    without_x = Inventory(
        demo=DEMO, checkpoints=INVENTORY.checkpoints, vaes=("mse",), loras=("pixel",)
    )
    recipe = read("from: a.png", CHUNK, without_x)
    assert (recipe.prompt, recipe.loras) == ("a  corgi", (("pixel", -1.0),))
    assert recipe.warnings == (
        "no LoRA 'x' in models/loras. Only pixel is available. Put its file there, or write the "
        "prompt without the tag. It was left out. (in a.png)",
    )


@pytest.mark.parametrize(
    ("model", "digits", "warning"),
    [
        ("dream", "", "the picture's checkpoint 'dream' is taken for 'dreamshaper_8', which may"),
        ("dreamshaper_8", "0123456789", "the checkpoint 'dreamshaper_8' is another file than the"),
        ("dreamshaper_8", "879db523c3", ""),
        ("", "0123456789", "The model with the hash 0123456789 has no name; the default"),
    ],
)
def test_another_checkpoint_than_the_pictures_is_a_warning(
    model: str, digits: str, warning: str
) -> None:
    """By its name, or, where both are known, by its hash."""
    known = Inventory(DEMO, (Checkpoint("dreamshaper_8", 512, hash="879db523c3" + "0" * 54),))
    said = (f", Model: {model}" if model else "") + (f", Model hash: {digits}" if digits else "")
    text = f"a\nSteps: 300, Seed: 1{said}"
    recipe = read("from: a.png", {"parameters": text}, known)
    assert (recipe.checkpoint, recipe.steps) == ("dreamshaper_8", 150)
    others = [one for one in recipe.warnings if not one.startswith("steps must be")]
    assert [one.startswith(warning) for one in others] == ([True] if warning else [])
    assert read("from: a.png\ncheckpoint: dreamshaper_8\nsteps: 3", {"parameters": text}, known
                ).warnings == ()  # fmt: skip


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "a.png: it contains no settings that picowatch can read. Unedited pictures by "
             "picowatch, A1111, ComfyUI, Fooocus, InvokeAI 3 and later, picoDiffusion and SwarmUI "
             "do. For the result of a dropped picture, write outbox/ before its path."),
        ({"picowatch-sheet": "{}"}, "a.png: it is a contact sheet. The settings are in its "
         "pictures. Name one of those."),
        ({"picowatch": "{"}, "a.png: its 'picowatch' text is damaged."),
        ({"picowatch": '{"format": 2}'}, "a.png: it was rendered by a newer picowatch. Read it "
         "with "
         "that version."),
        ({"parameters": "a corgi"}, "a.png: its 'parameters' text has no line 'Steps: …, Sampler: "
         "…'."),
    ],
)  # fmt: skip
def test_pictures_that_give_no_recipe_are_explained(texts: dict[str, str], message: str) -> None:
    """At the position where the recipe names them."""
    assert problem("from: a.png", texts) == message


def test_a_picture_that_cannot_be_read_is_reported_at_its_position() -> None:
    """The reader says why."""

    def unreadable(path: str) -> Mapping[str, str]:
        raise PictureUnreadable(f"there is no {path}.")

    with pytest.raises(RecipeInvalid, match=r"line 2, column 7: there is no gone"):
        read_recipes(
            "a.yaml", b"prompt: a\nfrom: gone.png", INVENTORY, pictures=PicturesWith(unreadable)
        )
    with pytest.raises(RecipeInvalid, match=r"from must stay within inbox"):
        read_recipes(
            "a.yaml", b"prompt: a\nfrom: ../a.png", INVENTORY, pictures=PicturesWith(unreadable)
        )


@pytest.mark.parametrize(
    ("written", "uses"),
    [("{x: 0.1}", [("x", 0.1)]), ("{pixel: 1}", [("pixel", 1.0)]), ("none", [])],
)
@pytest.mark.parametrize(
    "texts",
    [
        CHUNK,
        {
            "parameters": "a <lora:x:0.5> corgi <lora:pixel:-1>\n"
            "Negative prompt: dim <lora:x:1>\nSteps: 3, Seed: 4, Model: dreamshaper_8"
        },
    ],
)
def test_loras_of_the_recipe_replace_all_of_the_pictures(
    written: str, uses: list[tuple[str, float]], texts: dict[str, str]
) -> None:
    """This includes those in its prompt, where A1111 always has them."""
    recipe = read(f"from: corgi.png\nloras: {written}", texts)
    (request,) = recipe.image_requests(hash_of)
    assert [(lora.name, lora.weight) for lora in request.loras] == uses
    assert request.prompt.split() == ["a", "corgi"]
    assert request.negative_prompt == "dim"
