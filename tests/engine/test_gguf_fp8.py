"""Transformers, text encoders and VAEs in files of their own, in full, as fp8 and as GGUF.

What is read holds the weights of the folder that the files were made from.
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from safetensors.torch import load_file, save_file

from picowatch.catalog import Catalog, Model
from picowatch.catalog.encoders import ENCODERS
from picowatch.catalog.parts import ASSETS
from picowatch.engine.devices import choose_target
from picowatch.engine.load import bytes_of_parts, load_part, load_vae
from picowatch.errors import RenderFailed
from tests.engine.demo import load
from tests.engine.ldm import ldm_vae, weights
from tests.engine.original_names import z_image_names
from tests.engine.part_files import (
    ALONE,
    CHROMA,
    ENCODERS_OF,
    FLUX,
    KLEIN,
    LUMINA,
    QWEN,
    SCALED_FP8,
    SD3,
    SD35,
    Z_IMAGE,
    comfy,
    flux2_vae,
    fp8,
    pretend,
    tensors_of,
    wan,
    whole_file,
    widened,
)
from tests.engine.tiny_flows import tiny_flow
from tests.engine.transformer_files import (
    PREFIX,
    Tensors,
    rounded,
    weights_of,
    write,
    write_gguf,
)

# diffusers says so of a class that its own Chroma uses.
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
CPU = torch.device("cpu")
FULL = choose_target("cpu", "float32")
_T: Any = transformers


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder without a model."""
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    return tmp_path / "models"


def found(models: Path, name: str = "mine-turbo") -> Model:
    return Catalog(models).find("checkpoint", name)


def lend(models: Path, folder: str) -> Model:
    """A folder that lends its parts to a transformer."""
    (models / "checkpoints" / folder).symlink_to(tiny_flow(folder))
    return found(models, folder)


def state(model: Any) -> Tensors:
    """Return the weights, for a text encoder only those of its language model."""
    if isinstance(model, _T.Qwen2_5_VLForConditionalGeneration):
        model = model.model.language_model
    elif isinstance(model, _T.Qwen3ForCausalLM):
        model = model.model
    return dict(model.state_dict())


def same(ours: Any, theirs: Tensors) -> bool:
    held = state(ours)
    assert held.keys() == theirs.keys()
    return all(torch.equal(held[name], tensor) for name, tensor in theirs.items())


def read(model: Model, part: str = "transformer") -> Any:
    return load_part(model, FULL, CPU, part)


