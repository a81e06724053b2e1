"""Pictures by references are those of diffusers' pipelines, called as their cards say."""

import inspect
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from PIL import Image

from picowatch.engine.canvas import Canvas
from picowatch.engine.draw import Drawn
from picowatch.engine.processors import number_pictures, read_processor
from picowatch.engine.references import read_references
from picowatch.families import FAMILIES, References
from picowatch.recipe.request import ImageRequest, ReferenceUse
from tests.engine.flow_requests import FLOW_WARNINGS, flow_models, flow_renderer, requests_of
from tests.engine.tiny_flows import tiny_flow
from tests.metadata.requests import CORGI

pytestmark = FLOW_WARNINGS
_D: Any = diffusers
KLEIN, KONTEXT = "FLUX.2-klein", "FLUX.1-Kontext-dev"
EDIT, PLUS, PLUS_2511 = "Qwen-Image-Edit", "Qwen-Image-Edit-2509", "Qwen-Image-Edit-2511"
AREA = 128 * 128
PROMPT = "prompt: make it red"


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """A smooth picture: of noise every resampling would look alike."""
    noise = np.random.default_rng(seed).random((4, 6, 3))
    return Image.fromarray((noise * 255).astype("uint8")).resize(size, Image.Resampling.BICUBIC)


def models_with(name: str, *pictures: Image.Image) -> Path:
    models = flow_models(name)
    for number, picture in enumerate(pictures):
        picture.save(models / f"photo-{number}.png")
    return models


def request_of(models: Path, name: str, text: str, size: str = "size: picture") -> ImageRequest:
    """The one request of a recipe; its size is the photo's, which no catalog of pictures knows."""
    (request,) = requests_of(models, name, f"{text}\n{size}")
    return request


def drawn(models: Path, batch: Sequence[ImageRequest]) -> list[Image.Image]:
    found = flow_renderer(models).render(batch, lambda *_: None)
    return [Image.frombytes("RGB", (one.width, one.height), one.pixels) for one in found]


def plain(name: str, images: Any, request: ImageRequest, **more: Any) -> Image.Image:
    """A careful user's script."""
    folder = tiny_flow(name)
    parts: dict[str, Any] = {}
    if "Qwen" in name:
        parts["processor"] = read_processor(folder / "processor", "Qwen2VLProcessor")
    pipe = _D.DiffusionPipeline.from_pretrained(folder, **parts)
    pipe.set_progress_bar_config(disable=True)
    if parts:  # else a small difference to what its authors' code draws
        number_pictures(pipe.text_encoder)
    (picture,) = pipe(
        image=images,
        prompt=request.prompt,
        num_inference_steps=request.steps,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        **more,
    ).images
    assert isinstance(picture, Image.Image)
    return picture


def difference(one: Image.Image, other: Image.Image) -> int:
    assert one.size == other.size
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


def test_klein_edits_one_picture_and_several() -> None:
    """Of multiples of 16 nothing is padded: the script's picture."""
    first, second = photo(0, (96, 64)), photo(1, (64, 96))
    models = models_with(KLEIN, first, second)
    one = request_of(models, KLEIN, f"{PROMPT}\nreferences: photo-0.png", "size: 96x64")
    two = request_of(
        models, KLEIN, f"{PROMPT}\nreferences: [photo-0.png, photo-1.png]", "size: 96x64"
    )
    alone, both = drawn(models, [one])[0], drawn(models, [two])[0]
    sizes = {"width": 96, "height": 64}
    assert difference(alone, plain(KLEIN, [first], one, **sizes)) <= 1
    assert difference(both, plain(KLEIN, [first, second], two, **sizes)) <= 1
    assert difference(alone, both) > 0
    # Together as alone.
    batch = drawn(models, [one, two])
    assert (difference(batch[0], alone), difference(batch[1], both)) == (0, 0)


def test_what_the_model_cannot_take_as_it_is_keeps_its_place() -> None:
    """A picture of other sides than multiples of 16 is padded to the right and below, and cut."""
    picture = photo(0, (90, 75))
    models = models_with(KLEIN, picture)
    request = request_of(models, KLEIN, f"{PROMPT}\nreferences: photo-0.png", "size: 90x75")
    (found,) = drawn(models, [request])
    pixels = np.pad(np.asarray(picture), [(0, 5), (0, 6), (0, 0)], mode="edge")
    whole = plain(KLEIN, [Image.fromarray(pixels)], request, width=96, height=80)
    assert difference(found, whole.crop((0, 0, 90, 75))) <= 1


