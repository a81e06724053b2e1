"""Pictures by references are those of diffusers' pipelines, called as their cards say."""

import inspect
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus
from diffusers.pipelines.qwenimage21 import pipeline_qwenimage21
from PIL import Image

from picowatch.catalog import Catalog
from picowatch.engine.canvas import Canvas
from picowatch.engine.memory import LAYERS, MODELS, TURNS, Rung
from picowatch.engine.processors import number_pictures
from picowatch.engine.references import read_references
from picowatch.engine.renderer import Renderer
from picowatch.errors import EngineStopped
from picowatch.families import FAMILIES, References, Sign
from picowatch.recipe.request import ImageRequest, ReferenceUse
from tests.engine.flow_requests import (
    FLOW_WARNINGS,
    flow_models,
    flow_renderer,
    requests_of,
    scripted,
)
from tests.engine.part_files import FLUX, flux2_vae, pretend, tensors_of
from tests.engine.requests import ignore_steps
from tests.engine.rungs import lora_of, on_rung, reads
from tests.engine.tiny_flows import FOLDERS, tiny_flow
from tests.engine.transformer_files import Tensors, weights_of, write, write_gguf
from tests.kinds import one_of_each_kind
from tests.metadata.requests import CORGI

pytestmark = FLOW_WARNINGS
_D: Any = diffusers
KLEIN, KLEIN_BASE, DEV = "FLUX.2-klein", "FLUX.2-klein-base", "FLUX.2-dev"
KONTEXT = "FLUX.1-Kontext-dev"
EDIT, PLUS, PLUS_2511 = "Qwen-Image-Edit", "Qwen-Image-Edit-2509", "Qwen-Image-Edit-2511"
QWEN21, OMNI = "Qwen-Image-2.1", "Z-Image-Omni"
EDITING = (KLEIN, KLEIN_BASE, DEV, KONTEXT, EDIT, PLUS, PLUS_2511, QWEN21, OMNI)
AREA = 128 * 128
PROMPT = "prompt: make it red"


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Let Qwen-Image edit in 128x128 pixels instead of a megapixel, in diffusers, too."""
    dimensions = pipeline_qwenimage_edit.calculate_dimensions
    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline_qwenimage_edit, pipeline_qwenimage21):
            patch.setattr(module, "calculate_dimensions", lambda _, ratio: dimensions(AREA, ratio))
        patch.setattr(pipeline_qwenimage_edit_plus, "VAE_IMAGE_SIZE", AREA)
        patch.setattr(pipeline_qwenimage_edit_plus, "CONDITION_IMAGE_SIZE", AREA // 4)
        for family in ("qwen_image", "qwen_image_21"):
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


def request_of(models: Path, name: str, text: str, size: str = "size: picture") -> ImageRequest:
    """The one request of a recipe; its size is the photo's, which no catalog of pictures knows."""
    (request,) = requests_of(models, name, f"{text}\n{size}")
    return request


@cache
def renderer(models: Path) -> Renderer:
    """One for each folder, which has loaded its checkpoint once for all tests."""
    return flow_renderer(models)


def drawn(
    models: Path, batch: Sequence[ImageRequest], ours: Renderer | None = None
) -> list[Image.Image]:
    found = (ours or renderer(models)).render(batch, ignore_steps)
    made = [Image.frombytes("RGB", (one.width, one.height), one.pixels) for one in found]
    for picture, one in zip(made, found, strict=True):
        if one.alpha:
            picture.putalpha(Image.frombytes("L", picture.size, one.alpha))
    return made


def plain(name: str, images: Any, request: ImageRequest, **more: Any) -> Image.Image:
    """A careful user's script, with `lora` with one at 0.7."""
    lora = more.pop("lora", None)
    pipe = scripted(_D.Flux2Pipeline if name == DEV else _D.DiffusionPipeline, name)
    if name in (EDIT, PLUS, PLUS_2511):  # else a small difference to what its authors' code draws
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
    """Multiples of 16 are not padded, so the picture is the script's."""
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


@pytest.mark.parametrize(("name", "pictures"), [(EDIT, 1), (PLUS, 2), (PLUS_2511, 2)])
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


# What a script asks each of them for, to render this size.
SCRIPTS: dict[str, dict[str, Any]] = {
    **{name: {"guidance_scale": 4.0} for name in (KLEIN_BASE, DEV, OMNI)},
    KONTEXT: {"guidance_scale": 2.5},
    **{name: {"negative_prompt": " ", "true_cfg_scale": 4.0} for name in (EDIT, PLUS, PLUS_2511)},
}
IN_EACH_RUN = (KLEIN, KONTEXT, PLUS)


