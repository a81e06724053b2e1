"""Masks that are found by words: `mask: {find: the sky}`."""

from dataclasses import replace

import pytest

from picowatch.recipe.parts import Find
from picowatch.recipe.prompts.known_words import KnownWords
from picowatch.recipe.request import ImageRequest
from tests.recipe.reading import (
    INVENTORY,
    PicturesWith,
    check_refused,
    check_warned,
    chunk_of,
    read,
    read_one,
    request_of,
)

INSTALLED = replace(INVENTORY, segmentations=("clipseg",))
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
    "{find: ''}": f"{WORDS} ''.",
    "{find: 🙂🙂}": f"{WORDS} '🙂🙂'.",
    f"{{find: {'sky' * 4000}}}": f"{WORDS} 'sky…",
    '{find: "a\\u0000hat"}': f"{WORDS} '…",
    "{find: [hat, tie]}": f"{WORDS} [hat, tie].",
    "{find: }": "mask find has no value. Write words like …",
    "{grow: 9}": "mask does not say what to find. Write 'find: …' there.",
    "{find: hat, confidence: 30}": "mask confidence must be a number from 0 to 1, not 30.",
    "{fnd: hat}": "mask has no 'fnd'. Did you mean 'find'? …",
    "{find: hat, mask_blur: 4}": "mask has no 'mask_blur'. Write mask_blur beside mask, not in it.",
    "b.png\nfind: hat": "unknown field 'find'. It is a part of mask, … {find: the sky}.",
    "{find: hat, model: sam9}": "no segmentation model 'sam9' in … Available: clipseg and …",
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