LAYOUTS: dict[str, tuple[str, Callable[[Tensors], Tensors], str]] = {
    "Z-Image's names": (Z_IMAGE, z_image_names, ""),
    "FLUX.1 in diffusers' names": (FLUX, dict, ""),
    "Qwen-Image with prefix": (QWEN, dict, PREFIX),
    "Chroma with prefix": (CHROMA, dict, PREFIX),
    "Lumina 2 with prefix": (LUMINA, dict, PREFIX),
    "SD 3.5 Medium with prefix": (SD35, dict, PREFIX),
    "SD 3 Medium in diffusers' names": (SD3, dict, ""),
    "FLUX.2 in diffusers' names": (KLEIN, dict, ""),
    "Krea 2 with prefix": ("Krea-2-Turbo", dict, PREFIX),
    "ERNIE-Image with prefix": ("ERNIE-Image-Turbo", dict, PREFIX),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_transformers_file_holds_what_its_folder_holds(models: Path, layout: str) -> None:
    """Whatever its tensors are called."""
    folder, names, prefix = LAYOUTS[layout]
    lend(models, folder)
    write(models / "checkpoints/mine-turbo.safetensors", names(weights_of(folder)), prefix)
    assert same(read(found(models)), weights_of(folder))


FP8: dict[str, Callable[[Tensors], Tensors]] = {
    "plain": fp8,
    "scaled_fp8": lambda tensors: fp8(tensors, ".scale_weight") | SCALED_FP8,
    "a scale for each row": lambda tensors: fp8(tensors, ".weight_scale", rows=True),
    "comfy_quant": comfy,
}


@pytest.mark.parametrize("kind", FP8)
def test_fp8_weights_are_multiplied_out(models: Path, kind: str) -> None:
    """Scales, if any, are applied: the values that are read are the same."""
    lend(models, Z_IMAGE)
    narrow = FP8[kind](z_image_names(weights_of(Z_IMAGE)))
    write(models / "checkpoints/mine-turbo.safetensors", narrow, PREFIX)
    write(models / "checkpoints/wide-turbo.safetensors", widened(narrow))
    ours = read(found(models))
    assert same(ours, state(read(found(models, "wide-turbo"))))
    assert not same(ours, weights_of(Z_IMAGE))


GGUF = [
    *(("Z-Image's names", kind) for kind in ("Q8_0", "Q4_0", "BF16")),
    *(
        (layout, "Q8_0")
        for layout in ("FLUX.1 in diffusers' names", "SD 3 Medium in diffusers' names")
    ),
]


@pytest.mark.parametrize(("layout", "kind"), GGUF)
def test_a_gguf_file_holds_the_same_numbers(models: Path, layout: str, kind: str) -> None:
    """Matrices stay quantised in memory, and each layer is widened when it computes."""
    folder, names, _ = LAYOUTS[layout]
    lend(models, folder)
    tensors = names(weights_of(folder))
    write_gguf(models / "checkpoints/mine-turbo.gguf", tensors, kind)
    write(models / "checkpoints/wide-turbo.safetensors", rounded(tensors, kind))
    model = found(models, "mine-turbo.gguf")
    ours, theirs = read(model), state(read(found(models, "wide-turbo")))
    held = {
        name: dequantize_gguf_tensor(one) if isinstance(one, GGUFParameter) else one
        for name, one in ours.state_dict(keep_vars=True).items()
    }
    assert held.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # diffusers widens in float16.
        assert torch.allclose(held[name].float(), tensor, rtol=1e-3, atol=1e-4), name
    nbytes = sum(tensor.nbytes for tensor in ours.state_dict().values())
    assert bytes_of_parts(model, FULL)["denoiser"] == pytest.approx(nbytes, rel=0.001)
    quantised = any(isinstance(one, GGUFParameter) for one in ours.parameters())
    assert quantised == kind.startswith("Q")


@pytest.mark.parametrize("names", [z_image_names, dict])
def test_a_file_that_lacks_weights_or_has_others_is_refused(
    models: Path, names: Callable[[Tensors], Tensors]
) -> None:
    """Otherwise torch would report tensors without data."""
    lend(models, Z_IMAGE)
    weight, tensors = "layers.1.feed_forward.w1.weight", names(weights_of(Z_IMAGE))
    path = write(
        models / "checkpoints/mine-turbo.safetensors", tensors | {weight: torch.zeros(8, 9)}
    )
    with pytest.raises(RenderFailed, match=rf"{re.escape(weight)} is \[8, 9\], not \[\d+, \d+\]"):
        read(found(models))
    del tensors[weight]
    write(path, tensors)
    with pytest.raises(RenderFailed, match="transformer of 'mine-turbo' is incomplete: 1 weights"):
        read(found(models))


@pytest.mark.parametrize("folder", ALONE)
def test_a_whole_checkpoint_needs_nothing_else(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """All parts are the folder's, the hash is that of the file, and each part counts once."""
    pretend(monkeypatch, models.parent / "assets", folder)
    path = write(models / "checkpoints/mine-turbo.safetensors", whole_file(folder))
    model = found(models)
    whole = load(lend(models, folder), FULL, CPU)
    ours = load(model, FULL, CPU)
    assert ours.keys() == whole.keys()
    for name in ("transformer", "vae", *ENCODERS_OF[folder]):
        assert same(ours[name], state(whole[name])), name
    assert Catalog(models).sha256(model) == hashlib.sha256(path.read_bytes()).hexdigest()
    one, other = (bytes_of_parts(each, FULL) for each in (model, found(models, folder)))
    assert one["denoiser"] == other["denoiser"]
    assert one["vae"] == pytest.approx(other["vae"], rel=0.01)


@pytest.mark.parametrize("folder", [CHROMA, LUMINA, QWEN])
def test_what_is_inside_is_read_instead_of_what_a_folder_lends(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """The folder only adds what the file lacks: here it has other text encoders and another VAE."""
    pretend(monkeypatch, models.parent / "assets", folder)
    lender = shutil.copytree(tiny_flow(folder), models / "checkpoints/lender")
    for part in ("vae", *ENCODERS_OF[folder]):
        (path,) = (lender / part).glob("*.safetensors")
        changed = {name: tensor * 1.3 for name, tensor in load_file(path).items()}
        save_file(changed, path, metadata={"format": "pt"})
    write(models / "checkpoints/mine.safetensors", whole_file(folder))
    mine, theirs, whole = found(models, "mine"), found(models, "lender"), lend(models, folder)
    for part in ("vae", *ENCODERS_OF[folder]):
        assert same(read(mine, part), state(read(whole, part)))
        assert not same(read(mine, part), state(read(theirs, part)))


FILES = {"CLIP L": "clip_l", "CLIP G": "clip_g", "T5 XXL": "t5xxl_fp16", "Qwen3 4B": "qwen_3_4b"}
VAE_FILES = {SD35: "sd3_vae", SD3: "sd3_vae", KLEIN: "flux2-vae"}


@pytest.mark.parametrize("folder", ALONE)
def test_files_complete_a_transformer(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Text encoders as fp8 are widened. A VAE of FLUX.1's looks like that of SD 3."""
    pretend(monkeypatch, models.parent / "assets", folder)
    write(models / "checkpoints/mine-turbo.safetensors", weights_of(folder))
    narrow = {}
    for part, encoder in ENCODERS_OF[folder].items():
        narrow[part] = fp8(tensors_of(folder, part), ".scale_weight") | SCALED_FP8
        write(models / f"text_encoders/{FILES[encoder]}.safetensors", narrow[part])
    write(models / "vae/ae.safetensors", tensors_of(FLUX, "vae"))
    if folder in VAE_FILES:
        write(models / f"vae/{VAE_FILES[folder]}.safetensors", tensors_of(folder, "vae"))
    ours, whole = load(found(models), FULL, CPU), load(lend(models, folder), FULL, CPU)
    theirs = (
        whole["vae"] if folder in VAE_FILES or folder == FLUX else read(lend(models, FLUX), "vae")
    )
    assert same(ours["vae"], state(theirs))
    for part, tensors in narrow.items():
        wide = widened(tensors)
        held = state(ours[part])
        for name, tensor in held.items():
            spelled = [one for one in (name, f"model.{name}", f"text_model.{name}") if one in wide]
            if spelled and "projection" not in name:
                assert torch.equal(tensor, wide[spelled[0]]), name
        assert held.keys() == state(whole[part]).keys()


def test_clip_l_is_read_without_a_projection(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files made for other models have one; OpenCLIP's own name of G's is transposed."""
    pretend(monkeypatch, models.parent / "assets", SD3)
    write(models / "checkpoints/mine-turbo.safetensors", weights_of(SD3))
    write(models / "vae/sd3_vae.safetensors", tensors_of(SD3, "vae"))
    clip_l = tensors_of(SD3, "text_encoder") | {"text_projection.weight": torch.ones(32, 32)}
    write(models / "text_encoders/clip_l.safetensors", clip_l)
    clip_g = tensors_of(SD3, "text_encoder_2")
    clip_g["text_projection"] = clip_g.pop("text_projection.weight").T
    write(models / "text_encoders/clip_g.safetensors", clip_g)
    ours, whole = found(models), lend(models, SD3)
    for part in ENCODERS_OF[SD3]:
        assert same(read(ours, part), state(read(whole, part)))


VAES: dict[str, tuple[Callable[[Path], Tensors], ...]] = {
    FLUX: (weights, ldm_vae),
    SD3: (ldm_vae,),
    KLEIN: (weights, flux2_vae),
    QWEN: (weights, wan),
    "AuraFlow": (ldm_vae,),
    "Sana": (weights,),
}


@pytest.mark.parametrize("checkpoint", VAES)
def test_a_recipes_vae_is_read_for_each_family(models: Path, checkpoint: str) -> None:
    """A folder, or a file in its authors' names or diffusers'."""
    own = tiny_flow(checkpoint) / "vae"
    config = json.loads((own / "config.json").read_text())
    torch.manual_seed(1)
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    theirs.save_pretrained(models / "vae/folder")
    for number, names in enumerate(VAES[checkpoint]):
        write(models / f"vae/file-{number}.safetensors", names(models / "vae/folder"))
    checkpoint_model, catalog = lend(models, checkpoint), Catalog(models)
    for path in (models / "vae").iterdir():
        vae = catalog.find("vae", path.stem)
        ours = load_vae(checkpoint_model, vae, FULL, CPU)
        assert same(ours, state(theirs)), path.name
        for key in ("scaling_factor", "shift_factor", "latents_mean"):
            assert ours.config.get(key) == theirs.config.get(key)


# Classes, folders of the package's configs, and the billions of numbers that the cards say; T5's
# embeddings count twice.
FULL_SIZE = {
    "FLUX.1 dev": (diffusers.FluxTransformer2DModel, "flux/transformer", 11.9),
    "FLUX.1 schnell": (diffusers.FluxTransformer2DModel, "flux/schnell/transformer", 11.9),
    "FLUX.1 Fill": (diffusers.FluxTransformer2DModel, "flux/fill/transformer", 11.9),
    "SD 3 Medium": (diffusers.SD3Transformer2DModel, "sd3/transformer", 2.1),
    "SD 3.5 Medium": (diffusers.SD3Transformer2DModel, "sd3/3.5-medium/transformer", 2.5),
    "SD 3.5 Large": (diffusers.SD3Transformer2DModel, "sd3/3.5-large/transformer", 8.1),
    "klein 4B": (diffusers.Flux2Transformer2DModel, "flux2/transformer", 3.9),
    "klein 9B": (diffusers.Flux2Transformer2DModel, "flux2/klein-9b/transformer", 9.1),
    "Z-Image": (diffusers.ZImageTransformer2DModel, "z_image/transformer", 6.2),
    "CLIP L": (_T.CLIPTextModel, ENCODERS["CLIP L"].config, 0.1),
    "CLIP G": (_T.CLIPTextModelWithProjection, ENCODERS["CLIP G"].config, 0.7),
    "T5 XXL": (_T.T5EncoderModel, ENCODERS["T5 XXL"].config, 4.9),
    "Qwen3 4B": (_T.Qwen3Model, ENCODERS["Qwen3 4B"].config, 4.0),
    "Qwen3 8B": (_T.Qwen3Model, ENCODERS["Qwen3 8B"].config, 7.6),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_packages_configs_are_as_large_as_the_cards_say(name: str) -> None:
    """Text encoders have the shapes by which files are recognised, too."""
    kind, folder, billions = FULL_SIZE[name]
    config = json.loads((ASSETS / folder / "config.json").read_text())
    with torch.device("meta"):
        model = kind(kind.config_class(**config)) if name in ENCODERS else kind.from_config(config)
    shapes = {one: tuple(tensor.shape) for one, tensor in model.state_dict().items()}
    assert round(sum(map(math.prod, shapes.values())) / 1e9, 1) == billions
    if known := ENCODERS.get(name):
        tensor = known.tensor.removeprefix("model.")
        bare = tensor.removeprefix("text_model.")
        assert known.shape == shapes[tensor if tensor in shapes else bare]


def test_the_packages_vocabularies_are_those_of_the_models() -> None:
    """The numbers of words are those of their authors' tokenizers."""
    t5_words = _T.T5Tokenizer.from_pretrained(ASSETS / "t5/tokenizer")
    assert t5_words("The house is wonderful.").input_ids == [37, 629, 19, 1627, 5, 1]
    qwen_words = _T.Qwen2Tokenizer.from_pretrained(ASSETS / "qwen3/tokenizer")
    assert qwen_words("a red cube").input_ids == [64, 2518, 23739]
    asked = [{"role": "user", "content": "a red cube"}]
    assert qwen_words.apply_chat_template(
        asked, tokenize=False, add_generation_prompt=True, enable_thinking=True
    ) == ("<|im_start|>user\na red cube<|im_end|>\n<|im_start|>assistant\n")
