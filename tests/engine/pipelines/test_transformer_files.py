"""A transformer's file, completed by a folder, renders what the whole folder renders."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

from picowatch.catalog import Catalog
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine.memory.test_flow_rungs import EXACT_RUNGS, RUNGS, on_rung
from tests.engine.original_names import (
    chroma_names,
    flux2_names,
    flux_names,
    krea2_names,
    lumina2_names,
    narrowed,
    sd3_names,
)
from tests.engine.test_flows import hash_of
from tests.engine.test_flows import pytestmark as pytestmark
from tests.engine.tiny_flows import tiny_flow
from tests.engine.transformer_files import (
    PREFIX,
    Tensors,
    rounded,
    weights_of,
    write,
    write_gguf,
    z_image_names,
)
from tests.engine.requests import ignore_steps, pixels
from tests.engine.tiny_models import folder_until_exit
from tests.kinds import one_of_each_kind
from tests.recipe.reading import read

PROMPT = "prompt: a red cube"
SMALL = f"{PROMPT}\nsteps: 1"
Z_IMAGE, FLUX, SD35, KLEIN = "Z-Image-Turbo", "FLUX.1-dev", "sd3.5-medium", "FLUX.2-klein"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder without a model."""
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def lend(models: Path, *folders: str) -> None:
    """Folders that lend their parts to a transformer."""
    for name in folders:
        (models / "checkpoints" / name).symlink_to(tiny_flow(name))


def renderer(models: Path) -> Renderer:
    return Renderer(
        EngineOptions(
            models=models, device="cpu", precision="float32", threads=1, start_images=models
        )
    )


def requests(models: Path, checkpoint: str, text: str) -> list[ImageRequest]:
    small = "seed: 7\nexact: true\nsize: 64x64"
    steps = "" if "steps:" in text else "steps: 2"
    (found,) = read(
        f"checkpoint: {checkpoint}\n{small}\n{steps}\n{text}",
        inventory=Catalog(models).inventory(),
    )
    return found.image_requests(lambda kind, name: hash_of(models, kind, name))


def rendered(models: Path, checkpoint: str, text: str = PROMPT) -> RenderedImage:
    (image,) = renderer(models).render(requests(models, checkpoint, text), ignore_steps)
    return image


@cache
def of_the_folder(name: str) -> RenderedImage:
    """The picture of a whole tiny folder, after one step."""
    models = folder_until_exit("whole-")
    (models / "checkpoints").mkdir()
    lend(models, name)
    return rendered(models, name, SMALL)


def same(one: RenderedImage, other: RenderedImage) -> bool:
    assert pixels(one).std() > 1
    return bool(np.abs(pixels(one).astype(int) - pixels(other)).max() <= 1)


LAYOUTS: dict[str, tuple[str, Callable[[Tensors], Tensors], str]] = {
    "Z-Image's names": (Z_IMAGE, z_image_names, ""),
    "Z-Image's names with prefix": (Z_IMAGE, z_image_names, PREFIX),
    "Z-Image in diffusers' names": (Z_IMAGE, dict, ""),
    "FLUX.1 in diffusers' names": (FLUX, dict, ""),
    "FLUX.1's names": (FLUX, flux_names, ""),
    "Qwen-Image with prefix": ("Qwen-Image", dict, PREFIX),
    "Chroma with prefix": ("Chroma1-HD", dict, PREFIX),
    "Chroma's names": ("Chroma1-HD", chroma_names, ""),
    "Lumina 2 with prefix": ("Lumina-Image-2.0", dict, PREFIX),
    "Lumina 2's names": ("Lumina-Image-2.0", lumina2_names, PREFIX),
    "SD 3.5 Medium's names": (SD35, sd3_names, PREFIX),
    "SD 3.5 Medium in diffusers' names": (SD35, dict, ""),
    "SD 3 Medium's names": ("sd3-medium", sd3_names, ""),
    "FLUX.2's names": (KLEIN, flux2_names, ""),
    "FLUX.2 in diffusers' names": (KLEIN, dict, ""),
    "Krea 2's names": ("Krea-2-Turbo", krea2_names, PREFIX),
    "ERNIE-Image with prefix": ("ERNIE-Image-Turbo", dict, PREFIX),
}
# In diffusers' names, in the authors' names, and in those below a prefix.
LAYOUTS_IN_EACH_RUN = (
    *("FLUX.1 in diffusers' names", "Z-Image's names", "Lumina 2's names"),
    *("SD 3.5 Medium's names", "FLUX.2's names"),
)
# Widths that diffusers' converters know of real models, and those of tiny ones.
WIDTHS = {
    "FluxTransformer2DModel": {3072: 32},
    "ChromaTransformer2DModel": {3072: 32},
    "Lumina2Transformer2DModel": {2304: 32, 768: 16},
}