def test_kontext_edits_one_picture_in_its_own_size() -> None:
    """diffusers would make a square of a megapixel of it."""
    picture = photo(0, (96, 64))
    models = models_with(KONTEXT, picture)
    request = request_of(
        models, KONTEXT, f"{PROMPT}\nguidance: 2.5\nreferences: photo-0.png", "size: 96x64"
    )
    (found,) = drawn(models, [request])
    sizes = {"width": 96, "height": 64, "max_area": 96 * 64, "_auto_resize": False}
    assert difference(found, plain(KONTEXT, picture, request, guidance_scale=2.5, **sizes)) <= 1


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Qwen-Image edit in 128x128 pixels instead of a megapixel, in diffusers, too."""
    first, dimensions = pipeline_qwenimage_edit, pipeline_qwenimage_edit.calculate_dimensions
    monkeypatch.setattr(first, "calculate_dimensions", lambda _, ratio: dimensions(AREA, ratio))
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", AREA)
    monkeypatch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", AREA // 4)
    variants: Any = FAMILIES["qwen_image"].variants
    for name, variant in [*variants.items()]:
        if variant.references:
            references = replace(variant.references, area=AREA)
            monkeypatch.setitem(variants, name, replace(variant, references=references))


@pytest.mark.parametrize(("name", "pictures"), [(EDIT, 1), (PLUS, 2), (PLUS_2511, 2)])
@pytest.mark.usefixtures("small")
def test_qwen_edits_in_its_own_area_and_gives_the_size_back(name: str, pictures: int) -> None:
    """With guidance; the vision encoder sees the pictures, and numbers them as pictures."""
    photos = [photo(0, (96, 64)), photo(1, (64, 96))][:pictures]
    models = models_with(name, *photos)
    listed = ", ".join(f"photo-{number}.png" for number in range(pictures))
    text = f"{PROMPT}\nnegative_prompt: dim\ncfg_scale: 3\nreferences: [{listed}]"
    request = request_of(models, name, text, "size: 96x64")
    (found,) = drawn(models, [request])
    images = photos if pictures > 1 else photos[0]
    sizes = {"width": 160, "height": 96}
    whole = plain(name, images, request, negative_prompt="dim", true_cfg_scale=3.0, **sizes)
    assert difference(found, whole.resize((96, 64), Image.Resampling.LANCZOS)) <= 1


def test_the_library_still_needs_to_be_told_which_tokens_are_a_pictures() -> None:
    """diffusers #14194. Once it says so itself, `number_pictures` can go."""
    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        assert "mm_token_type_ids" not in inspect.getsource(module)


def test_transparency_of_references_is_kept_for_families_that_read_it(tmp_path: Path) -> None:
    """For others they stand on white, in their frame, too."""
    picture = Image.new("RGBA", (70, 64), (200, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 35, 64))
    content = BytesIO()
    picture.save(content, "PNG")
    digest = sha256(content.getvalue()).hexdigest()
    (tmp_path / digest).write_bytes(content.getvalue())
    request = replace(CORGI, width=70, height=64, references=(ReferenceUse("a.png", digest),))
    seen = {}
    for alpha in (True, False):
        frame, (read,) = read_references(tmp_path, request, References(most=1, alpha=alpha))
        assert (frame.size, read.size) == ((80, 64), (80, 64))
        seen[alpha] = [read.getpixel((x, 32)) for x in (5, 75)]
    assert seen[True] == [(0, 0, 0, 0), (200, 0, 0, 255)]
    assert seen[False] == [(255, 255, 255), (200, 0, 0)]


def test_what_a_mask_protects_is_opaque() -> None:
    """A family that gives transparency draws into a picture that has none."""
    opacity = np.array([[0, 255]], np.uint8)
    canvas = Canvas(np.full((1, 2, 3), 9, np.uint8), opacity, opacity)
    drawn = Drawn.of(Image.new("RGBA", (2, 1), (1, 1, 1, 50))).over(canvas)
    assert (drawn.pixels, drawn.alpha) == (b"\x09\x09\x09\x01\x01\x01", bytes([255, 50]))