def script(name: str, picture: Image.Image, request: ImageRequest, **more: Any) -> Image.Image:
    """Return a script's picture from one photo in its own size, whose sides the model takes."""
    width, height = picture.size
    values = SCRIPTS.get(name, {}) | {"width": width, "height": height} | more
    if name == KONTEXT:
        values |= {"max_area": width * height, "_auto_resize": False}
    images = picture if name in (KONTEXT, EDIT) else [picture]
    return plain(name, images, request, **values)


def edits_of(models: Path, name: str, *more: str) -> list[ImageRequest]:
    """Two photos of different shapes, each with a prompt of its own."""
    texts = ("make it red", "two blue balls on the grass")
    return [
        request_of(
            models,
            name,
            "\n".join((f"prompt: {text}\nreferences: photo-{number}.png\nexact: false", *more)),
            f"size: {size}",
        )
        for number, (text, size) in enumerate(zip(texts, ("128x128", "160x96"), strict=True))
    ]


def two_photos(name: str) -> Path:
    """The second is partly transparent, where that means something."""
    second = photo(1, (160, 96))
    if name == QWEN21:
        second.putalpha(photo(2, (160, 96)).convert("L").point(lambda value: max(0, value - 99)))
    return models_with(name, photo(0, (128, 128)), second)


@pytest.mark.parametrize("name", one_of_each_kind(EDITING, IN_EACH_RUN))
def test_pictures_of_any_shape_in_one_batch_are_those_of_a_script(name: str) -> None:
    """Drawn alone or with `exact`, they have the same bits; each has its own prompt and photo."""
    models = two_photos(name)
    batch = edits_of(models, name)
    assert len({one.batch_key for one in batch}) == 1
    together = drawn(models, batch)
    for number, (found, request) in enumerate(zip(together, batch, strict=True)):
        picture = Image.open(models / f"photo-{number}.png")
        assert np.asarray(found).std() > 1
        assert difference(found, script(name, picture, request)) <= 1
        for alone in (request, replace(request, exact=True)):
            assert difference(found, drawn(models, [alone])[0]) == 0


@pytest.mark.parametrize("name", one_of_each_kind((KLEIN_BASE, DEV, QWEN21, OMNI), (QWEN21,)))
def test_two_references_are_those_of_a_script(name: str) -> None:
    """The second is of another shape, and does not give the picture its size."""
    models = two_photos(name)
    text = "prompt: both of them\nreferences: [photo-0.png, photo-1.png]"
    request = request_of(models, name, text, "size: 128x128")
    (found,) = drawn(models, [request])
    pictures = [Image.open(models / f"photo-{number}.png") for number in (0, 1)]
    values = SCRIPTS.get(name, {}) | {"width": 128, "height": 128}
    assert difference(found, plain(name, pictures, request, **values)) <= 1
    (alone,) = drawn(models, [replace(request, references=request.references[:1])])
    assert difference(found, alone) > 0


@pytest.mark.parametrize("name", one_of_each_kind(EDITING, IN_EACH_RUN))
def test_a_mask_keeps_the_photo_outside_to_the_bit(name: str) -> None:
    """Whatever the size is rendered in; inside is what is drawn without one."""
    original, size = photo(0, (90, 75)), (90, 75)
    models = models_with(name, original)
    white = np.zeros((size[1], size[0]), bool)
    white[20:50, 30:70] = True
    Image.fromarray(white).convert("L").save(models / "white.png")
    text = f"{PROMPT}\nreferences: photo-0.png"
    (free,) = drawn(models, [request_of(models, name, text, "size: 90x75")])
    masked = f"{text}\nmask: white.png\nmask_blur: 0"
    (found,) = drawn(models, [request_of(models, name, masked, "size: 90x75")])
    pixels, outside = np.asarray(found), ~white
    assert (pixels[outside, :3] == np.asarray(original)[outside]).all()
    assert (pixels[outside, 3:] == 255).all()
    assert (pixels[white] == np.asarray(free)[white]).all()
    assert (pixels != np.asarray(free)).any()


