"""Pictures without their background: U²-Net and IS-Net as published, files in and files out."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from picowatch.catalog import Catalog
from picowatch.catalog.cutouts import Layout, Widths, layout_of
from picowatch.catalog.headers import Header
from picowatch.catalog.recognise import recognise
from picowatch.engine.cutout import NOTHING_FOUND, Network, as_seen, network_in, with_counts
from picowatch.engine.protocol import EngineOptions, RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.recipe.parts import Upscale
from picowatch.recipe.request import ImageRequest
from tests.engine.cutouts import published_shapes, weights
from tests.engine.pictures import keep
from tests.engine.requests import NUMPY_WARNINGS, draw, pixels, request

pytestmark = NUMPY_WARNINGS
DEMO = "demo-cutout"
GREEN, RED = (40, 170, 60), (200, 30, 30)
# The names and shapes in the published networks' state_dict, and what these make of a picture with
# the weights of `weights`; written by the authors' own code.
NAMES = {
    "u2netp": "a0f5c19f761ad5164de66636e3b94e710b83dd30d77f3f2e50539eeba9def12d",
    "u2net": "321f26ee16d6ee6c2552a6a5290d701d6622087f907ad61784c1e356d3f010f3",
    "isnet": "7ffe0338dd2417d927c6b621137863a127588cd4a4a64e604353e53789f603f8",
}
MADE = {
    "u2netp": (
        *(0.78352, 0.84895, 0.44612, 0.9358, 0.99999, 0.99998),
        *(0.91547, 0.99999, 0.99996, 0.66242, 0.99361, 0.99525),
    ),
    "isnet": (
        *(0.58034, 0.19344, 0.49127, 0.90195, 0.99766, 0.88047),
        *(0.9519, 0.9745, 0.83337, 0.97556, 0.99955, 0.99678),
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_published_files_are_recognised(name: str) -> None:
    """By all of their names and shapes; a file that lacks one is none of them."""
    shapes = published_shapes(name)
    text = "\n".join(f"{tensor} {list(shape)}" for tensor, shape in sorted(shapes.items()))
    assert hashlib.sha256(text.encode()).hexdigest() == NAMES[name]
    counted = shapes | {"stage1.rebnconv1.bn_s1.num_batches_tracked": ()}
    for known in (shapes, counted):
        found = recognise(Header(known, {}))
        assert (found.kind, found.variant) == ("cutout", "IS-Net" if name == "isnet" else "U²-Net")
    del shapes["stage3d.rebnconv2.bn_s1.bias"]
    assert layout_of(shapes) is None


@pytest.mark.parametrize("name", MADE)
def test_networks_compute_as_published(name: str) -> None:
    """For sides that no halving divides, too."""
    shapes = published_shapes(name)
    network = network_in(Header(shapes, {})).eval()
    made = with_counts(network, weights(shapes))
    network.load_state_dict({tensor: made[tensor] for tensor in network.state_dict()})
    seen = torch.linspace(-2, 2, 3 * 40 * 56).view(1, 3, 40, 56).sin()
    with torch.inference_mode():
        mask = torch.sigmoid(network(seen * torch.linspace(0, 9, 56).cos()))
    assert mask[0, 0, ::13, ::19].flatten().tolist() == pytest.approx(MADE[name], abs=2e-4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/, with a network that takes red for figure, and pictures beside it."""
    root = tmp_path_factory.mktemp("cutting")
    (root / "cutout").mkdir()
    (root / "pictures").mkdir()
    save_file(red_finder(), root / "cutout/red.safetensors", {"modelspec.resolution": "64x64"})
    return root


def red_finder() -> dict[str, torch.Tensor]:
    """The smallest U²-Net, of which the finest mask is red less green."""
    network = Network(narrow(), 64)
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


def narrow() -> Layout:
    stages = ("stage1", "stage2", "stage3", "stage4", "stage5", "stage6")
    up = ("stage5d", "stage4d", "stage3d", "stage2d", "stage1d")
    first = {name: Widths(3 if name == "stage1" else 1, 1, 1) for name in stages}
    return Layout(0, first | {name: Widths(2, 1, 1) for name in up})


@pytest.fixture(scope="module")
def engine(folder: Path) -> Renderer:
    return Renderer(
        EngineOptions(models=folder, device="cpu", threads=1, start_images=folder / "pictures")
    )


def given(folder: Path, picture: Image.Image, name: str = "red", **values: Any) -> ImageRequest:
    """A picture that is cut out and not drawn."""
    catalog = Catalog(folder)
    hash_ = catalog.sha256(catalog.find("cutout", name))
    return ImageRequest(
        prompt="",
        width=picture.width,
        height=picture.height,
        seed=0,
        checkpoint_hash="",
        image="a.png",
        image_hash=keep(folder / "pictures", picture),
        cutout=name,
        cutout_hash=hash_,
        **values,
    )


