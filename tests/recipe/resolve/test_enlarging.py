"""What happens after drawing, or to a picture alone: `hires`, `upscale` and `cutout`."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.metadata.recipe_yaml import recipe_yaml
from picowatch.recipe.a1111.writer import parameters_text, without_postprocessing
from picowatch.recipe.inventory import Inventory, Upscaler
from picowatch.recipe.parts import Cutout, Hires, Upscale
from picowatch.recipe.request import ImageRequest
from tests.recipe.reading import (
    DEMO,
    HASHES,
    PicturesWith,
    check_refused,
    check_warned,
    read_one,
    request_of,
)

OLD = {"4x-Old.pth": "4x-Old.pth is a pickle file.", "4x-Old": "4x-Old.pth is a pickle file."}
INSTALLED = Inventory(
    demo=DEMO,
    upscalers=(Upscaler("4x-UltraSharp", 4), Upscaler("anime/2x-Lines", 2)),
    cutouts=("isnet-general-use", "people/u2netp"),
    segmentations=("clipseg", "sam3"),
    refused={"upscaler": OLD},
)
NONE = Inventory(demo=DEMO)
ONE = replace(INSTALLED, upscalers=INSTALLED.upscalers[:1], cutouts=INSTALLED.cutouts[:1])
PHOTO = PicturesWith(lambda _: {}, (3001, 1000))
USUAL = Hires(2.0, 0, 0.7, "Latent")
TRUE_SIZE, ENLARGED = (3001, 1000), (12004, 4000)


def only(text: str, inventory: Inventory = INSTALLED, **more: Any) -> ImageRequest:
    return request_of(text, inventory=inventory, pictures=PHOTO, **more)


@pytest.mark.parametrize(
    ("written", "hires"),
    [
        ("hires: {strength: 0.5, upscaler: latent nearest exact}",
         Hires(2.0, 0, 0.5, "Latent (nearest-exact)")),
        ("hires: on\nstrength: 0.4", Hires(2.0, 0, 0.4, "Latent")),
        ("hires: {strength: 0.5}\nstrength: 0.4\nimage: a.png", Hires(2.0, 0, 0.5, "Latent")),
        ("image: a.png\nstrength: 0.4\nhires: on", USUAL),
    ],
)  # fmt: skip
def test_a_strength_is_the_second_passs_unless_there_is_a_start_image(
    written: str, hires: Hires
) -> None:
    assert only(f"prompt: a\n{written}").hires == hires


def test_a_folders_confidence_does_nothing_where_nothing_is_looked_for() -> None:
    folder = "cutout: {model: isnet, confidence: 0.5}"
    recipe = read_one("prompt: a", inventory=INSTALLED, defaults=folder)
    check_warned(recipe, "cutout confidence has no effect without find. 0.3 is used instead.")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("upscale: 2x-lines.pth", Upscale("anime/2x-Lines", 2)),
        ("upscale: {model: 2x-Lines, scale: 1.5}", Upscale("anime/2x-Lines", 1.5)),
        ("rembg: U2NETP.pth", Cutout("people/u2netp")),
        ("remove_background: false", None),
        ("cutout: none", None),
    ],
)
def test_models_are_named_as_checkpoints_are(written: str, meant: Upscale | Cutout | None) -> None:
    """With the hash of the file, and an upscaler's own scale. What is off changes no digest."""
    found = only(f"prompt: a\n{written}")
    kind = "upscaler" if "upscale" in written else "cutout"
    assert (found.upscale or found.cutout) == meant
    assert (found.upscaler_hash or found.cutout_hash) == (HASHES[kind] if meant else "")
    assert (found.digest == only("prompt: a").digest) == (not meant)


def test_a_file_that_is_called_as_in_a1111_is_meant_before_the_model_of_that_name() -> None:
    both = replace(NONE, upscalers=(Upscaler("R-ESRGAN 4x+", 4), Upscaler("RealESRGAN_x4plus", 4)))
    for inventory in (both, replace(both, upscalers=both.upscalers[:1])):
        found = only("prompt: a\nupscale: R-ESRGAN 4x+", inventory).upscale
        assert found == Upscale("R-ESRGAN 4x+", 4)


def test_a_cut_out_stands_where_and_on_what_the_recipe_says() -> None:
    """It is stored as a name if the recipe says no more."""
    isnet = INSTALLED.cutouts[0]
    for written, meant in {
        "{model: isnet, background: White}": {"model": isnet, "background": "#ffffff"},
        "{model: isnet, background: '#F4f4f4'}": {"model": isnet, "background": "#f4f4f4"},
        "{model: isnet, margin: 0, size: 900}": {"model": isnet, "margin": 0, "size": "900x900"},
        "{find: the  shoe}": {"find": "the shoe", "model": "clipseg"},
        "{find: a, model: sam, confidence: 0.4}": {"find": "a", "model": "sam3", "confidence": 0.4},
        "{model: isnet, size: 1000 x 800}": {"model": isnet, "margin": 8, "size": "1000x800"},
    }.items():
        found = only(f"image: a.png\ncutout: {written}")
        assert found.as_dict()["cutout"] == meant, written
        kind = "segmentation" if "find" in written else "cutout"
        assert found.cutout_hash == HASHES[kind]
        assert ("Rembg: " in parameters_text(found, "1")) == (kind == "cutout")
        again = ImageRequest.from_dict(found.as_dict())
        assert (again, again.digest) == (found, found.digest)
        assert only(recipe_yaml(found)).digest == found.digest
    assert found.published_size == (1000, 800)