@pytest.mark.parametrize("name", one_of_each_kind(EDITING, (PLUS,)))
def test_an_interrupted_edit_leaves_nothing_behind(name: str) -> None:
    """It may be interrupted in a text encoder, a vision encoder or a step; the next is the same."""
    models = two_photos(name)
    one, two = edits_of(models, name)
    (before,) = drawn(models, [one])
    for looks in (0, 3, 8):
        answers = iter([False] * looks + [True] * 1000)
        with pytest.raises(EngineStopped):
            renderer(models).render([two, one], ignore_steps, answers.__next__)
        assert difference(drawn(models, [one])[0], before) == 0


MARKS = {"flux": "flux1", "flux2_dev": "flux2-dev", "flux2": "flux2", "qwen_image": "qwen_image"}
MARKS |= {"qwen_image_21": "qwen-image-2.1", "z_image_omni": "z-image-omni"}


@pytest.mark.parametrize("name", one_of_each_kind(EDITING, (KLEIN,)))
def test_a_lora_is_that_of_a_script(name: str) -> None:
    """It is gone with the next picture."""
    models = two_photos(name)
    (models / "loras").mkdir(exist_ok=True)
    lora = lora_of(models, name, MARKS[FOLDERS[name].family])
    request, _ = edits_of(models, name)
    (before,), picture = drawn(models, [request]), Image.open(models / "photo-0.png")
    (found,) = drawn(models, [replace(request, loras=(lora,))])
    assert difference(found, before) > 1
    theirs = script(name, picture, request, lora=models / "loras/a.safetensors")
    assert difference(found, theirs) <= 1
    assert difference(drawn(models, [request])[0], before) == 0


def test_a_lightning_lora_brings_its_schedule() -> None:
    """By its name; with guidance off it is four steps of equal shifts, whatever the size."""
    models, name = two_photos(PLUS), "Qwen-Image-Edit-2509-Lightning-4steps-V1.0-bf16"
    lora = lora_of(models, PLUS, "qwen_image")
    file = models / f"loras/{name}.safetensors"
    file.write_bytes((models / "loras/a.safetensors").read_bytes())
    (request, _) = edits_of(models, PLUS, "steps: 4", "cfg_scale: 1")
    picture = Image.open(models / "photo-0.png")
    plainly, quick = (
        drawn(models, [replace(request, loras=(replace(lora, name=one),))])[0]
        for one in ("a", name)
    )
    values = {"lora": file, "true_cfg_scale": 1.0}
    assert difference(plainly, script(PLUS, picture, request, **values)) <= 1
    assert difference(quick, script(PLUS, picture, request, lightning=True, **values)) <= 1
    assert difference(quick, plainly) > 1


@pytest.mark.parametrize("rung", (MODELS, LAYERS, TURNS), ids=lambda rung: rung.name)
@pytest.mark.parametrize("name", one_of_each_kind(EDITING, (PLUS,)))
def test_every_rung_edits_the_same(name: str, rung: Rung) -> None:
    models = two_photos(name)
    batch = edits_of(models, name)
    plainly = drawn(models, batch)
    ours = on_rung(flow_renderer(models), replace(rung, tiled=False))
    for found, expected in zip(drawn(models, batch, ours), plainly, strict=True):
        assert difference(found, expected) <= 1


@pytest.mark.parametrize("name", [KLEIN, KONTEXT, PLUS])
def test_text_encoders_come_once_for_a_batch(name: str) -> None:
    """They read all photos, then the transformer draws them; photos that were read need none."""
    models = two_photos(name)
    batch = edits_of(models, name)
    ours = on_rung(flow_renderer(models), TURNS)
    encoders = ["text_encoder", "text_encoder_2"][: 2 if name == KONTEXT else 1]
    again = [replace(one, seed=8) for one in batch]
    for wanted, expected in ((batch, [*encoders, "vae", "transformer"]), (again, [])):
        with reads() as found:
            drawn(models, wanted, ours)
        assert sorted(part for part, _ in found) == sorted(expected)


def test_what_was_read_in_a_photo_belongs_to_its_bytes_and_size() -> None:
    """The same words about another photo, and about the same one in another size."""
    models = two_photos(PLUS)
    texts = [f"{PROMPT}\nreferences: photo-{number}.png" for number in (0, 1)]
    sizes = ("size: 128x128", "size: 160x96", "size: 256x256")
    wanted = [
        request_of(models, PLUS, texts[number], size)
        for number, size in zip((0, 1, 0), sizes, strict=True)
    ]
    for request, found in zip(wanted, drawn(models, wanted), strict=True):
        assert difference(found, drawn(models, [request], flow_renderer(models))[0]) == 0


