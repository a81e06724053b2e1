"""Details that are drawn again, with a tiny CLIPSeg whose findings are given here."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from picowatch.engine.colours import joined
from picowatch.engine.model.memory import MemoryLadder
from picowatch.engine.networks.find import ClipSeg, Found
from picowatch.engine.protocol import OnProgress, Progress, RenderedImage
from tests.engine.adapters import kohya_lora, write
from tests.engine.demo import demo
from tests.engine.flow_requests import SIDE, requests_of
from tests.engine.requests import Pixels, draw, ignore_progress, numbers_of, picture_of, pixels
from tests.engine.test_masks import deep_start, models_of, renderer, requested

Box = tuple[int, int, int, int]
DETAIL = "find: hat, grow: 0, mask_blur: 0, mask_padding: 2, size: 64x64, steps: 2"
NOWHERE = "so the picture stays as it is."


@contextmanager
def finding(*boxes: list[Box]) -> Iterator[list[str]]:
    """Find these boxes in one picture after the other; yields the phrases looked for."""
    left, phrases = list(boxes), list[str]()

    def find(
        self: ClipSeg, picture: Image.Image, phrase: str, confidence: float, halvings: int = 0
    ) -> list[Found]:
        phrases.append(phrase)
        found = []
        for left_, top, right, bottom in left.pop(0):
            mask = np.zeros((picture.height, picture.width), np.float32)
            mask[top:bottom, left_:right] = 1
            found.append(Found(0.9, (left_, top, right, bottom), mask))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ClipSeg, "find", find)
        yield phrases
    assert not left


def drawn(
    checkpoint: str, *texts: str, on_progress: OnProgress = ignore_progress
) -> list[RenderedImage]:
    """Return a batch; without a mask of words, no picture is searched for one."""
    batch = [requested("none", text, checkpoint) for text in texts]
    return [*renderer(checkpoint).render(batch, on_progress)]


def by_hand(checkpoint: str, before: RenderedImage, box: Box, text: str) -> Pixels:
    """Return the picture with a part drawn again by a painted mask."""
    models = models_of(checkpoint)
    picture_of(before).save(models / "before.png")
    mask = Image.new("L", (before.width, before.height))
    mask.paste(255, box)
    mask.save(models / "box.png")
    how = "mask_blur: 0\nmask_padding: 2\ndenoising_strength: 0.4\nimage: before.png"
    prompt = "" if "prompt" in text else "prompt: a cube\n"
    (image,) = repaired(checkpoint, f"{prompt}mask: box.png\n{how}\n{text}")
    return pixels(image)


HIRES = "\nhires: {{scale: 1.5, upscaler: Lanczos}}"
SMALL, LARGE = (4, 6, 12, 14), (40, 30, 60, 54)


@pytest.mark.parametrize(
    ("checkpoint", "more"), [("sdxl", ""), ("demo", HIRES), ("FLUX.1-dev", HIRES)]
)
def test_each_thing_is_drawn_again_in_its_own_part(
    checkpoint: str, more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by hand with a painted mask, the largest first, in calls as large as the card has room."""
    plain = "image: none\nexact: false\nsteps: 2\nseed: {}" + more
    before = drawn(checkpoint, *(plain.format(seed) for seed in (7, 9)))
    told: list[Progress] = []
    with finding([SMALL, LARGE], [SMALL]) as phrases:
        detailed = [f"{plain.format(seed)}\ndetail: {{{DETAIL}}}" for seed in (7, 9)]
        first, second = drawn(checkpoint, *detailed, on_progress=told.append)
    assert phrases == ["hat", "hat"]
    assert first.timings["detail"], "not part of what batch sizes are learnt from"
    expected = pixels(before[0]).copy()
    for number, (left, top, right, bottom) in enumerate((LARGE, SMALL)):
        part = by_hand(checkpoint, before[0], (left, top, right, bottom), f"seed: {7 + number}")
        expected[top:bottom, left:right] = part[top:bottom, left:right]
    other = by_hand(checkpoint, before[1], SMALL, "seed: 9")
    for image, pasted in ((first, expected), (second, other)):
        assert np.abs(pixels(image) - pasted).max() <= 1
    assert (pixels(first) != pixels(before[0])).any()
    assert [place.box for place in first.places or ()] == [SMALL, LARGE]
    assert {place.field for place in first.places or ()} == {"detail"}
    monkeypatch.setattr(MemoryLadder, "at_once", lambda *_: 1)
    with finding([SMALL, LARGE], [SMALL]):
        alone = drawn(checkpoint, *detailed)
    for image, same in zip((first, second), alone, strict=True):
        assert np.abs(pixels(image) - pixels(same)).max() <= 1
    totals = {now.kind: now.total for now in told if now.done}
    assert totals["find"] == 2 and totals["detail"] <= 2, "those of one call, whatever is found"