def test_without_a_name_it_is_the_only_one_installed() -> None:
    """With none installed the embedded one, and with several an error that lists them."""
    for written, scale in (("true", 4), ("2", 2), ("{scale: 8}", 8)):
        text = f"prompt: a\nupscale: {written}"
        assert only(text, NONE).upscale == Upscale("demo-compact", scale)
        assert only(text, ONE).upscale == Upscale("4x-UltraSharp", scale)
        large = replace(NONE, upscalers=(Upscaler("16x", 16),))
        assert only(text, large).upscale == Upscale("16x", 8 if scale == 4 else scale)
        what = "no upscaler is named, and several are installed: 4x-UltraSharp and anime/2x-Lines."
        check_refused(text, f"{what} Write 'upscale: {{model: …}}'.", inventory=INSTALLED)
        what = "no upscaler is named, and none that is installed can be used: 4x-Old.pth is a …"
        remedy = "For the embedded one, write 'upscale: {model: demo-compact}'."
        check_refused(text, f"{what} {remedy}", inventory=replace(NONE, refused={"upscaler": OLD}))
    for inventory, name in ((NONE, "demo-cutout"), (ONE, "isnet-general-use")):
        assert only("prompt: a\ncutout: true", inventory).cutout == Cutout(name)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("hires: 4\nsize: 2048x64", "hires makes 8192x256 from 2048x64; the limit is 4096 …"),
        ("hires: {upscaler: 4x-UltraShrap}", "no upscaler '4x-UltraShrap' in models/upscalers. Did "
         "you mean '4x-UltraSharp'? Available: … demo-compact, Latent, … Lanczos and Nearest."),
        ("upscale: {model: demo-compact, scale: 8}\nsize: 2048x2048",
         "upscale makes 16384x16384 from 2048x2048; the limit is 250 million pixels (max_photo_…"),
        ("upscale: R-ESRGAN 4x+", "no upscaler … Put RealESRGAN_x4plus.safetensors there; …"),
        ("cutout: [a]", "cutout must be true, false, a model's name, or a mapping like …"),
        ("cutout: {confidence: 0.5, model: isnet}",
         "cutout confidence has no effect without find. Add find, or remove …"),
        ("cutout: {model: isnet, background: #f4f4f4\n  }", "cutout background has no value. "
         'Write transparent, white, black, or a colour in quotes like "#f4f4f4", or delete …'),
        ("cutout: {model: isnet, size: 9x9}", "cutout size must be a size like 1000x1000, with …"),
    ],
)  # fmt: skip
def test_what_they_cannot_do_is_refused(written: str, message: str) -> None:
    check_refused(f"prompt: a\n{written}", message, inventory=INSTALLED)


def test_a_picture_without_a_prompt_is_only_finished() -> None:
    """Of any size; what a folder's defaults say of drawing does not matter, nor does the seed."""
    defaults = "steps: 9\nhires: true\nsize: 512x768\nseed: 7\ncount: 3\nprompt: a corgi"
    defaults += "\ndetail: face"
    text = "image: a.png\nupscale: 4x-UltraSharp"
    found = only(text, defaults=defaults)
    assert (found.draws, found.checkpoint, found.checkpoint_hash) == (False, "", "")
    assert (found.width, found.height, found.seed) == (*TRUE_SIZE, 0)
    assert (found.published_size, found.image_hash) == (ENLARGED, HASHES["image"])
    words = "Postprocess upscale by: 4, Postprocess upscaler: 4x-UltraSharp"
    assert (parameters_text(found, "1"), without_postprocessing(words)) == (words, "")
    assert not only(f"{text}\nsweep: {{'upscale: scale': [2]}}", defaults=defaults).draws
    assert request_of(f"{text}\nstrength: 0.3", "a.yaml", INSTALLED, "prompt: a dog").draws
    assert only(f"{text}\nprompt: ''").draws  # an empty prompt is a prompt
    cut = only("image: a.png\ncutout: isnet", defaults=defaults)
    isnet = Cutout(INSTALLED.cutouts[0])
    assert (cut.draws, cut.cutout, cut.published_size) == (False, isnet, TRUE_SIZE)
    both = only(f"{text}\ncutout: isnet")
    assert (both.upscale, both.cutout) == (Upscale("4x-UltraSharp", 4), isnet)
    assert both.published_size == ENLARGED


@pytest.mark.parametrize("what", ["upscale: demo-compact", "cutout: demo-cutout", "resize_to: 80"])
def test_what_only_drawing_needs_is_refused_without_a_prompt(what: str) -> None:
    text = f"image: a.png\n{what}\nsteps: 9\nhires: true\npriority: 3\nsize: {{}}"
    idle = [f"{field} has no effect without prompt. Add it, or remove {field}." for field in
            ("steps", "hires")]  # fmt: skip
    check_refused(text.format("picture"), *idle, pictures=PHOTO)
    sides = "size has no effect without prompt. Add it, or remove size."
    check_refused(text.format("80x80"), *idle, sides, pictures=PHOTO)
    for nothing in (what, "image: a.png\ncutout: false"):
        check_refused(nothing, "a prompt is missing. Write 'prompt: …'.", pictures=PHOTO)


def test_the_embedded_cutout_model_is_for_the_demo_models_drawings() -> None:
    """For a photo, a warning names the remedy."""
    for text, warns in (("prompt: a corgi", False), ("image: a.png", True)):
        recipe = read_one(f"{text}\ncutout: true", inventory=NONE, pictures=PHOTO)
        assert ("Put a model into models/cutout/" in " ".join(recipe.warnings)) == warns