# Files of a transformer, and how far a picture may be from that of the folder.
KINDS: dict[str, tuple[Callable[[Path, Tensors], Path], int]] = {
    "float32.safetensors": (write, 0),
    "Q8_0.gguf": (lambda path, tensors: write_gguf(path, tensors, "Q8_0", "flux"), 20),
}


def edited_by(models: Path, checkpoint: str) -> Image.Image:
    """One photo, edited by a checkpoint of a models folder."""
    photo(0, (96, 64)).save(models / "photo-0.png")
    request = request_of(
        models, checkpoint, f"{PROMPT}\nreferences: photo-0.png\ncfg_scale: 1", "size: 96x64"
    )
    return drawn(models, [request], flow_renderer(models))[0]


# What names of files begin with, and the text encoders' files, where no folder is needed.
FILES = {
    KONTEXT: "flux1-dev-kontext",
    KLEIN: "flux-2-klein-4b",
    DEV: "flux2_dev",
    PLUS: "qwen_image_edit_2509",
    QWEN21: "qwen_image_2.1",
    OMNI: "z_image_omni",
}
ENCODER_FILES = {
    KONTEXT: {"text_encoder": "clip_l", "text_encoder_2": "t5xxl_fp16"},
    KLEIN: {"text_encoder": "qwen_3_4b"},
}


def complete(models: Path, name: str) -> None:
    """Write the files that complete a transformer's file, or a folder without a transformer."""
    if name in ENCODER_FILES:
        for part, file in ENCODER_FILES[name].items():
            write(models / f"text_encoders/{file}.safetensors", tensors_of(name, part))
        vae = flux2_vae(tiny_flow(name) / "vae") if name == KLEIN else tensors_of(name, "vae")
        write(models / "vae/vae.safetensors", vae)
    else:
        folder = models / "checkpoints" / name
        shutil.copytree(tiny_flow(name), folder)
        (folder / "transformer/diffusion_pytorch_model.safetensors").unlink()


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("name", one_of_each_kind(FILES, (KONTEXT, QWEN21)))
def test_a_transformers_file_edits_as_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str
) -> None:
    """Kontext's and klein's with the files that their relatives need, others with their folder."""
    pretend(monkeypatch, tmp_path / "assets", KLEIN if name == KLEIN else FLUX)
    tiny = Sign(has=("time_guidance_embed.guidance_embedder.",))
    dev: Any = FAMILIES["flux2_dev"].variants
    monkeypatch.setitem(dev, "", replace(dev[""], sign=tiny))
    write_file, far = KINDS[ending]
    models, checkpoint = tmp_path / "models", f"{FILES[name]}_{ending}"
    write_file(models / "checkpoints" / checkpoint, weights_of(name))
    complete(models, name)
    found = edited_by(models, checkpoint)
    assert difference(found, edited_by(flow_models(name), name)) <= far


def test_a_file_of_qwen_image_edit_needs_a_folder_of_its_variant(tmp_path: Path) -> None:
    """Other variants do not fit: 2511 has another setting, and the first another pipeline."""
    write(tmp_path / "checkpoints/qwen_image_edit_2509.safetensors", weights_of(PLUS))
    for other in (EDIT, PLUS_2511, "Qwen-Image"):
        (tmp_path / "checkpoints" / other).symlink_to(tiny_flow(other))
    (refused,) = [one for one in Catalog(tmp_path).scan().models if one.missing]
    assert "(Edit 2509) (such as Qwen/Qwen-Image-Edit-2509)" in refused.missing


