"""Pictures by references are those of diffusers' pipelines, called as their cards say."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.longcat_image import pipeline_longcat_image_edit
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from diffusers.pipelines.qwenimage21 import pipeline_qwenimage21
from PIL import Image

from picowatch.engine.drawing.canvas import fit
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.load import number_pictures
from picowatch.engine.model.memory import LAYERS, MODELS, TURNS, Rung
from picowatch.families import FAMILIES
from picowatch.recipe.request import ImageRequest
from tests.engine.adapters import write
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of, scripted
from tests.engine.part_files import FLUX, pretend, tensors_of, weights_of
from tests.engine.requests import draw, picture_of
from tests.engine.rungs import interrupt, lora_of, on_rung, reads
from tests.engine.tiny_flows import FOLDERS
from tests.engine.tiny_modular import called_modular
from tests.kinds import one_of_each_kind

_D: Any = diffusers
KLEIN, KLEIN_BASE, DEV = "FLUX.2-klein", "FLUX.2-klein-base", "FLUX.2-dev"
KONTEXT = "FLUX.1-Kontext-dev"
EDIT, PLUS, PLUS_2511 = "Qwen-Image-Edit", "Qwen-Image-Edit-2509", "Qwen-Image-Edit-2511"
QWEN21, OMNI = "Qwen-Image-2.1", "Z-Image-Omni"
KV = "FLUX.2-klein-kv"
FLUX3, FLUX3_BASE = "FLUX.3-klein", "FLUX.3-klein-base"
LONGCAT = "LongCat-Image-Edit"
EDITING = (
    *(KLEIN, KLEIN_BASE, KV, DEV, FLUX3, FLUX3_BASE),
    *(KONTEXT, EDIT, PLUS, PLUS_2511, QWEN21, OMNI, LONGCAT),
)
AREA = 128 * 128


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Let all families edit in 128x128 pixels instead of a megapixel, in diffusers, too."""
    dimensions = pipeline_qwenimage_edit.calculate_dimensions
    rounded_up = pipeline_longcat_image_edit.calculate_dimensions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            *(pipeline_longcat_image_edit, "calculate_dimensions"),
            lambda _, ratio: rounded_up(AREA, ratio),
        )
        for module in (pipeline_qwenimage_edit, pipeline_qwenimage21):
            patch.setattr(module, "calculate_dimensions", lambda _, ratio: dimensions(AREA, ratio))
        patch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", AREA)
        patch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", AREA // 4)
        for family in {FOLDERS[name].family for name in EDITING}:
            variants: Any = FAMILIES[family].variants
            for name, variant in [*variants.items()]:
                if variant.references:
                    references = replace(variant.references, area=AREA)
                    patch.setitem(variants, name, replace(variant, references=references))
        yield


def photo(seed: int, size: tuple[int, int]) -> Image.Image:
    """A smooth picture: of noise every resampling would look alike."""
    noise = np.random.default_rng(seed).random((4, 6, 3))
    return Image.fromarray((noise * 255).astype("uint8")).resize(size, Image.Resampling.BICUBIC)


def models_with(name: str, *pictures: Image.Image) -> Path:
    models = flow_models(name)
    for number, picture in enumerate(pictures):
        picture.save(models / f"photo-{number}.png")
    return models


def request_of(
    models: Path,
    name: str,
    size: str,
    *more: str,
    prompt: str = "make it red",
    photos: Sequence[int] = (0,),
) -> ImageRequest:
    lines = [f"prompt: {prompt}", f"size: {size}", *more]
    if photos:
        names = (f"photo-{number}.png" for number in photos)
        lines.append(f"references: [{', '.join(names)}]")
    (request,) = requests_of(models, name, "\n".join(lines))
    return request


@cache
def renderer(models: Path) -> Renderer:
    """One for each folder, which has loaded its checkpoint once for all tests."""
    return flow_renderer(models)


def drawn(
    models: Path, batch: Sequence[ImageRequest], ours: Renderer | None = None
) -> list[Image.Image]:
    return [picture_of(image) for image in draw(ours or renderer(models), *batch)]


def plain(name: str, images: Any, request: ImageRequest, **more: Any) -> Image.Image:
    """A careful user's script, with `lora` with one at 0.7."""
    lora = more.pop("lora", None)
    pipe = scripted(_D.Flux2Pipeline if name == DEV else _D.DiffusionPipeline, name)
    if name in (EDIT, PLUS, PLUS_2511, LONGCAT):  # as its authors' code reads pictures
        number_pictures(pipe.text_encoder)
    if name == OMNI:  # it gives pictures in no other type
        encode = pipe.vae.encode
        pipe.vae.encode = lambda pixels: encode(pixels.bfloat16().float())
    if name.startswith("Qwen") and more.pop("lightning", False):  # its authors' script
        shift = {"base_shift": math.log(3), "max_shift": math.log(3), "shift_terminal": None}
        pipe.scheduler = pipe.scheduler.from_config(pipe.scheduler.config, **shift)
    if lora:
        pipe.load_lora_weights(lora, adapter_name="a")
        pipe.set_adapters(["a"], [0.7])
    given = {
        "image": images,
        "prompt": request.prompt,
        "num_inference_steps": request.steps,
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        **more,
    }
    modular = isinstance(pipe, _D.ModularPipeline)
    (picture,) = called_modular(pipe, given) if modular else pipe(**given).images
    assert isinstance(picture, Image.Image)
    return picture


