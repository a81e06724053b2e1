"""What words find: `detail: {find: face}`, which is drawn again, and `mask: {find: the sky}`."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.recipe.inventory import KnownWords
from picowatch.recipe.parts import Find
from picowatch.recipe.request import ImageRequest, LoraUse, recipe_values
from tests.recipe.reading import (
    HASHES,
    INVENTORY,
    PicturesWith,
    check_refused,
    check_warned,
    chunk_of,
    hash_of,
    read,
    read_one,
    request_of,
)

INSTALLED = replace(
    INVENTORY, segmentations=("clipseg",), loras=("ink", "film"), wildcards={"eye": ("red",)}
)
PHOTO = PicturesWith(lambda _: {}, size=(4001, 3000))


def asked(text: str, **options: Any) -> ImageRequest:
    return request_of(text, inventory=INSTALLED, pictures=PHOTO, **options)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{denoising_strength: 0.4}", "detail does not say what to find. …"),
        ("true", "detail must be words like face, a mapping …"),
        ("{find: '!!'}", "detail find must be words … not '!!'."),
        ("[a, a, a, a, a, a, a, a, a]", "detail must be … list of up to eight, not [a, …"),
        ("{find: face, count: 0}", "detail count must be …"),
        ("{find: face, size: 100x64}", "detail size is 100x64, but … multiples of 8. Leave it …"),
        ("{find: face, size: 4096x64}", "detail size is 4096x64, but … from 64 to 2048 pixels …"),
        ("{find: face, size: large}", "detail size must be a size like 512x512, not 'large'."),
        ("{find: face, prompt: '<lora:gone:1>'}", "no LoRA 'gone' in …"),
        ("{find: face, paddding: 3}", "detail has no 'paddding'. …"),
        ("{find: face, sampler: x}", "detail has no 'sampler'. Write sampler beside detail, …"),
        ("{find: face, model: gone}", "no segmentation model 'gone' in …"),
    ],
)
def test_a_wrong_detail_says_what_is_possible(written: str, said: str) -> None:
    check_refused(f"prompt: a\ndetail: {written}\n", said, inventory=INSTALLED)


def test_a_detail_has_prompts_of_its_own_or_the_pictures() -> None:
    """Wildcards are drawn, its LoRAs act on it alone, beside those of the field `loras`."""
    text = "prompt: a man <lora:ink:0.5>\nloras: [film]\nnegative_prompt: blur\nseed: 7\n"
    own = "{find: face, prompt: '{red|red} eyes __eye__ <lora:ink:0.75>'}"
    request = asked(f"{text}detail: [{own}, face]")
    first, second = request.detail
    assert (first.prompt, first.negative_prompt) == ("red eyes red <lora:ink:0.75>", "")
    lora = HASHES["lora"]
    assert first.loras == (LoraUse("film", lora, 1.0), LoraUse("ink", lora, 0.75))
    assert request.loras[1].weight == 0.5
    assert (second.prompt, second.loras, second.finder_hash) == ("", (), "7" * 64)
    recipes = (read_one(f"{text}detail: {detail}", inventory=INSTALLED) for detail in (own, "face"))
    assert len({recipe.digest(hash_of) for recipe in recipes}) == 2


def test_a_request_is_stored_and_shown_with_its_details() -> None:
    """As JSON, by `show`, and by `from:`, whose prompts are final."""
    detail = "[{find: face, prompt: 'an \\{eye} <lora:ink:1>', size: 64x64}, hands]"
    request = asked(f"prompt: a man\nseed: 5\ndetail: {detail}")
    assert ImageRequest.from_dict(request.as_dict()) == request
    again = read("from: a.png", inventory=INSTALLED, texts=chunk_of(request))[0]
    (same,) = again.image_requests(hash_of)
    assert same.digest == request.digest
    assert recipe_values(asked("prompt: a"))["detail"] == "none"


@pytest.mark.parametrize(
    "more", ["", "denoising_strength: 0", "denoising_strength: 0\nprompt: a man"]
)
def test_an_existing_picture_keeps_its_size_and_all_but_details(more: str) -> None:
    """With image and no prompt, or without any denoising."""
    request = asked(f"image: a.jpg\ndetail: face\n{more}")
    assert request.only_details and request.draws
    assert (request.drawn_size, request.published_size) == ((128, 128), (4001, 3000))
    assert request.image_hash == "1" * 64
    shown = recipe_values(request)
    assert (shown["denoising_strength"], shown["image"]) == (0, "a.jpg")
    larger = asked(f"image: a.jpg\ndetail: face\nupscale: {{scale: 1.5}}\ncutout: true\n{more}")
    assert larger.published_size == (6002, 4500)
    drawn = asked("prompt: a man\nimage: a.jpg\ndetail: face")
    assert (drawn.only_details, drawn.published_size) == (False, (128, 128))


def test_what_is_for_the_whole_picture_is_refused_where_it_stays() -> None:
    """What a folder says of it is for other recipes."""
    text = "image: a.jpg\ndetail: face\nsteps: 9\n"
    for said in ("hires: true", "mask: {find: hat}", "denoising_strength: 0.5", "extend: 16:9"):
        name = said.partition(":")[0]
        remedy = f"write {name} inside detail" if "strength" in name else f"remove {name}"
        what = f"{name} has no effect without prompt. Add it, or {remedy}."
        check_refused(text + said, what, inventory=INSTALLED)
    assert asked(text, defaults="prompt: a\nhires: true\nsize: 64x64") == asked(text)


def test_a_swept_lora_may_stand_in_the_prompt_of_a_detail() -> None:
    """The sweep has the weights, there as in the picture's prompt."""
    detail = "detail: [{find: face, prompt: 'a face <lora:ink:0.8>'}, {find: hand}]"
    requests = read_one(
        f"prompt: a\n{detail}\nsweep: {{'lora: ink': [0.2, 0.4]}}", inventory=INSTALLED
    ).image_requests(hash_of, 5)
    found = [(request.detail[0].prompt, request.detail[0].loras[0].weight) for request in requests]
    assert found == [("a face ", 0.2), ("a face ", 0.4)]