@pytest.fixture(autouse=True)
def _tiny_converters(monkeypatch: pytest.MonkeyPatch) -> None:
    loadable: Any = SINGLE_FILE_LOADABLE_CLASSES
    for name, widths in WIDTHS.items():
        converter = loadable[name]["checkpoint_mapping_fn"]
        tiny = {"checkpoint_mapping_fn": narrowed(converter, widths)}
        monkeypatch.setitem(loadable, name, tiny)


@pytest.mark.parametrize("layout", one_of_each_kind(LAYOUTS, LAYOUTS_IN_EACH_RUN))
def test_a_transformers_file_renders_what_its_folder_renders(models: Path, layout: str) -> None:
    """Whatever its tensors are called."""
    folder, names, prefix = LAYOUTS[layout]
    lend(models, folder)
    write(models / "checkpoints/mine-turbo.safetensors", names(weights_of(folder)), prefix)
    assert same(rendered(models, "mine-turbo", SMALL), of_the_folder(folder))


def test_it_is_completed_by_a_folder_of_its_family(models: Path) -> None:
    """Among folders of all others."""
    lend(models, *{folder for folder, _, _ in LAYOUTS.values()})
    for folder in (Z_IMAGE, FLUX):
        write(models / "checkpoints/mine-turbo.safetensors", weights_of(folder))
        assert same(rendered(models, "mine-turbo", SMALL), of_the_folder(folder))


@pytest.mark.parametrize("name", [Z_IMAGE, FLUX])
def test_another_transformer_renders_another_picture(models: Path, name: str) -> None:
    """The weights of the file count, not those of the folder that completes it."""
    lend(models, name)
    changed = {key: tensor * 1.1 for key, tensor in weights_of(name).items()}
    write(models / "checkpoints/mine-turbo.safetensors", changed)
    assert not same(rendered(models, "mine-turbo", SMALL), of_the_folder(name))


def fp8(tensors: Tensors, scaled: str = "", *, rows: bool = False) -> Tensors:
    """Matrices as fp8; `scaled` is the ending of the names of their scales."""
    made: Tensors = {}
    for name, tensor in tensors.items():
        if not name.endswith(".weight") or tensor.ndim != 2:
            made[name] = tensor
            continue
        scale = torch.ones(())
        if scaled:
            greatest = tensor.abs().amax(1, keepdim=True) if rows else tensor.abs().max()
            scale = greatest / 448
            made[name.removesuffix(".weight") + scaled] = scale.contiguous()
        made[name] = (tensor / scale).to(torch.float8_e4m3fn)
    return made


def comfy(tensors: Tensors) -> Tensors:
    """As ComfyUI writes it since the end of 2025: a description beside each layer."""
    made = fp8(tensors, ".weight_scale")
    told = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    layers = [name for name in made if name.endswith(".weight_scale")]
    return made | {name.replace("weight_scale", "comfy_quant"): told.clone() for name in layers}


