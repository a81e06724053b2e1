"""Which images share a batch, and how many."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.daemon.batch_sizes import LARGEST, BatchSizes
from picowatch.engine.protocol import MemoryUse
from picowatch.ledger.ledger import Ledger
from picowatch.recipe.fields import ROWS
from picowatch.recipe.parts import Cutout, Find, Hires, ResizeTo, Upscale
from picowatch.recipe.request import ControlUse, DetailUse, ImageRequest, LoraUse, ReferenceUse
from tests.digest_engine import digest_picture
from tests.engine.requests import request

PIXELS = [name for name, row in ROWS.items() if row.changes_pixels]
OF_OTHER_TYPES: dict[str, Any] = {
    "cutout": Cutout("isnet"), "detail": (DetailUse("face"),), "hires": Hires(),
    "control": (ControlUse("a.png", "canny"),), "loras": (LoraUse("a", "1", 0.5),),
    "mask_padding": 0, "noise": "nvidia", "prediction": "v", "schedule_type": "beta",
    "references": (ReferenceUse("b.png", "2"),), "resize": "stretch",
    "resize_to": ResizeTo(longest_side=9), "upscale": Upscale("4x", 2.0), "variation_seed": 5,
    "width": 64, "height": 64,
}  # fmt: skip


def _another(name: str, value: Any) -> Any:
    """Return another value of the same type, or the one from the table above."""
    if name in OF_OTHER_TYPES:
        return OF_OTHER_TYPES[name]
    if isinstance(value, bool):
        return not value
    return value + " too" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("name", PIXELS)
def test_what_changes_pixels_is_in_the_digest_and_in_the_batch_key_or_may_differ(name: str) -> None:
    """Otherwise two pictures would count as one, or images of a batch would get wrong pixels."""
    given: dict[str, Any] = {"image": "a.png"}
    if name == "references":  # never with a start image
        given = {name: (ReferenceUse("a.png", "1"),)}
    if name == "cutout":  # all images of a batch have one, or none
        given = {name: Cutout("u2netp")}
    first = request(**given, mask="b.png", variation_strength=0.5)
    other = replace(first, **{name: _another(name, getattr(first, name))})
    assert first.digest != other.digest
    assert (first.batch_key == other.batch_key) is not ROWS[name].same_in_batch


def test_the_fields_that_may_differ_within_a_batch_are_each_images_own() -> None:
    """A field that the engine reads for each image is added here: it needs no batch of its own."""
    assert {name for name in PIXELS if not ROWS[name].same_in_batch} == {
        *("prompt", "negative_prompt", "seed"),
        *("ensd", "variation_seed", "variation_strength"),
        *("image", "references", "resize", "mask", "mask_blur", "mask_invert", "cutout"),
        *("extend", "mask_padding"),
        *("format", "quality", "colour", "keep_exif"),
    }


def test_so_must_be_what_is_no_field() -> None:
    """Hashes and a start image count, but not which picture that is. Exact images run alone."""
    start: dict[str, Any] = {"image": "a.png", "image_hash": "1", "denoising_strength": 0.5}
    hashes: tuple[dict[str, Any], ...] = ({"checkpoint_hash": "1"}, {"vae_hash": "1"})
    for other in (*hashes, start, {"shrink_to_fit": True}, {"exact": True}):
        key = request(**other).batch_key
        assert key != request().batch_key, other
        assert (key == request(**other, seed=2).batch_key) is ("exact" not in other)
    # All images of a batch have the same passes.
    assert request(cutout=Cutout("isnet")).batch_key != request().batch_key
    found = request(**start, mask=Find("hat")).batch_key
    assert found != request(**start, mask="b.png").batch_key
    assert found == request(**start, mask=Find("sky"), seed=2).batch_key
    one, two = (request(control=(ControlUse(name, "canny"),), image=name) for name in "ab")
    assert one.batch_key == two.batch_key


# -- how many images go into a batch


LARGE = request(width=512, height=512, steps=10)


def learn(
    sizes: BatchSizes, of: ImageRequest, size: int, seconds: float, rung: str = "full"
) -> None:
    picture = digest_picture(of, size)
    picture = replace(picture, timings={"denoise": seconds}, memory_rung=rung)
    sizes.learn([of] * size, [picture] * size)


def make(sizes: BatchSizes, of: ImageRequest, seconds_by_size: dict[int, float]) -> list[int]:
    """Return the batches of a long queue whose images take this long, until the size is steady."""
    taken = []
    for _ in range(20):
        size = sizes.size(of)
        taken.append(size)
        learn(sizes, of, size, seconds_by_size[size])
    return taken


@pytest.mark.parametrize(
    ("values", "setting", "expected"),
    [
        ({"width": 64, "height": 64}, "auto", 16),
        ({"width": 256, "height": 256}, "auto", 4),
        ({"width": 512, "height": 512}, "auto", 1),
        ({"hires": Hires(2.0, 0, 0.5, "Latent")}, "auto", 4),  # the larger size counts
        ({"width": 512, "height": 512}, 4, 4),
        ({"width": 64, "height": 64, "upscale": Upscale("x", 8.0)}, "auto", 16),  # what is drawn
        ({"cutout": Cutout("c", size="9999x9999")}, 4, 1),  # pictures are in memory together
        ({"exact": True}, 4, 1),
        ({"exact": True}, "auto", 1),
    ],
)
def test_the_size_of_a_batch_goes_by_pixels(
    ledger: Ledger, values: dict[str, Any], setting: Any, expected: int
) -> None:
    """It is sixteen small images, one large one, or the setting."""
    assert BatchSizes(setting, ledger).size(request(**values)) == expected


def test_a_card_with_free_memory_begins_with_larger_batches(ledger: Ledger) -> None:
    """After its first batch; no batch is longer than twenty seconds, and what fails is halved."""

    def second(of: ImageRequest, free: int, seconds: float = 1.0) -> int:
        sizes = BatchSizes("auto", ledger)
        picture = replace(digest_picture(of, 1), timings={"denoise": seconds})
        sizes.learn([of], [replace(picture, memory=MemoryUse(1, 1, free))])
        return sizes.size(of)

    assert [second(LARGE, free) for free in (0, 2**30, 3 * 2**30, 80 * 2**30)] == [1, 1, 5, 16]
    assert second(LARGE, 80 * 2**30, seconds=5.0) == 4


def test_batches_halve_where_memory_ran_out(ledger: Ledger) -> None:
    """The size does not grow again, not even after a restart."""
    sizes = BatchSizes("auto", ledger)
    for size in (1, 1, 2, 2):
        learn(sizes, LARGE, size, 1.0 / size)
    assert sizes.size(LARGE) == 4
    learn(sizes, LARGE, 4, 0.3, "smaller batch")
    assert set(make(sizes, LARGE, {1: 1.0, 2: 0.5})) == {2}
    fresh = BatchSizes("auto", ledger)
    assert set(make(fresh, LARGE, {1: 1.0, 2: 0.5})[1:]) == {2}


@pytest.mark.parametrize(
    ("of", "seconds", "last"),
    [
        (LARGE, {1: 1.0, 2: 0.6, 4: 0.4, 8: 0.39}, 4),
        (LARGE, {1: 11.0}, 1),  # an urgent image waits for the batch in progress
        (request(width=64, height=64), {n: 1.0 / n for n in range(1, 65)}, LARGEST),
        (replace(LARGE, cfg_scale=1.0), {1: 0.5, 2: 0.3, 4: 0.29}, 2),
    ],
)
def test_batches_grow_while_that_renders_images_faster(
    ledger: Ledger, of: ImageRequest, seconds: dict[int, float], last: int
) -> None:
    """Each size is measured twice; the last one that was faster stays, within limits."""
    taken = make(BatchSizes("auto", ledger), of, seconds)
    assert taken[-1] == last
    assert max(taken) <= min(2 * last, LARGEST)


def test_a_batch_of_which_some_were_not_drawn_says_nothing(ledger: Ledger) -> None:
    """Nothing was found in these: the others would seem to have taken less time."""
    sizes = BatchSizes("auto", ledger)
    learn(sizes, LARGE, 1, 1.0)
    before = sizes.size(LARGE)
    drawn = replace(digest_picture(LARGE, 1), timings={"denoise": 0.5})
    for _ in range(5):
        sizes.learn([LARGE, LARGE], [drawn, replace(drawn, batch_size=0)])
    assert sizes.size(LARGE) == before


def test_more_steps_are_not_taken_for_a_worse_batch(ledger: Ledger) -> None:
    """Seconds are compared per evaluation of the UNet, whatever the steps and the sampler are."""
    sizes = BatchSizes("auto", ledger)
    few, many = replace(LARGE, steps=10), replace(LARGE, steps=40)
    heun = replace(LARGE, steps=20, sampler="Heun")  # 39 evaluations
    for _ in range(2):
        learn(sizes, few, 1, 1.0)  # 0.1 s for each evaluation
    learn(sizes, many, 2, 2.4)  # 0.06 s
    learn(sizes, heun, 2, 2.4)
    assert sizes.size(few) == 4


def test_what_was_learnt_in_few_steps_does_not_make_a_long_batch(ledger: Ledger) -> None:
    """Urgent images do not wait longer because a recipe has more steps, even after a restart."""
    few, many = replace(LARGE, steps=10), replace(LARGE, steps=150)
    sizes = BatchSizes("auto", ledger)
    assert make(sizes, few, {1: 2.0, 2: 1.2, 4: 0.8, 8: 0.79})[-1] == 4
    fresh = BatchSizes("auto", ledger)
    learn(fresh, few, 4, 0.8)
    for chooser in (sizes, fresh):
        assert chooser.size(few) == 4
        assert chooser.size(many) == 1  # 12 s for an image
        assert chooser.size(replace(few, height=768)) == 1  # another kind


@pytest.mark.parametrize(
    ("rung", "then"),
    [
        *(("full", 1), ("VAE tiling", 1), ("group offload", 1)),
        *(("model offload", 4), ("text encoders in turn", 4)),
    ],
)
@pytest.mark.parametrize("side", [128, 1024])
def test_edits_are_read_together_where_text_encoders_come_and_go(
    ledger: Ledger, rung: str, then: int, side: int
) -> None:
    """Edits of any size share batches after the first one; elsewhere they go one by one."""
    edit = request(width=side, height=side, references=(ReferenceUse("photo.png", "1" * 64),))
    sizes = BatchSizes("auto", ledger)
    for size in (1, then, then):
        assert sizes.size(edit) == size
        learn(sizes, edit, size, 60.0, rung)
    assert sizes.size(replace(edit, width=side + 7)) == then
    fresh = BatchSizes("auto", ledger)
    assert fresh.size(edit, f"{sizes._device}") == then
    assert fresh.size(replace(edit, references=())) == (1 if side == 1024 else 16)
    assert BatchSizes(3, ledger).size(edit) == 3