def difference(picture: Image.Image, other: Image.Image) -> int:
    assert picture.size == other.size
    return int(np.abs(np.asarray(picture, dtype=int) - np.asarray(other, dtype=int)).max())


# What a script asks each of them for, to render this size.
SCRIPTS: dict[str, dict[str, Any]] = {
    **{name: {"guidance_scale": 4.0} for name in (KLEIN_BASE, DEV, FLUX3_BASE)},
    KONTEXT: {"guidance_scale": 2.5},
    LONGCAT: {"guidance_scale": 4.5},
    **{name: {"negative_prompt": " ", "true_cfg_scale": 4.0} for name in (EDIT, PLUS, PLUS_2511)},
}


def script(name: str, picture: Image.Image, request: ImageRequest, **more: Any) -> Image.Image:
    """Return a script's picture from one photo in its own size, whose sides the model takes."""
    width, height = picture.size
    values = SCRIPTS.get(name, {}) | {"width": width, "height": height} | more
    if name == KONTEXT:
        values |= {"max_area": width * height, "_auto_resize": False}
    if name == LONGCAT:
        del values["width"], values["height"]
    images = picture if name in (KONTEXT, EDIT, LONGCAT) else [picture]
    drawn_by_it = plain(name, images, request, **values)
    # LongCat's takes no size.
    return (
        drawn_by_it if "width" in {**values, **more} else fit(drawn_by_it, picture.size, "stretch")
    )


def edits_of(models: Path, name: str, *more: str) -> list[ImageRequest]:
    """Two photos of different shapes, each with a prompt of its own."""
    more = "exact: false", *more
    second = "two blue balls on the grass"
    return [
        request_of(models, name, "128x128", *more),
        request_of(models, name, "160x96", *more, prompt=second, photos=[1]),
    ]


def two_photos(name: str) -> tuple[Path, list[Image.Image]]:
    """Return two photos in a folder, and as a script reads them: Qwen-Image 2.1 with alpha."""
    first, second = photo(0, (128, 128)), photo(1, (160, 96))
    second.putalpha(photo(2, (160, 96)).convert("L").point(lambda value: max(0, value - 99)))
    models = models_with(name, first, second)
    white = Image.new("RGBA", second.size, "white")
    seen = second if name == QWEN21 else Image.alpha_composite(white, second).convert("RGB")
    return models, [first, seen]


@pytest.mark.parametrize("name", one_of_each_kind(EDITING, (KLEIN, PLUS)))
def test_pictures_of_any_shape_in_one_batch_are_those_of_a_script(name: str) -> None:
    """Drawn alone or with `exact`, they have the same bits; each has its own prompt and photo."""
    models, pictures = two_photos(name)
    batch = edits_of(models, name)
    assert len({edit.batch_key for edit in batch}) == 1
    together = drawn(models, batch)
    for picture, found, request in zip(pictures, together, batch, strict=True):
        assert np.asarray(found).std() > 1
        assert difference(found, script(name, picture, request)) <= 1
        alone = replace(request, exact=request is batch[0])
        assert difference(found, drawn(models, [alone])[0]) == 0


SEVERAL = tuple(name for name in EDITING if name not in (KONTEXT, EDIT, LONGCAT))


@pytest.mark.parametrize("name", one_of_each_kind(SEVERAL, (KLEIN, QWEN21)))
def test_two_references_are_those_of_a_script(name: str) -> None:
    """The second is of another shape, and does not give the picture its size."""
    models, pictures = two_photos(name)
    values, more = SCRIPTS.get(name, {}) | {"width": 128, "height": 128}, []
    if "negative_prompt" in values:
        more = ["negative_prompt: dim"]
        values["negative_prompt"] = "dim"
    request = request_of(models, name, "128x128", *more, prompt="both of them", photos=(0, 1))
    (found,) = drawn(models, [request])
    assert difference(found, plain(name, pictures, request, **values)) <= 1
    (alone,) = drawn(models, [replace(request, references=request.references[:1])])
    assert difference(found, alone) > 0


