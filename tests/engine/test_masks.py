"""Masks that words find, with a tiny CLIPSeg: it says how sure it is of anything in a picture."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

from picowatch.engine import colours
from picowatch.engine.colours import joined
from picowatch.engine.drawing.canvas import read_canvas, redrawn_area
from picowatch.engine.drawing.renderer import Renderer
from picowatch.files.decoding import Original, decode_original, in_profile
from picowatch.recipe.parts import Find
from picowatch.recipe.request import ImageRequest, ReferenceUse
from tests.daemon.test_colours import ADOBE, deep_photo
from tests.engine import requests
from tests.engine.flow_requests import SIDE, flow_models, flow_renderer, requests_of
from tests.engine.requests import (
    Pixels,
    as_pixels,
    circle,
    draw,
    numbers_of,
    picture_of,
    pixels,
    request,
)
from tests.engine.tiny_find import make
from tests.engine.tiny_flows import UNETS, folder_until_exit, tiny_unet
from tests.fault_points import preceded_by, wrap

FLOW, EDITS = "Z-Image-Turbo", "FLUX.2-klein"
# Between what it is sure of in a circle, and in a plain picture.
SURE = 0.88


@cache
def clipseg() -> Path:
    return make(folder_until_exit("clipseg-"), "clipseg")


@cache
def models_of(checkpoint: str) -> Path:
    """A models folder with a checkpoint, the finder, and a circle on a ground and a plain one."""
    if checkpoint == "demo":
        models = folder_until_exit("masks-")
    else:
        models = flow_models(checkpoint, tiny_unet(checkpoint) if checkpoint in UNETS else None)
    (models / "segmentation").mkdir()
    (models / "segmentation/clipseg").symlink_to(clipseg())
    circle(SIDE).save(models / "start.png")
    Image.new("RGB", (SIDE, SIDE), "grey").save(models / "plain.png")
    return models


@cache
def renderer(checkpoint: str) -> Renderer:
    return flow_renderer(models_of(checkpoint))


def requested(mask: str, others: str = "", checkpoint: str = "demo") -> ImageRequest:
    start = "references: start.png" if checkpoint == EDITS else "image: start.png"
    text = f"prompt: a cube\nmask: {mask}\n{others}"
    text += f"\n{start}" if start.split(":")[0] not in others else ""
    (found,) = requests_of(models_of(checkpoint), checkpoint, text)
    return found


def seen(path: str, checkpoint: str = "demo") -> Pixels:
    return as_pixels(Image.open(models_of(checkpoint) / path))


@pytest.mark.parametrize(
    ("checkpoint", "how"),
    [
        ("demo", "mask_blur: 3"),
        ("demo", "mask_invert: true\nmask_blur: 0"),
        *((name, "mask_padding: 8\nmask_blur: 0") for name in (FLOW, EDITS)),
    ],
)
def test_a_found_mask_is_as_good_as_a_painted_one(checkpoint: str, how: str) -> None:
    """Its preview shows what is redrawn; painted so, it gives the same picture."""
    words = requested("{find: the hat, grow: 0, preview: true}", how, checkpoint)
    (found,) = draw(renderer(checkpoint), words)
    assert found.places
    assert all(SURE < place.score < 1 and place.field == "mask" for place in found.places)
    (shown,) = found.control_maps
    mask = picture_of(shown).convert("L")
    mask.save(models_of(checkpoint) / "found.png")
    painted = requested("found.png", how.replace("mask_invert: true", ""), checkpoint)
    (same,) = draw(renderer(checkpoint), painted)
    assert same.pixels == found.pixels
    kept = np.asarray(mask) == 0
    if "mask_blur: 0" in how:
        assert (pixels(found)[kept] == seen("start.png", checkpoint)[kept]).all()
    assert kept.any()
    assert (pixels(found) != seen("start.png", checkpoint)).any()
    assert (same.places, same.control_maps) == (None, ())


@pytest.mark.parametrize(
    ("mask", "how"),
    [
        ("mask.png", "mask_blur: 2"),
        ("mask.png", "mask_blur: 2\nmask_padding: 4"),
        ("alpha", "mask_invert: true"),
        ("{find: hat, confidence: 1}", ""),
    ],
)
@pytest.mark.parametrize("checkpoint", ["demo", EDITS])
def test_a_transparent_picture_stays_so_outside_the_mask(
    checkpoint: str, mask: str, how: str
) -> None:
    """What is drawn is opaque; with `mask: alpha` all that was transparent is."""
    models, start, area = models_of(checkpoint), circle(SIDE), Image.new("L", (SIDE, SIDE))
    start.putalpha(Image.linear_gradient("L").point(lambda level: level & ~63).resize(start.size))
    start.save(models / "clear.png")
    area.paste(255, (16, 16, 48, 48))
    area.save(models / "mask.png")
    name = "references" if checkpoint == EDITS else "image"
    how = f"{name}: clear.png\n{how}"
    (found,) = draw(renderer(checkpoint), requested(mask, how, checkpoint))
    assert found.alpha
    before, after = (
        np.asarray(start),
        np.dstack([pixels(found), np.frombuffer(found.alpha, np.uint8).reshape(SIDE, SIDE)]),
    )
    same = (before == after).all(-1)
    assert same[0, :4].all() and same.all() == ("find" in mask)
    if mask == "mask.png":
        assert same[:8].all() and same[56:].all() and (after[28:36, 28:36, 3] == 255).all()
    if mask == "alpha":
        (filled,) = draw(renderer(checkpoint), requested(mask, f"{name}: clear.png", checkpoint))
        assert not filled.alpha


def test_hires_draws_the_masked_part_twice() -> None:
    """As by hand, by a crop of the picture; at its edge a paste by hand mixes both pictures."""
    box, inner, models = (8, 8, 40, 40), (16, 16, 32, 32), models_of("demo")
    start, mask = circle(SIDE), Image.new("L", (SIDE, SIDE))
    mask.paste(255, inner)
    mask.save(models / "mask.png")
    square = mask.crop(box).resize((2 * SIDE, 2 * SIDE), Image.Resampling.NEAREST)
    square.save(models / "part-mask.png")
    start.crop(box).save(models / "part.png")
    more = "mask_blur: 0\nhires: {scale: 2, upscaler: Lanczos}"
    in_part = requested("mask.png", f"mask_padding: 8\n{more}")
    by_hand = requested("part-mask.png", f"image: part.png\n{more}")
    found, large = (draw(renderer("demo"), wanted)[0] for wanted in (in_part, by_hand))
    assert (found.width, large.width) == (SIDE, 2 * SIDE)
    part = picture_of(large).resize((32, 32), Image.Resampling.LANCZOS)
    picture, expected = pixels(found), np.asarray(part)
    assert np.abs(picture[19:29, 19:29] - expected[11:21, 11:21]).max() <= 1
    kept = np.asarray(mask) == 0
    assert (picture[kept] == np.asarray(start)[kept]).all()
    assert (picture != np.asarray(start)).any()


def deep_start(icc: bytes = ADOBE) -> Original:
    """Make deep.tif: the circle in Adobe RGB with 16 bits, whose lower bytes are noise."""
    file = models_of("demo") / "deep.tif"
    low = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    file.write_bytes(deep_photo(np.asarray(circle(SIDE)).astype(np.uint16) << 8 | low, icc))
    return decode_original(file.read_bytes())


@pytest.mark.parametrize("how", ["mask_padding: 8", "mask_invert: false", "upscale: 2"])
def test_what_a_mask_leaves_keeps_its_bits_and_colours(
    monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """What is drawn is in the photo's colours, too; without `colour: same` all is in sRGB."""
    monkeypatch.setattr(colours, "_BAND_PIXELS", 10 * SIDE)
    photo, mask = deep_start(), Image.new("L", (SIDE, SIDE))
    mask.paste(255, (16, 16, 32, 32))
    mask.save(models_of("demo") / "mask.png")
    how = f"image: deep.tif\nmask_blur: 2\n{how}"
    plain, same = (
        draw(renderer("demo"), requested("mask.png", f"{how}\ncolour: {colour}"))[0]
        for colour in ("srgb", "same")
    )
    assert (plain.low, plain.profile, same.profile) == (b"", b"", photo.profile)
    if "upscale" in how:
        assert len(same.low) == len(same.pixels)
        return
    assert photo.low
    kept = np.asarray(mask.filter(ImageFilter.GaussianBlur(2))) == 0
    assert (numbers_of(same)[kept] == joined(photo)[kept]).all()
    drawn = in_profile(picture_of(plain), photo.profile)
    assert drawn
    area = np.asarray(mask) > 0
    assert (pixels(same)[area] == np.asarray(drawn)[area]).mean() > 0.99
    assert (pixels(same) != pixels(plain))[area].any()