def test_one_file_is_what_the_recipe_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is then drawn as what its name says, with the same hash and without leftovers."""
    pretend(monkeypatch, tmp_path / "assets", FLUX)
    models = tmp_path / "models"
    write(models / "checkpoints/my-merge.safetensors", weights_of(KONTEXT))
    complete(models, KONTEXT)
    drawing = request_of(models, "my-merge", PROMPT, "size: 96x64")
    photo(0, (96, 64)).save(models / "photo-0.png")
    text = f"{PROMPT}\nreferences: photo-0.png"
    edit = request_of(models, "my-merge as kontext", text, "size: 96x64")
    assert edit.checkpoint_hash == drawing.checkpoint_hash
    ours = flow_renderer(models)
    _, edited, again = (drawn(models, [one], ours)[0] for one in (drawing, edit, drawing))
    usual = edited_by(flow_models(KONTEXT), KONTEXT)
    assert (difference(edited, usual), difference(again, drawn(models, [drawing])[0])) == (0, 0)


@pytest.fixture
def gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let transformers give back the reference's latents, and VAEs hold an eighth of the pixels."""

    def forward(model: Any, *, hidden_states: Any, timestep: Any, **__: Any) -> Any:
        noisy, given = hidden_states.chunk(2, 1)
        if isinstance(model, _D.QwenImage21Transformer2DModel):
            noisy, given = given, noisy
        return ((noisy - given) / timestep.reshape(-1, 1, 1)).repeat(1, 2, 1), None

    def encode(vae: Any, pictures: Any, *_: Any) -> Any:
        films = pictures.ndim == 5
        small = torch.nn.functional.avg_pool2d(
            pictures[:, :, 0] if films else pictures, reduces(vae)
        )
        width = vae.config.z_dim if films else vae.config.latent_channels
        more = small.new_zeros(1, width - small.shape[1], *small.shape[2:])
        latents = torch.cat([small, more], 1)
        latents = latents.unsqueeze(2) if films else latents
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    def decode(vae: Any, latents: Any, **__: Any) -> Any:
        films, channels = latents.ndim == 5, 4 if reduces(vae) > 8 else 3
        colours = (latents[:, :, 0] if films else latents)[:, :channels]
        large = torch.nn.functional.interpolate(colours, scale_factor=reduces(vae), mode="bicubic")
        return (large.unsqueeze(2) if films else large,)

    def reduces(vae: Any) -> int:
        return 16 if isinstance(vae, _D.AutoencoderKLQwenImage21) else 8

    for kind in ("Flux", "Flux2", "QwenImage", "QwenImage21"):
        monkeypatch.setattr(getattr(_D, f"{kind}Transformer2DModel"), "forward", forward)
    for kind in ("KL", "KLFlux2", "KLQwenImage", "KLQwenImage21"):
        monkeypatch.setattr(getattr(_D, f"Autoencoder{kind}"), "encode", encode)
        monkeypatch.setattr(getattr(_D, f"Autoencoder{kind}"), "decode", decode)


def checkerboard(size: tuple[int, int], side: int) -> Image.Image:
    rows, columns = np.indices(size[::-1]) // side
    return Image.fromarray(np.where((rows + columns) % 2, 230, 25).astype("uint8")).convert("RGB")


@pytest.mark.usefixtures("gives_back")
@pytest.mark.parametrize("size", [(165, 101), (101, 165)])
@pytest.mark.parametrize("name", [KLEIN, KONTEXT, EDIT, PLUS, QWEN21])
def test_a_picture_stays_where_it_is_to_the_pixel(name: str, size: tuple[int, int]) -> None:
    """A model that returns its reference shows that nothing is moved, cut or zoomed."""
    board = checkerboard(size, 32)
    models = models_with(name, board)
    text = f"{PROMPT}\nreferences: photo-0.png\ncfg_scale: 1"
    request = request_of(models, name, text, f"size: {size[0]}x{size[1]}")
    (found,) = drawn(models, [request], flow_renderer(models))
    one, other = (np.asarray(each.convert("L"), float) for each in (board, found))
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.7
    width, height = size
    for left in (8, width - 78):
        for top in (8, height - 78):
            # Of a cell of latents that has 16 pixels, averages tell an edge less exactly.
            assert max(map(abs, shift_of(one, other, left, top))) <= (name == QWEN21)


def shift_of(one: Any, other: Any, left: int, top: int, most: int = 4) -> tuple[int, int]:
    """Return how far a part of a picture has moved, by the least difference."""
    part = one[top : top + 70, left : left + 70]
    moved = {
        (x, y): np.abs(part - other[top + y : top + y + 70, left + x : left + x + 70]).sum()
        for x in range(-most, most + 1)
        for y in range(-most, most + 1)
    }
    return min(moved, key=moved.__getitem__)


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
    opacity = Image.fromarray(np.array([[0, 255]], np.uint8))
    canvas = Canvas(Image.new("RGB", (2, 1), (9, 9, 9)), opacity, opacity)
    drawn = np.asarray(canvas.under(Image.new("RGBA", (2, 1), (1, 1, 1, 50))))
    assert drawn.tolist() == [[[9, 9, 9, 255], [1, 1, 1, 50]]]