def test_a_reference_that_is_too_small_for_a_model_is_enlarged() -> None:
    """FLUX.2's pipelines refuse sides below 64 pixels; a warning says so."""
    first, second = photo(0, (128, 128)), photo(1, (48, 40))
    models = models_with(KLEIN, first, second)
    request = request_of(models, KLEIN, "128x128", prompt="both of them", photos=(0, 1))
    (found,) = draw(renderer(models), request)
    said = "The reference 'photo-1.png' has only 48x40 pixels, and is enlarged."
    assert [warning for warning in found.warnings if "only" in warning] == [said]
    scaled = np.asarray(second.resize((76, 64), Image.Resampling.LANCZOS))
    second = Image.fromarray(np.pad(scaled, [(0, 0), (0, 4), (0, 0)], mode="edge"))
    expected = plain(KLEIN, [first, second], request, width=128, height=128)
    assert difference(picture_of(found), expected) <= 1


# The size in which a photo is edited for a picture of 165x101, and the part of it that is shown.
PADDED, STRETCHED = ((176, 112), (163, 100)), ((160, 96), (160, 96))
ROUNDED_UP = (176, 112), (176, 112)
FRAMES = {KLEIN: PADDED, PLUS: STRETCHED, LONGCAT: ROUNDED_UP}


@pytest.mark.parametrize("name", FRAMES)
def test_nothing_is_moved_or_zoomed_in_a_size_that_the_model_does_not_take(name: str) -> None:
    """The photo is padded on the right and below, or stretched, and the picture brought back."""
    size, (whole, shown) = (165, 101), FRAMES[name]
    picture = photo(0, (2 * size[0], 2 * size[1]))
    models = models_with(name, picture)
    request = request_of(models, name, "165x101")
    (found,) = drawn(models, [request])
    if whole == shown:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    else:
        scaled = picture.resize(shown, Image.Resampling.LANCZOS)
        margins = [(0, whole[1] - shown[1]), (0, whole[0] - shown[0]), (0, 0)]
        picture = Image.fromarray(np.pad(np.asarray(scaled), margins, mode="edge"))
    theirs = script(name, picture, request, width=whole[0], height=whole[1])
    back = theirs.crop((0, 0, *shown)).resize(size, Image.Resampling.LANCZOS)
    assert difference(found, back) <= 2  # both are rounded before they are scaled


def test_longcat_sees_a_reference_of_other_proportions_with_its_edges_repeated() -> None:
    """Its pipeline takes the picture's proportions from the reference; a warning says so."""
    models = models_with(LONGCAT, picture := photo(0, (128, 64)))
    request = request_of(models, LONGCAT, "128x128")
    (found,) = draw(renderer(models), request)
    said = "The reference 'photo-0.png' has other proportions, and its edges are repeated."
    assert found.warnings == (said,)
    whole = Image.fromarray(np.pad(np.asarray(picture), [(32, 32), (0, 0), (0, 0)], mode="edge"))
    assert difference(picture_of(found), script(LONGCAT, whole, request)) <= 1


def test_longcat_reads_the_beginning_of_a_long_instruction() -> None:
    """Its pipeline would fail."""
    models = models_with(LONGCAT, picture := photo(0, (128, 128)))
    request = request_of(models, LONGCAT, "128x128", prompt="x" * 600)
    (found,) = draw(renderer(models), request)
    assert "its end was ignored, because this checkpoint reads 512." in found.warnings[0]
    read = replace(request, prompt="x" * 512)
    assert difference(picture_of(found), script(LONGCAT, picture, read)) <= 1


@pytest.mark.parametrize("name", one_of_each_kind(EDITING, (KONTEXT, QWEN21)))
def test_a_mask_keeps_the_photo_outside_to_the_bit(name: str) -> None:
    """Whatever the size is rendered in, also with the usual soft edge, which lies inside."""
    original, size = photo(0, (90, 75)), (90, 75)
    if name == QWEN21:  # the only one that sees transparency
        original.putalpha(photo(2, size).convert("L").point(lambda value: max(0, value - 99)))
    models = models_with(name, original)
    white = np.zeros((size[1], size[0]), bool)
    white[10:60, 20:80] = True
    inner = np.zeros_like(white)
    inner[25:45, 35:65] = True
    Image.fromarray(white).convert("L").save(models / "white.png")
    (free,) = drawn(models, [request_of(models, name, "90x75")])
    (found,) = drawn(models, [request_of(models, name, "90x75", "mask: white.png")])
    pixels, outside = np.asarray(found), ~white
    assert (pixels[outside] == np.asarray(original)[outside]).all()
    assert (pixels[inner] == np.asarray(free)[inner]).all()
    assert (pixels != np.asarray(free)).any()


