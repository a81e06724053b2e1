"""Pictures enlarged by models: drawn ones, given ones, and between the passes of hires."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from picowatch.catalog import DEMO_UPSCALER, Catalog
from picowatch.engine.protocol import EngineOptions, RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import EngineStopped
from picowatch.recipe.parts import Upscale
from picowatch.recipe.request import ImageRequest
from tests.catalog.upscalers import compact_shapes
from tests.engine.pictures import keep
from tests.engine.requests import NUMPY_WARNINGS, difference, draw, ignore_steps, pixels, request
from tests.engine.upscale_networks import filled

pytestmark = NUMPY_WARNINGS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """models/ with an upscaler of twice the size, and the start images beside it."""
    root = tmp_path_factory.mktemp("upscaling")
    (root / "upscalers").mkdir()
    (root / "pictures").mkdir()
    save_file(filled(compact_shapes(2, channels=8, blocks=1)), root / "upscalers/2x.safetensors")
    return root


@pytest.fixture(scope="module")
def engine(folder: Path) -> Renderer:
    return Renderer(
        EngineOptions(models=folder, device="cpu", threads=1, start_images=folder / "pictures")
    )


def hash_of(folder: Path, name: str) -> str:
    catalog = Catalog(folder)
    return catalog.sha256(catalog.find("upscaler", name))


def given(
    folder: Path, picture: Image.Image, scale: float, name: str = DEMO_UPSCALER, **values: Any
) -> ImageRequest:
    """A picture that is enlarged and not drawn."""
    return ImageRequest(
        prompt="",
        width=picture.width,
        height=picture.height,
        seed=0,
        checkpoint_hash="",
        image="a.png",
        image_hash=keep(folder / "pictures", picture),
        upscale=Upscale(name, scale),
        upscaler_hash=hash_of(folder, name),
        **values,
    )


def rendered(engine: Renderer, requested: ImageRequest) -> RenderedImage:
    return draw(engine, requested)[0]


def gradient(mode: str = "RGB", size: tuple[int, int] = (37, 22)) -> Image.Image:
    wide = np.linspace(0, 255, size[0], dtype=np.uint8)[None].repeat(size[1], 0)
    return Image.fromarray(np.stack([wide, wide[:, ::-1], wide // 2], 2)).convert(mode)


@pytest.mark.parametrize("scale", [2.5, 1, 8])
def test_a_given_picture_is_enlarged_without_a_checkpoint(
    engine: Renderer, folder: Path, scale: float
) -> None:
    """To any scale, and it shows the same: here a gradient, whose colours stay."""
    image = rendered(engine, given(folder, gradient(), scale))
    assert (image.width, image.height) == (round(37 * scale), round(22 * scale))
    expected = gradient().resize((image.width, image.height), Image.Resampling.LANCZOS)
    assert np.abs(pixels(image) - np.asarray(expected).astype(int)).mean() < 6
    assert not engine._checkpoints._kept  # nothing was loaded to draw with


def test_transparency_is_kept(engine: Renderer, folder: Path) -> None:
    """Opaque where it was, transparent where it was; in the new size."""
    picture = gradient("RGBA", (40, 20))
    picture.putalpha(Image.fromarray(np.repeat([[0] * 20 + [255] * 20], 20, 0).astype(np.uint8)))
    image = rendered(engine, given(folder, picture, 4))
    alpha = np.frombuffer(image.alpha, np.uint8).reshape(80, 160)
    assert (alpha[:, :70] == 0).all() and (alpha[:, 90:] == 255).all()


def test_a_drawn_picture_is_enlarged_as_the_same_one_given(engine: Renderer, folder: Path) -> None:
    """After hires, too; steps and tiles are counted together."""
    plain = rendered(engine, request(steps=2, width=64, height=64))
    seen: list[tuple[int, int]] = []
    upscale = Upscale(DEMO_UPSCALER, 2.0)
    requested = request(
        steps=2, width=64, height=64, upscale=upscale, upscaler_hash=hash_of(folder, DEMO_UPSCALER)
    )
    (image,) = engine.render([requested], lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (2, 3)]
    alone = Image.frombytes("RGB", (64, 64), plain.pixels)
    assert difference(image, rendered(engine, given(folder, alone, 2.0))) == 0
    assert image.timings["upscale"] > 0


@pytest.mark.parametrize("scale", [4, 1.5])
def test_a_picture_that_repeats_is_enlarged_without_seams(
    engine: Renderer, folder: Path, scale: float
) -> None:
    """Its edges look as they do where the same picture is moved, so that they are in its middle."""
    small: dict[str, Any] = {"steps": 2, "width": 64, "height": 128, "tiling": True}
    plain = pixels(rendered(engine, request(**small))).astype(np.uint8)
    half = (64, 32)
    moved = Image.fromarray(np.roll(plain, half, (0, 1)))
    expected = pixels(rendered(engine, given(folder, moved, scale)))
    upscale = Upscale(DEMO_UPSCALER, scale)
    large = request(**small, upscale=upscale, upscaler_hash=hash_of(folder, DEMO_UPSCALER))
    found = pixels(rendered(engine, large))
    assert found.shape == expected.shape
    at_edges = [int(side * scale) for side in half]
    found = np.roll(found, at_edges, (0, 1))
    rows, columns = (slice(side - 8, side + 8) for side in at_edges)
    assert np.abs(found - expected)[rows, columns].max() <= 1


def test_it_ends_between_two_tiles(
    engine: Renderer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled recipe, or a newer save, need not wait for a large picture."""
    monkeypatch.setattr(engine._upscalers, "_tile", 32)
    tiles = 0

    def interrupted() -> bool:
        nonlocal tiles
        tiles += 1
        return tiles == 3

    with pytest.raises(EngineStopped):
        engine.render([given(folder, gradient(size=(128, 64)), 4)], ignore_steps, interrupted)
    assert tiles == 3