def test_passes_follow_each_other_and_draw_what_they_say() -> None:
    """At most `count` things, the largest, with prompts of their own and LoRAs of their own."""
    checkpoint, words = "demo", "a star <lora:ink:1>"
    lora = kohya_lora(demo()["unet"], demo()["text_encoder"])
    write(models_of(checkpoint) / "loras/ink.safetensors", lora)
    plain = "image: none\nexact: false\nsteps: 2\nseed: 7"
    (before,) = drawn(checkpoint, plain)
    with finding([SMALL, LARGE], []):
        passes = f"[{{{DETAIL}, count: 1, prompt: {words}}}, face]"
        (found,) = drawn(checkpoint, f"{plain}\ndetail: {passes}")
    expected = by_hand(checkpoint, before, LARGE, f"seed: 7\nprompt: {words}")
    assert np.abs(pixels(found) - expected).max() <= 1
    (told,) = found.warnings
    assert told.startswith("Nothing was found for 'face'") and NOWHERE in told
    with finding([]):
        (same,) = drawn(checkpoint, f"{plain}\ndetail: face")
    assert same.pixels == before.pixels and same.places == ()


@pytest.mark.parametrize("checkpoint", ["demo", "FLUX.1-Fill-dev", "Qwen-Image"])
def test_an_existing_picture_is_repaired(checkpoint: str) -> None:
    """Of any size, with its transparency; all but the thing stays to the bit."""
    photo = Image.effect_noise((90, 75), 50).convert("RGB")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.save(models_of(checkpoint) / "photo.png")
    text = f"image: photo.png\nsize: picture\nmask: none\ndetail: {{{DETAIL}}}"
    with finding([SMALL]):
        (found,) = repaired(checkpoint, text)
    assert found.batch_size == 1
    changed = np.argwhere((pixels(found) != np.asarray(photo.convert("RGB"))).any(-1))
    assert len(changed) > 20
    assert (*changed.min(0)[::-1], *(changed.max(0)[::-1] + 1)) == SMALL
    assert found.alpha == photo.getchannel("A").tobytes()
    with finding([]):
        (same,) = repaired(checkpoint, text)
    assert (pixels(same) == np.asarray(photo.convert("RGB"))).all()
    assert {*same.timings} == {"find"} and same.batch_size == 0


def repaired(checkpoint: str, text: str) -> list[RenderedImage]:
    return draw(renderer(checkpoint), *requests_of(models_of(checkpoint), checkpoint, text))


def test_details_of_a_photo_leave_the_rest_its_bits_and_colours() -> None:
    photo, box = deep_start(), (8, 8, 24, 24)
    text = f"image: deep.tif\ndenoising_strength: 0\ncolour: same\ndetail: {{{DETAIL}}}"
    with finding([box]):
        (found,) = drawn("demo", text)
    assert found.profile == photo.profile and photo.low
    left = np.ones((SIDE, SIDE), bool)
    left[8:24, 8:24] = False
    assert (numbers_of(found)[left] == joined(photo)[left]).all()
    assert (pixels(found) != np.asarray(photo.picture))[~left].any()