def test_only_the_masked_part_of_a_photo_is_edited() -> None:
    """As a script edits a crop, and pastes it back inside the mask."""
    original = photo(0, (90, 75))
    models, mask = models_with(KLEIN, original), Image.new("L", original.size)
    mask.paste(255, (30, 20, 50, 40))
    mask.save(models / "white.png")
    masked = ("mask: white.png", "mask_padding: 6", "mask_blur: 0")
    request = request_of(models, KLEIN, "64x64", *masked)
    (found,) = drawn(models, [request])
    box = (24, 14, 56, 46)
    part = original.crop(box).resize((64, 64), Image.Resampling.LANCZOS)
    shown = script(KLEIN, part, request).resize((32, 32), Image.Resampling.LANCZOS)
    expected = original.copy()
    expected.paste(shown, box[:2], mask.crop(box))
    assert difference(found, expected) <= 1
    assert difference(found, original) > 1


def test_a_lightning_lora_brings_its_schedule() -> None:
    """By its name; with guidance off it is four steps of equal shifts, whatever the size."""
    models, (picture, _) = two_photos(PLUS)
    name = "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16"
    lora = lora_of(models, PLUS)
    file = models / f"loras/{name}.safetensors"
    file.write_bytes((models / "loras/a.safetensors").read_bytes())
    (request, _) = edits_of(models, PLUS, "steps: 4", "cfg_scale: 1")
    (quick,) = drawn(models, [replace(request, loras=(replace(lora, name=name),))])
    values = {"lora": file, "true_cfg_scale": 1.0}
    assert difference(quick, script(PLUS, picture, request, lightning=True, **values)) <= 1
    off = replace(request, loras=(replace(lora, name=name, weight=0),))
    assert difference(*(drawn(models, [edit])[0] for edit in (off, request))) == 0


# By layers everything moves, and one family shows what moves by models and by turns.
ON_RUNGS = [*((name, LAYERS) for name in EDITING), (PLUS, MODELS), (PLUS, TURNS)]


@pytest.mark.parametrize(("name", "rung"), one_of_each_kind(ON_RUNGS, [(PLUS, LAYERS)]))
def test_every_rung_edits_the_same(name: str, rung: Rung) -> None:
    """Also after a batch that was interrupted in a text or vision encoder, or in a step."""
    models, _ = two_photos(name)
    batch = edits_of(models, name)
    plainly = drawn(models, batch)
    ours = on_rung(flow_renderer(models), replace(rung, tiled=False))
    interrupt(ours, batch)
    for found, expected in zip(drawn(models, batch, ours), plainly, strict=True):
        assert difference(found, expected) <= 1


def test_text_encoders_come_once_for_a_batch() -> None:
    """They read all photos, then the transformer draws them; photos that were read need none."""
    models, _ = two_photos(PLUS)
    batch = edits_of(models, PLUS)
    ours = on_rung(flow_renderer(models), TURNS)
    again = [replace(request, seed=8) for request in batch]
    for wanted, expected in ((batch, ["text_encoder", "transformer", "vae"]), (again, [])):
        with reads() as found:
            drawn(models, wanted, ours)
        assert sorted(part for part, _ in found) == expected


def test_what_was_read_in_a_photo_belongs_to_its_bytes_and_size() -> None:
    """The same words about another photo, and about the same one in another size."""
    models = models_with(PLUS, *(photo(seed, (128, 128)) for seed in (0, 1)))
    photos = ((0, "128x128"), (1, "128x128"), (0, "256x256"))
    wanted = [request_of(models, PLUS, size, photos=[number]) for number, size in photos]
    for request, found in zip(wanted[1:], drawn(models, wanted)[1:], strict=True):
        assert difference(found, drawn(models, [request], flow_renderer(models))[0]) == 0


def test_one_file_is_what_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is then drawn as what its name says, with the same hash and without leftovers."""
    pretend(monkeypatch, tmp_path / "assets", FLUX)
    models = tmp_path / "models"
    write(models / "checkpoints/my-merge.safetensors", weights_of(KONTEXT))
    for part, file in {"text_encoder": "clip_l", "text_encoder_2": "t5xxl_fp16"}.items():
        write(models / f"text_encoders/{file}.safetensors", tensors_of(KONTEXT, part))
    write(models / "vae/ae.safetensors", tensors_of(KONTEXT, "vae"))
    picture = photo(0, (96, 64))
    picture.save(models / "photo-0.png")
    drawing = request_of(models, "my-merge", "96x64", photos=())
    edit = request_of(models, "my-merge as kontext", "96x64")
    assert edit.checkpoint_hash == drawing.checkpoint_hash
    ours = flow_renderer(models)
    _, edited, again = (drawn(models, [request], ours)[0] for request in (drawing, edit, drawing))
    assert difference(edited, script(KONTEXT, picture, edit)) <= 1
    assert difference(again, drawn(models, [drawing])[0]) == 0