SKY = "prompt: red\nimage: a.png\nmask: "


def found(mask: str, others: str = "") -> ImageRequest:
    return request_of(f"{SKY}{mask}\n{others}", inventory=INSTALLED)


def test_a_mask_is_what_words_find_with_a_model() -> None:
    """The only one that is installed, if none is named."""
    request = found("{find: the  sky}", "mask_blur: 9\nmask_invert: true")
    assert request.mask == Find("the sky", 0.3, 4, "clipseg", False)
    assert (request.mask_finder_hash, request.mask_hash) == ("7" * 64, "")
    assert (request.mask_blur, request.mask_invert, request.redraws_a_part) == (9, True, True)
    assert request.pictures == {"a.png": "1" * 64}
    said = "{Find: face, Threshold: 50%, grow: -3, model: clip, preview: yes}"
    said = said.replace("50%", "0.5").replace("face", "'face, hands'")
    assert found(said).mask == Find("face, hands", 0.5, -3, "clipseg", True)


WORDS = "mask find must be words like the sky, or face, hands: letters, at most 300 characters, not"
WRONG = {
    "{find: 🙂🙂}": f"{WORDS} '🙂🙂'.",
    f"{{find: {'sky' * 4000}}}": f"{WORDS} 'sky…",
    '{find: "a\\u0000hat"}': f"{WORDS} '…",
    "{find: [hat, tie]}": f"{WORDS} [hat, tie].",
    "{find: }": "mask find has no value. Write words like …",
    "{find: hat, confidence: 30}": "mask confidence must be a number from 0 to 1, not 30.",
    "b.png\nfind: hat": "unknown field 'find'. It is a part of mask, … {find: the sky}.",
}


@pytest.mark.parametrize(("mask", "message"), WRONG.items())
def test_what_cannot_be_found_is_refused(mask: str, message: str) -> None:
    check_refused(SKY + mask, message, inventory=INSTALLED)


@pytest.mark.parametrize(
    "looking", ["detail: {find: hat}", "mask: {find: hat}\nprompt: a", "cutout: {find: hat}"]
)
def test_a_picture_too_narrow_to_find_anything_in_is_refused(looking: str) -> None:
    """Before any model is loaded: one of which a side has 20 times the other's pixels is not."""
    field, *_ = looking.partition(":")
    text = f"image: a.png\n{looking}\n"
    what = f"{field} finds nothing in a picture of 13x1201: it is too narrow. One side may …"
    too_narrow, narrow = (PicturesWith(lambda _: {}, (13, side)) for side in (1201, 260))
    check_refused(text, what, inventory=INSTALLED, pictures=too_narrow)
    read_one(text, inventory=INSTALLED, pictures=narrow)


def test_a_model_of_a_picture_that_is_missing_is_replaced() -> None:
    """The whole picture is not redrawn for that."""
    texts = chunk_of(replace(found("{find: hat, grow: 9}"), mask=Find("hat", grow=9, model="sam")))
    recipe = read_one("from: corgi.png", inventory=INSTALLED, texts=texts)
    assert recipe.mask == Find("hat", grow=9, model="clipseg")
    check_warned(recipe, "no segmentation model 'sam' in … clipseg is used instead. (in corgi.png)")


def test_words_that_the_embedded_model_does_not_know_are_told() -> None:
    """Once for a file; other models may know any."""
    known = KnownWords(("hat", "bow tie"), frozenset({"hat", "bow", "tie"}))
    entry = "prompt: a\nimage: a.png\nmask: {find: the big hat, model: demo-find}\n"
    text = f"{entry}cutout: {{find: 'the shoe, bow tie'}}\n---\n{entry}"
    first, second = read(text, inventory=replace(INVENTORY, findable=known))
    what = "the demo-find model does not know 'big' and 'shoe'; it knows hat and bow tie."
    check_warned(first, what)
    check_warned(second)
    check_warned(read_one(f"{SKY}{{find: shoe}}", inventory=replace(INSTALLED, findable=known)))