FP8: dict[str, Callable[[Tensors], Tensors]] = {
    "plain": fp8,
    "scaled_fp8": lambda tensors: (
        fp8(tensors, ".scale_weight") | {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    ),
    "a scale for each row": lambda tensors: fp8(tensors, ".weight_scale", rows=True),
    "comfy_quant": comfy,
}


@pytest.mark.parametrize("names", [z_image_names, dict])
@pytest.mark.parametrize("kind", FP8)
def test_fp8_weights_are_multiplied_out(
    models: Path, kind: str, names: Callable[[Tensors], Tensors]
) -> None:
    """And compute in the device's usual type: the picture is that of the same numbers."""
    lend(models, Z_IMAGE)
    quantised = FP8[kind](names(weights_of(Z_IMAGE)))
    write(models / "checkpoints/mine-turbo.safetensors", quantised, PREFIX)
    scales = {
        name.rpartition(".")[0]: scale for name, scale in quantised.items() if "scale" in name
    }
    widened = {
        name: tensor.float() * scales.get(name.removesuffix(".weight"), torch.ones(()))
        for name, tensor in quantised.items()
        if not name.endswith(("scale", "scale_weight", "comfy_quant", "scaled_fp8"))
    }
    write(models / "checkpoints/wide-turbo.safetensors", widened)
    image, whole = rendered(models, "mine-turbo", SMALL), of_the_folder(Z_IMAGE)
    assert same(image, rendered(models, "wide-turbo", SMALL))
    assert not same(image, whole)
    assert np.abs(pixels(whole).astype(int) - pixels(image)).mean() < 8


GGUF = [
    *(("Z-Image's names", kind) for kind in ("Q8_0", "Q4_0", "BF16", "F16")),
    *(
        (f"{family} in diffusers' names", kind)
        for family in ("Z-Image", "FLUX.1")
        for kind in ("Q8_0", "BF16")
    ),
    ("Lumina 2's names", "Q8_0"),
    ("SD 3 Medium's names", "Q8_0"),
    ("FLUX.2's names", "Q8_0"),
    ("Krea 2's names", "Q8_0"),
]


@pytest.mark.parametrize(("layout", "kind"), one_of_each_kind(GGUF, GGUF[:4]))
def test_a_gguf_file_renders_what_its_numbers_do(models: Path, layout: str, kind: str) -> None:
    """As a safetensors file with the same numbers; nearly what the whole folder renders."""
    folder, names, _ = LAYOUTS[layout]
    lend(models, folder)
    tensors = names(weights_of(folder))
    write_gguf(models / "checkpoints/mine-turbo-Q.gguf", tensors, kind)
    write(models / "checkpoints/wide-turbo.safetensors", rounded(tensors, kind))
    image = rendered(models, "mine-turbo-Q", SMALL)
    assert same(image, rendered(models, "wide-turbo", SMALL))
    whole = of_the_folder(folder)
    assert 0 < np.abs(pixels(image).astype(int) - pixels(whole)).mean() < 20


@pytest.mark.parametrize("name", EXACT_RUNGS)
def test_a_gguf_file_renders_the_same_on_each_rung(models: Path, name: str) -> None:
    """Quantised weights move as they are."""
    lend(models, Z_IMAGE)
    write_gguf(models / "checkpoints/mine-turbo.gguf", z_image_names(weights_of(Z_IMAGE)), "Q4_0")
    (wanted,) = requests(models, "mine-turbo", PROMPT)
    (image,) = on_rung(renderer(models), RUNGS[name], wanted)
    assert same(image, rendered(models, "mine-turbo"))


OTHER_VARIANTS = {
    "FLUX.1-schnell": FLUX,
    "Z-Image": Z_IMAGE,
    "sd3.5-large-turbo": SD35,
    "FLUX.2-klein-base": KLEIN,
}


@pytest.mark.parametrize("folder", OTHER_VARIANTS)
def test_a_folder_of_another_variant_lends_text_encoders_and_vae(models: Path, folder: str) -> None:
    """The noise schedule, the guidance and the number of layers are the file's own."""
    whole = OTHER_VARIANTS[folder]
    lend(models, whole)
    expected = rendered(models, whole, f"{PROMPT}\nsteps: 3")
    (models / "checkpoints" / whole).unlink()
    (models / "checkpoints" / folder).symlink_to(with_parts_of(models / folder, whole, folder))
    write(models / "checkpoints/mine-turbo.safetensors", weights_of(whole))
    assert same(rendered(models, "mine-turbo", f"{PROMPT}\nsteps: 3"), expected)


def test_a_lender_that_is_gone_or_another_one_fails_what_is_queued(models: Path) -> None:
    """Nothing is rendered with the parts of a folder that the recipe did not mean."""
    lend(models, Z_IMAGE)
    write(models / "checkpoints/mine-turbo.safetensors", weights_of(Z_IMAGE))
    wanted = requests(models, "mine-turbo", PROMPT)
    (models / "checkpoints" / Z_IMAGE).unlink()
    with pytest.raises(RenderFailed, match="It also needs"):
        renderer(models).render(wanted, ignore_steps)
    other = models / "checkpoints/other-turbo"
    shutil.copytree(tiny_flow(Z_IMAGE), other)
    (other / "text_encoder/config.json").write_text(
        (other / "text_encoder/config.json").read_text() + " "
    )
    with pytest.raises(RenderFailed, match="is a different file now"):
        renderer(models).render(wanted, ignore_steps)
    assert rendered(models, "mine-turbo")


def with_parts_of(made: Path, whole: str, folder: str) -> Path:
    """The folder of a variant with the encoders and VAE of another, as real ones have them."""
    made.mkdir()
    (made / "model_index.json").symlink_to(tiny_flow(folder) / "model_index.json")
    for part in tiny_flow(folder).iterdir():
        if part.is_dir():
            own = part.name in ("scheduler", "transformer")
            (made / part.name).symlink_to(tiny_flow(folder if own else whole) / part.name)
    return made


INCOMPLETE: dict[str, tuple[str, Callable[[Tensors], Tensors], str, str]] = {
    "diffusers' names": (
        Z_IMAGE,
        dict,
        "layers.1.feed_forward.w1.weight",
        r"1 weights are missing, starting with layers\.1\.feed_forward\.w1\.weight\.",
    ),
    "Z-Image's names": (
        Z_IMAGE,
        z_image_names,
        "layers.1.feed_forward.w1.weight",
        r"1 weights are missing, starting with layers\.1\.feed_forward\.w1\.weight\.",
    ),
    "SD 3's names": (
        "sd3-medium",
        sd3_names,
        "joint_blocks.0.x_block.attn.proj.bias",
        "is incomplete: some of its weights are missing",
    ),
}


@pytest.mark.parametrize("names", INCOMPLETE)
def test_a_file_that_lacks_weights_is_refused(models: Path, names: str) -> None:
    """Instead of an error of torch about tensors without data, or of diffusers about a name."""
    folder, rename, weight, message = INCOMPLETE[names]
    lend(models, folder)
    tensors = rename(weights_of(folder))
    del tensors[weight]
    write(models / "checkpoints/mine-turbo.safetensors", tensors)
    with pytest.raises(RenderFailed, match=message):
        rendered(models, "mine-turbo")


def test_weights_that_no_such_model_has_are_named(models: Path) -> None:
    """They would be dropped without a word."""
    lend(models, FLUX)
    tensors = weights_of(FLUX) | {"controlnet.weight": torch.zeros(8, 8)}
    write(models / "checkpoints/mine.safetensors", tensors)
    with pytest.raises(RenderFailed, match=r"do not belong to its family, starting with controln"):
        rendered(models, "mine")


def test_weights_of_another_size_are_named(models: Path) -> None:
    """A folder of another size does not complete it."""
    lend(models, Z_IMAGE)
    tensors = weights_of(Z_IMAGE)
    tensors["layers.1.feed_forward.w1.weight"] = torch.zeros(8, 8)
    write(models / "checkpoints/mine.safetensors", tensors)
    with pytest.raises(RenderFailed, match="damaged"):
        rendered(models, "mine")
