"""Copies without a model: `resize_to` resamples light, in a process that has no torch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from picowatch.engine import colours
from picowatch.engine.drawing.copies import CopyRenderer
from picowatch.engine.protocol import EngineOptions, Progress, RenderedImage, unseen
from picowatch.errors import EngineStopped
from picowatch.files.colours import ADOBE
from picowatch.files.decoding import Original
from picowatch.recipe.parts import ResizeTo
from picowatch.recipe.request import ImageRequest
from tests.engine.requests import ignore_progress, keep, pixels

GREY_OF_HALF_THE_LIGHT = 188  # IEC 61966-2-1
SHADES = Image.linear_gradient("L").resize((600, 400))
PHOTO = Image.merge("RGB", [SHADES, ImageChops.invert(SHADES), SHADES.rotate(180)])


@pytest.fixture
def options(tmp_path: Path) -> EngineOptions:
    return EngineOptions(models=tmp_path, start_images=tmp_path)


def resized(picture: Image.Image, wanted: ResizeTo) -> Image.Image:
    return colours.resized(Original(picture), wanted).picture


def copy_of(picture: Image.Image, folder: Path, wanted: ResizeTo | None = None) -> ImageRequest:
    width, height = picture.size
    return ImageRequest(
        prompt="",
        width=width,
        height=height,
        seed=0,
        checkpoint_hash="",
        image="a.png",
        image_hash=keep(folder, picture),
        resize_to=wanted,
    )


def copied(options: EngineOptions, *requests: ImageRequest) -> list[RenderedImage]:
    return [*CopyRenderer(options, unseen).render(requests, ignore_progress, lambda: False)]


def test_copies_are_made_without_torch(options: EngineOptions) -> None:
    """Neither the renderer nor what its process imports needs it, or any model."""
    code = (
        "import sys; import picowatch.engine.process.child_main; "
        "import picowatch.engine.drawing.copies; "
        "print({'torch', 'diffusers', 'transformers', 'safetensors'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_batch_ends_between_two_pictures(options: EngineOptions, tmp_path: Path) -> None:
    stops = [False, True]
    batch = [copy_of(PHOTO, tmp_path, ResizeTo(longest_side=50))] * 2
    made = CopyRenderer(options, unseen).render(batch, ignore_progress, lambda: stops.pop(0))
    assert next(made).width == 50
    with pytest.raises(EngineStopped):
        next(made)


def test_a_batch_ends_before_a_photo_is_read(options: EngineOptions, tmp_path: Path) -> None:
    """A large one takes seconds, and its progress is told from the beginning."""
    told: list[Progress] = []
    request = copy_of(PHOTO, tmp_path, ResizeTo(longest_side=50))
    gone = replace(request, image_hash="0" * 64)
    with pytest.raises(EngineStopped):
        next(CopyRenderer(options, unseen).render([gone], told.append, lambda: True))
    assert told == [Progress("resize", 0, 1)]


def test_light_is_added_up_not_numbers() -> None:
    """Black and white lines become the grey that shines like both, as far away as they are."""
    lines = np.zeros((64, 64, 3), np.uint8)
    lines[::2] = 255
    small = np.asarray(resized(Image.fromarray(lines), ResizeTo(width=16)))
    assert np.abs(small[4:-4].astype(int) - GREY_OF_HALF_THE_LIGHT).max() <= 1
    grey = Image.new("RGB", (99, 77), (1, 128, 254))
    assert resized(grey, ResizeTo(width=13)).getcolors() == [(13 * 10, (1, 128, 254))]


@pytest.mark.parametrize("profile", [b"", ADOBE], ids=["sRGB", "Adobe RGB"])
def test_every_grey_keeps_its_number(profile: bytes) -> None:
    """Also the darkest, of which a power curve leaves much less light than sRGB."""
    greys = np.arange(256, dtype=np.uint8)
    rows = Image.fromarray(np.broadcast_to(greys[:, None, None], (256, 40, 3)).copy())
    wanted = ResizeTo(width=9, height=256, fit="cover")
    made = np.asarray(colours.resized(Original(rows, None, profile), wanted).picture)
    assert (made == greys[:, None, None]).all()


def test_bands_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large photo is resampled in parts, which see the rows around them."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (333, 222, 3), np.uint8))
    sizes = (
        ResizeTo(shortest_side=100),
        ResizeTo(longest_side=700, enlarge=True),
        ResizeTo(width=90, height=40, fit="cover"),
    )
    whole = [np.asarray(resized(noise, size)).astype(int) for size in sizes]
    monkeypatch.setattr(colours, "_BAND_PIXELS", 2000)
    bands = [np.asarray(resized(noise, size)).astype(int) for size in sizes]
    assert [np.abs(a - b).max() for a, b in zip(whole, bands, strict=True)] <= [1, 1, 1]


def test_transparent_pixels_lend_no_colour() -> None:
    """What is invisible around a figure does not shine through its edge."""
    figure = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    figure.paste((0, 0, 255, 255), (0, 0, 32, 64))
    small = np.asarray(resized(figure, ResizeTo(width=15)))
    seen = small[small[..., 3] > 8]
    assert np.abs(seen[:, :3].astype(int) - (0, 0, 255)).max() <= 1
    assert {0, 255} < {*small[..., 3].flat}


@pytest.mark.parametrize(
    ("wanted", "corner", "middle"),
    [
        (ResizeTo(width=90, height=90, fit="pad"), (255, 255, 255), (0, 0, 255)),
        (ResizeTo(width=90, height=90, fit="pad", background="#102030"), (16, 32, 48), (0, 0, 255)),
        (ResizeTo(width=90, height=90, fit="pad", background="transparent"), (0, 0, 0, 0),
         (0, 0, 255, 255)),
        (ResizeTo(width=30, height=90, fit="cover"), (0, 0, 255), (0, 0, 255)),
    ],
)  # fmt: skip
def test_a_picture_is_padded_or_cut(
    wanted: ResizeTo, corner: tuple[int, ...], middle: tuple[int, ...]
) -> None:
    """On white, a colour, or nothing; a small one is not enlarged. A cut one shows its middle."""
    picture = Image.new("RGB", (60, 40), (255, 0, 0))
    picture.paste((0, 0, 255), (20, 0, 40, 40))
    made = resized(picture, wanted)
    assert made.size == wanted.size_of(60, 40)
    assert made.getpixel((0, 0)) == corner
    assert made.getpixel((made.width // 2, made.height // 2)) == middle
    if wanted.fit == "pad" and not wanted.background:
        assert made.crop((15, 25, 75, 65)).tobytes() == picture.tobytes()


def test_a_ground_is_put_under_what_is_transparent() -> None:
    """Only where one is said; the size may stay."""
    clear = Image.new("RGBA", (20, 10), (255, 0, 0, 0))
    assert resized(clear, ResizeTo(longest_side=10)).getpixel((0, 0))[3] == 0  # type: ignore[index]
    on_white = resized(clear, ResizeTo(longest_side=20, background="#ffffff"))
    assert (on_white.mode, on_white.getcolors()) == ("RGB", [(200, (255, 255, 255))])
    square = ResizeTo(width=20, height=20, fit="pad")
    assert resized(clear, square).getpixel((0, 0)) == (0, 0, 0, 0)


@pytest.mark.parametrize("is_deep", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_ground_is_in_the_photos_colours(mode: str, is_deep: bool) -> None:
    """It is named in sRGB."""
    low = Image.new("RGB", (20, 10)) if is_deep else None
    given = Original(Image.new(mode, (20, 10)), low, ADOBE)
    wanted = ResizeTo(width=20, height=20, fit="pad", background="#c84030")
    made = colours.resized(given, wanted).picture.getpixel((0, 0))
    assert isinstance(made, tuple)
    assert np.abs(np.array(made) - (173, 66, 52)).max() <= 1


def test_a_ground_leaves_16_bits_to_what_is_on_it() -> None:
    """As it is where it is opaque, mixed where it is half transparent, in bands of a large one."""
    numbers = np.arange(1_100_000, dtype=np.uint32).reshape(1000, 1100) % 65_536
    high, low = (Image.fromarray(part.astype(np.uint8)) for part in (numbers >> 8, numbers & 255))
    alpha = Image.new("L", high.size, 255)
    alpha.paste(51, (0, 0, 550, 1000))  # a fifth
    picture = Image.merge("RGBA", [high, high, high, alpha])
    given = Original(picture, Image.merge("RGB", [low, low, low]))
    made = colours.resized(given, ResizeTo(longest_side=1100, background="#102030"))
    assert made.picture.mode == "RGB" and made.low
    result = colours.joined(made)[..., 0].astype(int)
    assert (result[:, 550:] == numbers[:, 550:]).all()
    assert np.abs(result[:, :550] - (numbers[:, :550] / 5 + 0x1010 * 4 / 5)).max() <= 1


def test_only_a_copy_has_no_part_for_a_model(options: EngineOptions, tmp_path: Path) -> None:
    """A copy that is not resized has the photo's own pixels."""
    rgba = PHOTO.copy()
    rgba.putalpha(SHADES)
    same, small = copied(
        options, copy_of(rgba, tmp_path), copy_of(PHOTO, tmp_path, ResizeTo(longest_side=60))
    )
    assert (same.pixels, same.alpha) == (PHOTO.tobytes(), SHADES.tobytes())
    assert ([*small.timings], same.timings) == (["resize"], {})
    assert pixels(small).shape == (40, 60, 3)
