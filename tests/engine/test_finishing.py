"""Finished pictures, drawn or given: enlarged, and without their background."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from picowatch.catalog import Catalog
from picowatch.catalog.cutouts import DEPTHS, Layout, Widths
from picowatch.engine.colours import resized
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.networks import upscale
from picowatch.engine.networks.cutout import NOTHING_FOUND, Network
from picowatch.engine.networks.find import load_finder
from picowatch.engine.protocol import Place, Progress, RenderedImage
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.files.colours import SRGB
from picowatch.files.decoding import Original
from picowatch.recipe.parts import Cutout, ResizeTo, Upscale
from picowatch.recipe.request import ImageRequest
from tests.daemon.test_colours import deep_photo
from tests.engine import requests
from tests.engine.demo import CPU
from tests.engine.flow_requests import hash_of
from tests.engine.requests import (
    DEMO_UPSCALER,
    draw,
    ignore_progress,
    keep,
    keep_file,
    numbers_of,
    picture_of,
    pixels,
    plain_options,
    progress_of,
)
from tests.engine.tiny_find import make

GREEN, RED = (40, 170, 60), (200, 30, 30)
PROFILE = SRGB.replace("sRGB".encode("utf-16-be"), "Mine".encode("utf-16-be"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/, with a network that takes red for figure, and pictures beside it."""
    root = tmp_path_factory.mktemp("finishing")
    (root / "cutout").mkdir()
    (root / "pictures").mkdir()
    make(root / "segmentation/clipseg", "clipseg")
    save_file(red_finder(), root / "cutout/red.safetensors", {"modelspec.resolution": "64x64"})
    return root


def red_finder() -> dict[str, torch.Tensor]:
    """The smallest U²-Net, of which the finest mask is red less green."""
    widths = {name: Widths(1 + name.endswith("d"), 1, 1) for name in DEPTHS}
    network = Network(Layout(0, widths | {"stage1": Widths(3, 1, 1)}), 64)
    tensors = {name: torch.zeros_like(value) for name, value in network.state_dict().items()}
    for name in tensors:
        if name.endswith(("running_var", "bn_s1.weight")):
            tensors[name] += 1
    # The first features go on to the last stage, which adds what its first layer made of them.
    tensors["stage1.rebnconvin.conv_s1.weight"][0, :, 1, 1] = torch.tensor([1.0, -1.0, 0.0])
    tensors["stage1d.rebnconvin.conv_s1.weight"][0, 1, 1, 1] = 1
    tensors["side1.weight"][0, 0, 1, 1] = 20
    tensors["side1.bias"] -= 20
    tensors["outconv.weight"][0, 0] = 1
    return tensors


@pytest.fixture(scope="module")
def engine(folder: Path) -> Renderer:
    return Renderer(plain_options(folder, folder / "pictures"))


def request(
    folder: Path, picture: Image.Image | None = None, scale: float = 0, **values: Any
) -> ImageRequest:
    """A small drawn picture, or a given one, that is enlarged or cut out."""
    given: dict[str, Any] = {"steps": 2, "width": 64, "height": 64, **values}
    if isinstance(values.get("cutout"), str):
        given["cutout"] = Cutout(values["cutout"])
    if scale:
        given["upscale"] = Upscale(DEMO_UPSCALER, scale)
        given["upscaler_hash"] = hash_of(folder, "upscaler", DEMO_UPSCALER)
    if "cutout" in given:
        given["cutout_hash"] = hash_of(folder, *given["cutout"].file)
    if picture:
        given |= {"checkpoint": "", "checkpoint_hash": "", "image": "a.png", "prompt": ""}
        given |= {"width": picture.width, "height": picture.height}
        given["image_hash"] = keep(folder / "pictures", picture)
    return requests.request(**given)