# Its red stands for green, too: nothing tells from a colour how much of each there is.
RED, GREEN = ADOBE.index(b"rXYZ") + 4, ADOBE.index(b"gXYZ") + 4
ONE_WAY = ADOBE[:GREEN] + ADOBE[RED : RED + 8] + ADOBE[GREEN + 8 :]


@pytest.mark.parametrize(
    ("size", "icc", "why"),
    [
        ("128x128", ADOBE, "the picture has another size than the photo."),
        (
            f"{SIDE}x{SIDE}",
            ONE_WAY,
            "nothing can be written in the colours of the photo's profile.",
        ),
    ],
)
def test_what_cannot_have_the_photos_colours_is_in_srgb(size: str, icc: bytes, why: str) -> None:
    deep_start(icc)
    Image.new("L", (SIDE, SIDE), 255).save(models_of("demo") / "mask.png")
    how = f"image: deep.tif\nsize: {size}\ncolour: same"
    (drawn,) = draw(renderer("demo"), requested("mask.png", how))
    assert (drawn.low, drawn.profile) == (b"", b"")
    assert f"colour: same had no effect, because {why}" in drawn.warnings


@pytest.mark.parametrize("checkpoint", ["demo", EDITS])
def test_a_picture_in_which_nothing_is_found_stays_as_it_is(checkpoint: str) -> None:
    """With a warning, inverted or not; the others of its batch are drawn."""
    mask = f"{{find: hat, confidence: {SURE}, preview: true}}"
    names = ("start.png", "plain.png", "start.png")
    field = "references" if checkpoint == EDITS else "image"
    more = "mask_invert: true\nexact: false"
    batch = [
        requested(mask, f"{field}: {name}\n{more}\nseed: {seed}", checkpoint)
        for seed, name in enumerate(names)
    ]
    first, plain, last = draw(renderer(checkpoint), *batch)
    assert first.places and first.places == last.places
    assert not first.warnings and plain.places == ()
    assert plain.warnings == (
        "Nothing was found for 'hat' with a confidence of 0.88, so the picture stays as it is. "
        "Try other words, or a lower confidence.",
    )
    assert (pixels(plain) == seen("plain.png", checkpoint)).all()
    assert not any(plain.control_maps[0].pixels)
    together = 1 if checkpoint == EDITS else 2
    assert [image.batch_size for image in (first, plain, last)] == [together, 0, together]
    (alone,) = draw(flow_renderer(models_of(checkpoint)), batch[1])
    assert alone.pixels == plain.pixels
    assert alone.timings.keys() == {"find"}, "no checkpoint was loaded for it"