def alpha_of(image: RenderedImage) -> np.ndarray:
    return np.frombuffer(image.alpha, np.uint8).reshape(image.height, image.width)


def square(size: tuple[int, int] = (301, 200), mode: str = "RGB") -> Image.Image:
    """A red figure on green, a quarter of the sides from each edge."""
    wide, high = size
    picture = Image.new("RGB", size, GREEN)
    picture.paste(RED, (wide // 4, high // 4, wide - wide // 4, high - high // 4))
    return picture.convert(mode)


def test_a_given_picture_loses_its_background(engine: Renderer, folder: Path) -> None:
    """In its size; where edges are soft, nothing of the background's colour is left."""
    (image,) = draw(engine, given(folder, square()))
    alpha, shown = alpha_of(image), pixels(image)
    assert (image.width, image.height) == (301, 200)
    assert alpha[100, 150] == 255 and alpha[10, 10] == 0 and not shown[10, 10].any()
    soft = (alpha > 20) & (alpha < 235)
    assert soft.any() and np.abs(shown[soft] - RED).max() < 30
    assert not engine._checkpoints._kept and not image.warnings


def test_what_was_transparent_stays_so(engine: Renderer, folder: Path) -> None:
    """Whatever colours it has there."""
    picture = square(mode="RGBA")
    picture.paste((*RED, 0), (0, 0, 301, 100))
    alpha = alpha_of(draw(engine, given(folder, picture))[0])
    assert not alpha[:100].any() and alpha[130, 150] == 255


def test_upscaled_pictures_are_cut_out_afterwards(engine: Renderer, folder: Path) -> None:
    """Steps count both."""
    catalog = Catalog(folder)
    hash_ = catalog.sha256(catalog.find("upscaler", "demo-compact"))
    upscale: dict[str, Any] = {"upscale": Upscale("demo-compact", 2.0), "upscaler_hash": hash_}
    seen: list[tuple[int, int]] = []
    requested = given(folder, square((64, 64)), **upscale)
    (image,) = engine.render([requested], lambda done, total: seen.append((done, total)))
    assert seen == [(0, 2), (1, 2)]
    assert alpha_of(image)[[64, 4], [64, 4]].tolist() == [255, 0]


def test_a_drawn_picture_is_cut_out(engine: Renderer, folder: Path) -> None:
    """Each of a batch as it says; those beside it are opaque."""
    whole = request(steps=2, width=64, height=64)
    cut = request(
        steps=2,
        width=64,
        height=64,
        seed=8,
        cutout="red",
        cutout_hash=given(folder, square()).cutout_hash,
    )
    one, other = engine.render([whole, cut], lambda *_: None)
    assert not one.alpha and len(other.alpha) == 64 * 64
    assert {"denoise", "cutout"} <= other.timings.keys()


def test_nothing_that_stands_out_is_a_warning(engine: Renderer, folder: Path) -> None:
    """Here all is green, but for one red pixel."""
    picture = Image.new("RGB", (200, 200), GREEN)
    picture.putpixel((100, 100), (255, 0, 0))
    (image,) = draw(engine, given(folder, picture))
    assert image.warnings == (NOTHING_FOUND,)


def test_the_embedded_model_cuts_out_what_the_demo_model_draws(
    engine: Renderer, folder: Path
) -> None:
    """A corgi with a hat stands free: opaque in its middle, and no ground at the edges."""
    hash_ = given(folder, square(), DEMO).cutout_hash
    prompt = "a corgi wearing a red hat on a green background"
    (image,) = draw(engine, request(prompt=prompt, seed=2, cutout=DEMO, cutout_hash=hash_))
    alpha = alpha_of(image)
    edges = np.concatenate([alpha[0], alpha[:, 0], alpha[:, -1]])
    assert edges.mean() < 3 and alpha[56:72, 56:72].mean() > 250
    assert 0.15 < alpha.mean() / 255 < 0.7
    sure = ((alpha < 16) | (alpha > 239)).mean()
    assert sure > 0.9


def test_dark_pictures_are_brightened_for_u2net() -> None:
    """As its authors do: the brightest pixel is white."""
    network = network_in(Header(published_shapes("u2netp"), {}))
    dark, light = (Image.new("RGB", (8, 8), (level,) * 3) for level in (60, 255))
    assert torch.equal(as_seen(dark, network), as_seen(light, network))
