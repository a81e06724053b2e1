"""A picture's recipe as YAML, and each text of it: they make the same picture again."""

from dataclasses import replace

import pytest
import yaml
from hypothesis import given

from picowatch.metadata.embedded_text import PARAMETERS, PICOWATCH
from picowatch.metadata.recipe_yaml import differing_fields, others_yaml, recipe_yaml
from picowatch.recipe.a1111.writer import parameters_text
from picowatch.recipe.fields import ROWS
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.recipe import no_hash
from picowatch.recipe.request import ImageRequest, ReferenceUse
from tests.metadata.requests import CORGI, image_requests, inventory_for
from tests.recipe.reading import DEMO, FLOW_RULES, chunk_of, hash_of, read_one, request_of

DEFAULTS = (
    "negative_prompt: x\nvae: baked\nclip_skip: 3\ncount: 2\nexact: true\nschedule_type: beta\n"
    "loras: {add_detail: 1}\nimage: x.png\nstrength: 0.1\nresize: fit\nmask: y.png\nmask_blur: 1\n"
    "mask_invert: true\nhires: {scale: 3, steps: 9}\nshrink_to_fit: true\n"
    "prediction: v_zero_snr\nsweep: {steps: [1, 2]}\nnoise: nvidia\nvariation_seed: 3\n"
    "variation_strength: 0.5\nensd: 9\ntiling: true\n"
)


def test_it_reads_like_a_recipe_somebody_wrote() -> None:
    """Every field is there, so that no folder's defaults change the picture."""
    request = replace(CORGI, prompt="it's a corgi: \\(cute\\)", negative_prompt="blurry,\ndim # x")
    text = recipe_yaml(request)
    assert text.startswith(
        "prompt: 'it''s a corgi: \\(cute\\)'\nnegative_prompt: |-\n  blurry,\n  dim # x\n"
        "checkpoint: dreamshaper_8\nvae: baked\n"
    )
    assert "\nsampler: DPM++ 2M\n" in text
    assert "\ncfg_scale: 7.5\ncfg_rescale: 0\n" in text
    assert "\nsize: 512x768\nseed: 42\n" in text
    assert text.endswith("\nloras: {}\nreferences: none\ncontrol: none\ncount: 1\nsweep: false\n")
    idle = {"height", "width", "mask", "mask_blur", "mask_invert", "mask_padding", "resize"}
    idle |= {"denoising_strength", "colour", "keep_exif", "extend", "variation_seed"} | {
        name for name, row in ROWS.items() if not row.changes_pixels
    }
    idle -= {"count", "sweep"}
    assert set(yaml.safe_load(text)) == ROWS.keys() - idle | {"size"}


def _short(request: ImageRequest) -> str:
    return recipe_yaml(request, differing_fields(request))


def test_a_short_recipe_has_only_what_differs() -> None:
    """It also has fields that depend on the installed models or their family."""
    assert _short(replace(CORGI, negative_prompt="")) == (
        "prompt: a corgi\ncheckpoint: dreamshaper_8\nsize: 512x768\nseed: 42\n"
    )
    other = replace(CORGI, image="a.png", image_hash="1" * 64, steps=9, sampler="Euler",
                    schedule_type="simple", denoising_strength=0.3)  # fmt: skip
    assert _short(other).partition("checkpoint: dreamshaper_8\n")[2] == (
        "sampler: Euler\nschedule_type: simple\nsteps: 9\ncfg_scale: 7.5\nguidance: 0\n"
        "size: 512x768\nseed: 42\nimage: a.png\ndenoising_strength: 0.3\n"
    )
    assert "\ncfg_scale: 7.5\n" in _short(replace(CORGI, negative_prompt="", checkpoint="demo"))


@given(image_requests())
def test_any_request_reads_back_as_the_same_request(request: ImageRequest) -> None:
    """By what `show` prints, whatever the defaults, and by `from:`, also of A1111's text alone."""
    inventory, chunk = inventory_for(request), chunk_of(request)
    for recipe in (
        read_one(recipe_yaml(request), inventory=inventory, defaults=DEFAULTS),
        read_one(_short(request), inventory=inventory),
        read_one("from: a.png", inventory=inventory, texts=chunk),
    ):
        (again,) = recipe.image_requests(hash_of)
        assert again.digest == request.digest  # the picture's identity
    texts = {PARAMETERS: parameters_text(request, "0.1.0")}
    shown = read_one(others_yaml(texts, inventory), inventory=inventory)
    by_from = read_one("from: a.png", inventory=inventory, texts=texts)
    assert shown.digest(no_hash) == by_from.digest(no_hash)


def test_what_nobody_wrote_is_not_shown() -> None:
    """Beside fields without which others mean nothing."""
    extended = replace(CORGI, image="a.png", image_hash="b" * 64, extend="16:9")
    edited = replace(CORGI, references=(ReferenceUse("a.png", "b" * 64),))
    for request, shown in ((extended, "extend"), (edited, "references")):
        fields = {*differing_fields(request)}
        assert shown in fields
        assert ("denoising_strength" in fields) == (shown == "extend")
        assert fields.isdisjoint(("mask", "mask_blur", "mask_invert", "keep_exif", "resize"))


def test_a_space_before_the_name_of_a_picture_is_part_of_it() -> None:
    """Readers of recipes drop spaces around values."""
    assert "image: ./ a.png\n" in recipe_yaml(replace(CORGI, image=" a.png", image_hash="b" * 64))


@pytest.mark.parametrize(("family", "variant"), FLOW_RULES)
def test_a_picture_of_any_family_gives_its_request_again(family: str, variant: str) -> None:
    """By what `show` prints, either text, and one pasted into a TXT; without a warning."""
    rules = FLOW_RULES[family, variant]
    it = Checkpoint("it", 512, family="F", rules=rules)
    inventory = Inventory(DEMO, (it,), vaes=("own",), loras=("film",))
    start = "image: a.png\nmask: b.png\n" if rules.fills else ""
    if rules.references and rules.references.required:
        start = "references: a.png\nsize: 512x512\n"
    usual = "prompt: a <lora:film:0.8>\nvae: own\nseed: 1\n"
    if "hires" not in rules.lacks and not start:
        usual += "hires: {scale: 1.5, denoising_strength: 0.3}\n"
    request = request_of(usual + start, inventory=inventory)
    texts = {PARAMETERS: parameters_text(request, "0.1.0")} | chunk_of(request)
    again = [read_one(recipe_yaml(request), inventory=inventory)]
    for name in (PICOWATCH, PARAMETERS):
        picture = {name: texts[name]}
        again.append(read_one(f"from: a.png\n{start}", inventory=inventory, texts=picture))
    if not start:
        again.append(read_one(texts[PARAMETERS], "a.txt", inventory))
    for recipe in again:
        assert (recipe.image_requests(hash_of), recipe.warnings) == ([request], ())