def test_a_picture_is_searched_once_for_each_phrase(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []
    note = preceded_by(lambda _, __, *words: asked.append(words[:2]))
    wrap("picowatch.engine.networks.find:ClipSeg.find", note, monkeypatch.setattr)
    ours = flow_renderer(models_of("demo"))
    draw(ours, requested("{find: hat}"))
    others = (f"seed: {number}\nmask_blur: {number}\nexact: false" for number in range(2))
    draw(ours, *[requested("{find: hat, grow: 9}", other) for other in others])
    assert asked == [("hat", 0.3)]
    draw(ours, requested("{find: tie}"))
    draw(ours, requested("{find: hat, confidence: 0.5}"))
    draw(ours, requested("{find: hat}", "image: plain.png"))
    assert asked[1:] == [("tie", 0.3), ("hat", 0.5), ("hat", 0.3)]


def area(grow: int, white: Any, invert: bool = False) -> tuple[Any, int]:
    """Return the box and the size of what is redrawn around a white box of a 40x30 mask."""
    mask = Image.new("L", (40, 30))
    if white:
        mask.paste(255, white)
    wanted = request(image="a.png", mask=Find("it", grow=grow), mask_invert=invert)
    found = redrawn_area(mask, wanted, (40, 30))
    return found.getbbox(), found.histogram()[255]


DOT, ALL = (20, 9, 21, 10), (0, 0, 40, 30)


@pytest.mark.parametrize(
    ("grow", "white", "box", "size"),
    [
        (4, DOT, (16, 5, 25, 14), 81),
        (4, (0, 0, 1, 1), (0, 0, 5, 5), 25),
        (128, DOT, ALL, 1200),
        (-1, (5, 5, 9, 9), (6, 6, 8, 8), 4),
        (-4, DOT, None, 0),
        (-9, ALL, ALL, 1200),
        (4, (), None, 0),
    ],
)
def test_a_mask_grows_by_pixels(grow: int, white: Any, box: Any, size: int) -> None:
    """On each side, within the picture; nothing stays nothing."""
    assert area(grow, white) == (box, size)


def test_a_mask_is_inverted_before_it_grows() -> None:
    """So what is redrawn reaches into what was found, and leaves no edge of what was around it."""
    sizes = {grow: area(grow, (10, 10, 20, 20), invert=True)[1] for grow in (0, 4, 5, -4)}
    assert sizes == {0: 1200 - 100, 4: 1200 - 4, 5: 1200, -4: 1200 - 18 * 18}
    assert area(4, (), invert=True) == (None, 0)


# -- where the start image is on the canvas that a checkpoint draws on


@pytest.mark.parametrize(
    ("photo", "extend", "size", "inner"),
    [
        ((256, 256), "16:9", (256, 128), (64, 0, 192, 128)),
        ((640, 480), "bottom 25 %", (128, 128), (0, 0, 128, 96)),
        ((100, 100), "left 10 %, right 10 %, top 10 %", (192, 128), (38, 12, 154, 128)),
    ],
)
def test_an_extended_photo_keeps_its_shape(
    tmp_path: Path,
    photo: tuple[int, int],
    extend: str,
    size: tuple[int, int],
    inner: tuple[int, int, int, int],
) -> None:
    """The margins take what a checkpoint's multiples of pixels add or leave out."""
    kept = requests.keep(tmp_path, Image.new("RGB", photo, "red"))
    request = requests.request(image="a.png", image_hash=kept, extend=extend, mask_blur=0)
    canvas = read_canvas(tmp_path, request, size)
    assert canvas and canvas.redrawn
    stays = np.argwhere(np.asarray(canvas.redrawn) == 0)
    (top, left), (bottom, right) = stays.min(0), stays.max(0) + 1
    assert (left, top, right, bottom) == inner


@pytest.mark.parametrize(
    ("photo", "as_reference", "size", "blur"),
    [
        ((600, 400), False, (96, 64), 2),
        ((600, 400), True, (96, 64), 2),
        ((600, 400), False, (94, 64), 0),
        ((201, 135), False, (200, 136), 2),
        ((201, 135), False, (200, 136), 0),
        ((300, 40), False, (304, 64), 2),
        ((61, 77), True, (64, 77), 2),
    ],
)
def test_what_a_mask_leaves_of_a_photo_keeps_its_pixels(
    tmp_path: Path, photo: tuple[int, int], as_reference: bool, size: tuple[int, int], blur: int
) -> None:
    """What is drawn is in a size that can be drawn, and put into the photo; with a soft edge."""
    wide, high = photo
    noise = np.random.default_rng(1).integers(0, 256, (high, wide, 3), np.uint8)
    mask = Image.new("L", photo)
    left, top, right, bottom = box = wide // 3, high // 4, wide * 2 // 3, high * 3 // 4
    mask.paste(255, box)
    kept = requests.keep(tmp_path, Image.fromarray(noise))
    named: dict[str, Any] = {"image": "a.png", "image_hash": kept}
    if as_reference:
        named = {"references": (ReferenceUse("a.png", kept),)}
    request = requests.request(
        **named,
        mask="m.png",
        mask_hash=requests.keep(tmp_path, mask),
        mask_blur=blur,
        given_size=photo,
    )
    canvas = read_canvas(tmp_path, request, size)
    assert canvas and canvas.redrawn and canvas.picture.size == canvas.redrawn.size == size
    made = np.asarray(canvas.under(Image.new("RGB", size, "red")))
    assert made.shape == noise.shape
    edge = 0 if as_reference or not blur else 8 * max(1, wide // size[0])
    outside = np.ones((high, wide), bool)
    outside[max(0, top - edge) : bottom + edge, left - edge : right + edge] = False
    assert (made[outside] == noise[outside]).all()
    middle = made[high // 2 - 2 : high // 2 + 2, wide // 2 - 2 : wide // 2 + 2]
    assert (middle == (255, 0, 0)).all()