def gradient(mode: str = "RGB", size: tuple[int, int] = (37, 22)) -> Image.Image:
    wide = np.linspace(0, 255, size[0], dtype=np.uint8)[None].repeat(size[1], 0)
    return Image.fromarray(np.stack([wide, wide[:, ::-1], wide // 2], 2)).convert(mode)


def square(mode: str = "RGB") -> Image.Image:
    """A red figure on green, a quarter of the sides from each edge."""
    picture = Image.new("RGB", (301, 200), GREEN)
    picture.paste(RED, (75, 50, 226, 150))
    return picture.convert(mode)


def alpha_of(image: RenderedImage) -> np.ndarray:
    return np.frombuffer(image.alpha, np.uint8).reshape(image.height, image.width)


def test_a_given_picture_is_enlarged_without_a_checkpoint(engine: Renderer, folder: Path) -> None:
    """Any scale works; a gradient keeps its colours, and what was transparent stays so."""
    for scale in (2.5, 1, 8):
        (image,) = draw(engine, request(folder, gradient(), scale))
        assert (image.width, image.height) == (round(37 * scale), round(22 * scale))
        expected = gradient().resize((image.width, image.height), Image.Resampling.LANCZOS)
        assert np.abs(pixels(image) - np.asarray(expected).astype(int)).mean() < 6
    assert not engine._kept.values("checkpoint")  # nothing was loaded to draw with
    picture = gradient("RGBA", (40, 20))
    picture.putalpha(Image.fromarray(np.repeat([[0] * 20 + [255] * 20], 20, 0).astype(np.uint8)))
    alpha = alpha_of(draw(engine, request(folder, picture, 4))[0])
    assert (alpha[:, :70] == 0).all() and (alpha[:, 90:] == 255).all()


def deep(folder: Path, numbers: np.ndarray, **values: Any) -> ImageRequest:
    kept = keep_file(folder / "pictures", deep_photo(numbers, PROFILE))
    shown = Image.fromarray((numbers >> 8).astype(np.uint8))
    return replace(request(folder, shown, **values), image_hash=kept, colour="same")


def test_a_photo_of_16_bits_is_enlarged_on_all_of_them(engine: Renderer, folder: Path) -> None:
    """As one of 8 bits, but in finer steps; where a result is reduced, too."""
    wide = np.linspace(0, 65_535, 80)[None].repeat(40, 0)
    photo = np.stack([wide, wide[:, ::-1], wide / 2], 2).astype(np.uint16)
    for scale in (4, 1.5):
        (plain,) = draw(
            engine, request(folder, Image.fromarray((photo >> 8).astype(np.uint8)), scale)
        )
        (image,) = draw(engine, deep(folder, photo, scale=scale))
        assert (plain.low, plain.profile, image.profile) == (b"", b"", PROFILE)
        assert np.abs(numbers_of(image) / 257 - pixels(plain)).max() <= 3
        assert len(np.unique(numbers_of(image))) > 1000


def test_a_figure_of_16_bits_is_cut_out_with_them(engine: Renderer, folder: Path) -> None:
    """What is surely of it keeps its numbers, also over a shadow and on a ground."""
    photo = np.asarray(square()).astype(np.uint16) * 256
    photo[60:140, 90:210, 2] = np.arange(120) * 100
    (image,) = draw(engine, deep(folder, photo, cutout="red"))
    sure = np.s_[70:130, 100:200]
    assert (alpha_of(image)[sure] == 255).all()
    assert (numbers_of(image)[sure] == photo[sure]).all()
    (ground,) = draw(engine, deep(folder, photo, cutout=Cutout("red", "#f4f4f4", shadow=True)))
    assert (ground.alpha, ground.profile) == (b"", PROFILE)
    assert (numbers_of(ground)[sure] == photo[sure]).all()
    assert (numbers_of(ground)[:40] == 0xF4F4).all()


def test_a_figure_of_16_bits_is_framed_as_one_of_8(engine: Renderer, folder: Path) -> None:
    """In finer steps, centred as large as the margins allow, with the same edges."""
    photo = np.asarray(square()).astype(np.uint16) * 257
    photo[60:140, 90:210, 2] = np.linspace(0, 65_535, 120)
    plain = Image.fromarray((photo >> 8).astype(np.uint8))
    for wanted in (Cutout("red", margin=10, size="500x400"), Cutout("red", "#102030", 5, "", True)):
        (eight,) = draw(engine, request(folder, plain, cutout=wanted))
        (image,) = draw(engine, deep(folder, photo, cutout=wanted))
        differing = np.abs(numbers_of(image) / 257 - pixels(eight))
        assert differing.mean() < 0.5 and np.quantile(differing, 0.98) <= 2, "but for the edges"
        if eight.alpha:
            assert np.abs(alpha_of(image).astype(int) - alpha_of(eight)).mean() < 0.1
        assert len(np.unique(numbers_of(image))) > 1000


def test_drawn_pictures_are_finished_as_the_same_given_ones(engine: Renderer, folder: Path) -> None:
    """Each pass counts its own steps over all images: evaluations, tiles, pictures."""
    plain = draw(engine, request(folder, seed=1), request(folder, seed=2))
    batch = [request(folder, seed=seed, scale=2.0, cutout="red") for seed in (1, 2)]
    for image, drawn in zip(draw(engine, *batch), plain, strict=True):
        (again,) = draw(engine, request(folder, picture_of(drawn), 2.0, cutout="red"))
        assert (image.pixels, image.alpha) == (again.pixels, again.alpha)
        assert len(image.alpha) == 128 * 128
        assert {"denoise", "upscale", "cutout"} <= image.timings.keys()
    told = [(now.kind, now.done, now.total) for now in progress_of(engine, batch)]
    assert told == [(kind, done, 2) for kind in ("draw", "upscale", "cutout") for done in (1, 2)]


def test_a_finished_picture_is_resized_at_the_end(engine: Renderer, folder: Path) -> None:
    """Drawn, enlarged or cut out; the whole of it is the same picture, resized by itself."""
    size = ResizeTo(width=50, height=40, fit="pad", background="#000000")
    for more in ({}, {"picture": square()}, {"scale": 2.0, "cutout": "red"}):
        (whole,) = draw(engine, request(folder, **more))
        batch = [request(folder, **more, resize_to=size)] * 2
        for image in draw(engine, *batch):
            assert (image.width, image.height, image.alpha) == (50, 40, b"")
            expected = resized(Original(picture_of(whole)), size).picture
            assert image.pixels == expected.tobytes(), more
            assert "resize" in image.timings
        assert progress_of(engine, batch)[-1] == Progress("resize", 2, 2)


def test_pictures_leave_one_by_one(engine: Renderer, folder: Path) -> None:
    """A batch of large pictures is never in memory as a whole."""
    seen: list[Progress] = []
    images = engine.render([request(folder, gradient(), 2.0, cutout="red")] * 3, seen.append)
    for done in (1, 2, 3):
        next(images)
        assert seen[-1] == Progress("cutout", done, 3)


def test_a_picture_that_repeats_is_enlarged_without_seams(engine: Renderer, folder: Path) -> None:
    """Its edges look as they do where the same picture is moved, so that they are in its middle."""
    values: dict[str, Any] = {"height": 128, "tiling": True}
    scale = 1.5
    plain = pixels(draw(engine, request(folder, **values))[0]).astype(np.uint8)
    half = (64, 32)
    moved = Image.fromarray(np.roll(plain, half, (0, 1)))
    expected = pixels(draw(engine, request(folder, moved, scale))[0])
    found = pixels(draw(engine, request(folder, scale=scale, **values))[0])
    assert found.shape == expected.shape
    at_edges = [int(side * scale) for side in half]
    found = np.roll(found, at_edges, (0, 1))
    rows, columns = (slice(side - 8, side + 8) for side in at_edges)
    assert np.abs(found - expected)[rows, columns].max() <= 1


def test_it_ends_between_two_tiles(
    engine: Renderer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled recipe, or a newer save, need not wait for a large picture."""
    monkeypatch.setattr(upscale, "_USUAL_TILE", 32)
    tiles = 0

    def interrupted() -> bool:
        nonlocal tiles
        tiles += 1
        return tiles == 3

    with pytest.raises(EngineStopped):
        wanted = request(folder, gradient(size=(128, 64)), 4)
        list(engine.render([wanted], ignore_progress, interrupted))
    assert tiles == 3


def test_a_given_picture_loses_its_background(engine: Renderer, folder: Path) -> None:
    """Size and transparency stay; soft edges lose the background's colour. No figure: a warning."""
    (image,) = draw(engine, request(folder, square(), cutout="red"))
    alpha, shown = alpha_of(image), pixels(image)
    assert (image.width, image.height, image.warnings) == (301, 200, ())
    assert alpha[100, 150] == 255 and alpha[10, 10] == 0 and not shown[10, 10].any()
    soft = (alpha > 20) & (alpha < 235)
    assert soft.any() and np.abs(shown[soft] - RED).max() < 30
    picture = square("RGBA")
    picture.paste((*RED, 0), (0, 0, 301, 100))
    alpha = alpha_of(draw(engine, request(folder, picture, cutout="red"))[0])
    assert not alpha[:100].any() and alpha[130, 150] == 255
    green = Image.new("RGB", (200, 200), GREEN)
    green.putpixel((100, 100), (255, 0, 0))
    (image,) = draw(engine, request(folder, green, cutout="red"))
    assert image.warnings == (NOTHING_FOUND,)


def test_what_is_cut_out_is_centred_in_a_size_of_its_own(engine: Renderer, folder: Path) -> None:
    """As large as the margins allow, in its proportions; on a background nothing is transparent."""
    picture = Image.new("RGB", (301, 200), GREEN)
    picture.paste(RED, (20, 100, 170, 200))  # 150x100, in the corner
    wanted = Cutout("red", margin=10, size="500x400")
    clear, ground = (
        draw(engine, request(folder, picture, cutout=replace(wanted, background=colour)))[0]
        for colour in ("", "#f4f4f4")
    )
    shown = pixels(ground)
    assert (clear.width, clear.height, ground.alpha) == (500, 400, b"")
    assert (shown[:40] == 0xF4).all() and (shown[:, :45] == 0xF4).all()
    for figure in (alpha_of(clear) > 250, np.abs(shown - RED).max(2) < 30):
        (rows,), (columns,) = (np.nonzero(figure.any(axis)) for axis in (1, 0))
        # 400 wide: ten per cent of 500 on either side; 267 high, in the middle of 400.
        for found, meant in ((columns, (50, 449)), (rows, (67, 332))):
            assert np.abs(np.array([found[0], found[-1]]) - meant).max() < 12
    wanted = Cutout("red", "#ffffff")
    (image,) = draw(engine, request(folder, square(), cutout=wanted))
    assert (image.width, image.height, bool(image.alpha)) == (301, 200, False)
    assert (pixels(image)[0, 0] == 255).all()


def test_a_cut_out_may_cast_a_shadow(engine: Renderer, folder: Path) -> None:
    """Grey below the figure, and white elsewhere; the figure stays as it is."""
    wanted = Cutout("red", "#ffffff", 20, "500x500")
    plain, dark = (
        pixels(draw(engine, request(folder, square(), cutout=cutout))[0]).astype(int)
        for cutout in (wanted, replace(wanted, shadow=True))
    )
    rows = np.nonzero((np.abs(plain - RED).max(2) < 30)[:, 250])[0]
    assert (
        np.abs(dark[rows[0] : rows[-1] - 12, 250] - plain[rows[0] : rows[-1] - 12, 250]).max() < 3
    )
    assert 110 < dark[rows[-1] + 8, 250].mean() < 245
    assert (dark[:40] == 255).all() and (dark[-20:] == 255).all()


def test_only_what_words_find_is_kept(engine: Renderer, folder: Path) -> None:
    """With the other settings of a cut-out; where nothing is found, the picture fails."""
    wanted, picture = Cutout("clipseg", find="a hat"), square()
    finder = load_finder(Catalog(folder).find(*wanted.file), CPU)
    places, mask = finder.search(picture, "a hat", 0.3)
    (image,) = draw(engine, request(folder, picture, cutout=wanted))
    assert np.abs(alpha_of(image) / 255 - mask).max() < 0.01 < mask.std()
    assert image.places == tuple(Place("cutout", *place) for place in places)
    with pytest.raises(RenderFailed, match="Nothing was found for 'a hat' with a confidence of 1"):
        draw(engine, request(folder, picture, cutout=replace(wanted, confidence=1.0)))


def test_embedded_models_cut_out_what_the_demo_model_draws(engine: Renderer, folder: Path) -> None:
    """A corgi is opaque in the middle. Of two, words keep what one wears, in its half alone."""
    scene = Image.new("RGB", (256, 128))
    for left, worn in ((0, "a red hat"), (128, "sunglasses")):
        prompt = f"a corgi wearing {worn} on a green background"
        size: dict[str, Any] = {"steps": 12, "width": 128, "height": 128}
        (image,) = draw(engine, request(folder, prompt=prompt, seed=1, **size))
        scene.paste(picture_of(image), (left, 0))
    corgi = scene.crop((0, 0, 128, 128))
    alpha = alpha_of(draw(engine, request(folder, corgi, cutout="demo-cutout"))[0])
    edges = np.concatenate([alpha[0], alpha[:, 0], alpha[:, -1]])
    assert edges.mean() < 3 and alpha[56:72, 56:72].mean() > 250
    assert 0.15 < alpha.mean() / 255 < 0.7
    assert ((alpha < 16) | (alpha > 239)).mean() > 0.9
    for words, kept in (("hat", 0), ("sunglasses", 1)):
        (image,) = draw(engine, request(folder, scene, cutout=Cutout("demo-find", find=words)))
        halves = np.split(alpha_of(image), 2, axis=1)
        assert halves[kept].max() == 255 and not halves[1 - kept].any(), image.places
