"""Transformers, text encoders and VAEs in files of their own, in full, as fp8 and as GGUF.

What is read holds the weights of the folder that the files were made from.
"""

import json
import math
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from diffusers.quantizers.bfl import utils as bfl
from diffusers.quantizers.gguf.utils import GGUFParameter, dequantize_gguf_tensor
from safetensors.torch import load_file, save_file
from torch.nn.functional import pad

from picowatch.catalog import Catalog, Model, embedded
from picowatch.catalog.encoders import ENCODERS
from picowatch.catalog.parts import ASSETS
from picowatch.engine.model.devices import choose_target
from picowatch.engine.model.load import bytes_of_parts, load_vae
from picowatch.engine.model.tensors import read_tensors
from tests.engine.adapters import write
from tests.engine.demo import CPU, assert_equal, load, read_part
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.ldm import weights
from tests.engine.original_names import (
    Tensors,
    anima_names,
    flux2_vae_names,
    flux3_names,
    ldm_vae_names,
    wan_names,
    z_image_names,
)
from tests.engine.part_files import (
    ALONE,
    ANIMA,
    ENCODERS_OF,
    FLUX,
    KLEIN,
    PREFIX,
    QWEN,
    SD3,
    SD35,
    Z_IMAGE,
    pretend,
    rounded,
    tensors_of,
    weights_of,
    write_gguf,
)
from tests.engine.requests import difference, draw
from tests.engine.rungs import lora_of, plain_and_styled
from tests.engine.sdnq_packer import pack_folder
from tests.engine.test_memory_table import shapes
from tests.engine.tiny_flows import tiny_flow

WRITTEN = Path(__file__).with_name("comfy_kitchen.safetensors")
_T: Any = transformers
HALF = choose_target("cpu", "bfloat16")
FLUX3 = "FLUX.3-klein"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "models/checkpoints").mkdir(parents=True)
    return tmp_path / "models"


def found(models: Path, name: str = "mine-turbo") -> Model:
    return Catalog(models).find("checkpoint", name)


def lend(models: Path, folder: str) -> Model:
    (models / "checkpoints" / folder).symlink_to(tiny_flow(folder))
    return found(models, folder)


def state(model: Any) -> Tensors:
    """Return the weights, for a text encoder only those of its language model."""
    if isinstance(model, _T.Qwen2_5_VLForConditionalGeneration):
        model = model.model.language_model
    elif isinstance(model, _T.Qwen3ForCausalLM):
        model = model.model
    return {name.replace(".narrow", ".weight"): value for name, value in model.state_dict().items()}


def same(ours: Any, theirs: Tensors) -> bool:
    held = state(ours)
    assert held.keys() == theirs.keys()
    return all(torch.equal(held[name].to(tensor.dtype), tensor) for name, tensor in theirs.items())


def read(model: Model, part: str = "transformer") -> Any:
    return read_part(model, part)


def changed(folder: str, copy: Path, *parts: str) -> None:
    shutil.copytree(tiny_flow(folder), copy)
    for part in parts:
        for file in (copy / part).glob("*.safetensors"):
            tensors = {name: tensor * 1.3 for name, tensor in load_file(file).items()}
            save_file(tensors, file, metadata={"format": "pt"})


# As ConvRot's files have them.
FUSED = (r"([qkv])_proj\.weight", lambda found: f"qkv.weight#{'qkv'.index(found[1])}")
# A transformer's file in its authors' names; those of the others are diffusers'.
AUTHORS: dict[str, Callable[[Tensors], Tensors]] = {
    Z_IMAGE: z_image_names,
    ANIMA: lambda tensors: anima_names(tensors, weights_of(ANIMA, "text_conditioner")),
    FLUX3: lambda tensors: flux3_names(tensors, FUSED),
}


@pytest.mark.parametrize("folder", [*AUTHORS, "Krea-2-Turbo", "ERNIE-Image-Turbo"])
def test_a_folder_completes_a_transformers_file(models: Path, folder: str) -> None:
    """Only the folder's config counts; layers that stay in float32 do, whatever they are called."""
    parts = ("transformer", "text_conditioner")[: 1 + (folder == ANIMA)]
    changed(folder, models / "checkpoints" / folder, *parts)
    tensors = AUTHORS.get(folder, dict)(weights_of(folder))
    write(models / f"checkpoints/mine-{folder}.safetensors", tensors, prefix=PREFIX)
    ours, whole = found(models, f"mine-{folder}"), found(flow_models(folder), folder)
    for part in parts:
        assert_equal(read_part(ours, part, HALF), read_part(whole, part, HALF))


def fp8(tensors: Tensors, scaled: str = "", *, rows: bool = False) -> Tensors:
    """Return matrices as fp8; `scaled` is the ending of the names of their scales."""
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


SCALED_FP8 = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}


def widened(tensors: Tensors) -> Tensors:
    made: Tensors = {}
    for name, tensor in tensors.items():
        if name.endswith(("scale", "scale_weight", "scale_2", "comfy_quant", "scaled_fp8")):
            continue
        stem = name.removesuffix(".weight")
        endings = (".scale_weight", ".weight_scale", ".weight_scale_2")
        scales = [tensors[stem + ending] for ending in endings if stem + ending in tensors]
        if tensor.dtype == torch.uint8:
            made[name] = bfl.dequantize_nvfp4(tensor, *scales)
        else:
            scale = scales[0] if scales else torch.ones(())
            made[name] = tensor.float() * (scale[:, None] if scale.ndim == 1 else scale)
    return made


def quantised_by(quantise: Callable[[torch.Tensor], Any], *endings: str) -> Any:
    """Return a form of diffusers: what it makes of a matrix has these endings."""

    def made(tensors: Tensors) -> Tensors:
        found = dict(tensors)
        for name, value in tensors.items():
            if name.endswith(".weight") and value.ndim == 2 and value.shape[1] % 16 == 0:
                found |= zip((name, *(name + end for end in endings)), quantise(value), strict=True)
        return found

    return made


FP8: dict[str, Callable[[Tensors], Tensors]] = {
    "plain": fp8,
    "scaled_fp8": lambda tensors: fp8(tensors, ".scale_weight") | SCALED_FP8,
    "a scale for each row": lambda tensors: fp8(tensors, ".weight_scale", rows=True),
    "fp8r": quantised_by(bfl.quantize_fp8r, "_scale"),  # Black Forest Labs'
    "nvfp4": quantised_by(bfl.quantize_nvfp4, "_scale", "_scale_2"),  # ModelOpt's
}


@pytest.mark.parametrize("kind", FP8)
def test_fp8_weights_are_multiplied_out(models: Path, kind: str) -> None:
    """Scales, if any, are applied: the values that are read are the same."""
    lend(models, Z_IMAGE)
    narrow = FP8[kind](z_image_names(weights_of(Z_IMAGE)))
    write(models / "checkpoints/mine-turbo.safetensors", narrow, prefix=PREFIX)
    write(models / "checkpoints/wide-turbo.safetensors", widened(narrow))
    ours = read(found(models))
    assert same(ours, state(read(found(models, "wide-turbo"))))
    assert not same(ours, weights_of(Z_IMAGE))


@pytest.mark.parametrize("folder", [FLUX, "demo"])
def test_quantize_halves_a_full_file_and_is_part_of_the_picture(models: Path, folder: str) -> None:
    """The request says it, the picture differs a little, and what is not quantised stays loaded."""
    checkpoint = embedded("checkpoint") if folder == "demo" else lend(models, folder)
    text = "prompt: a red cube"
    (plain,) = requests_of(models, folder, text)
    (rounded_,) = requests_of(models, folder, f"{text}\nquantize: fp8")
    assert "quantize" not in plain.as_dict() and plain.digest != rounded_.digest
    renderer = flow_renderer(models)
    one, two, again = (draw(renderer, each)[0] for each in (plain, rounded_, plain))
    assert one.pixels == again.pixels
    assert 0 < difference(one, two) < 128
    name = "unet" if folder == "demo" else "transformer"
    narrow = read_part(checkpoint, name, quantize="fp8")
    nbytes = sum(tensor.nbytes for tensor in narrow.state_dict().values())
    assert bytes_of_parts(checkpoint, CPU, "fp8").denoiser == pytest.approx(nbytes, rel=0.01)
    assert nbytes < 0.6 * bytes_of_parts(checkpoint, CPU).denoiser


def test_every_form_of_comfyui_is_multiplied_out(tmp_path: Path) -> None:
    """The file was written by comfy-kitchen 0.2.40, half of it with descriptions beside layers.

    Its layers are random ones of this seed, which forms round by at most so much. As in ComfyUI,
    the size of a rotation may be told among params, and be a fraction.
    """
    told = json.dumps(
        {"format": "int8_tensorwise", "params": {"convrot": True, "convrot_groupsize": 64.0}}
    )
    tensors = {name: tensor for name, tensor in load_file(WRITTEN).items() if "blocks.2" in name}
    tensors["blocks.2.comfy_quant"] = torch.tensor(list(told.encode()), dtype=torch.uint8)
    path = write(tmp_path / "it.safetensors", tensors)
    bounds = {"fp8": 0.003, "int8": 0.0004, "ConvRot": 0.0007, "nvfp4": 0.012}
    read, told_among = (
        read_tensors(file, lambda _: torch.float32, CPU.device) for file in (WRITTEN, path)
    )
    assert len(read) == len(bounds)
    torch.manual_seed(7)
    for number, (form, bound) in enumerate(bounds.items()):
        weight = torch.randn(144, 128) * 0.02
        assert (read[f"blocks.{number}.weight"] - weight).abs().max() < bound, form
    assert torch.equal(told_among["blocks.2.weight"], read["blocks.2.weight"])


def comfy_nvfp4(tensors: Tensors) -> Tensors:
    """ComfyUI's form of nvfp4: filled matrices, first numbers in upper halves, scales in tiles.

    Scales are written as bytes. Every other matrix is for smoothed inputs.
    """
    made = dict(tensors)
    told = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)
    names = [name for name, value in tensors.items() if name.endswith("weight") and value.ndim == 2]
    for number, name in enumerate(names):
        layer, (rows, columns) = name.removesuffix(".weight"), tensors[name].shape
        smoothing = torch.linspace(0.8, 1.2, columns) if number % 2 else torch.ones(columns)
        filled = pad(tensors[name] / smoothing, (0, -columns % 16, 0, -rows % 16))
        packed, scale, second = bfl.quantize_nvfp4(filled)
        blocks = pad(scale.view(torch.uint8), (0, -scale.shape[1] % 4, 0, -scale.shape[0] % 128))
        tiles = blocks.reshape(len(blocks) // 128, 4, 32, -1, 4).permute(0, 3, 2, 1, 4)
        made |= {
            name: packed >> 4 | packed << 4,
            f"{layer}.weight_scale": tiles.reshape(blocks.shape),
            f"{layer}.weight_scale_2": second,
            f"{layer}.comfy_quant": told.clone(),
        }
        if number % 2:
            made[f"{layer}.pre_quant_scale"] = smoothing
    return made


def test_comfyuis_nvfp4_is_read_whatever_its_sides(models: Path) -> None:
    """What fills a matrix is cut off; each number is rounded by a quarter of the greatest."""
    lend(models, Z_IMAGE)
    tensors = weights_of(Z_IMAGE)
    assert any(
        value.ndim == 2 and value.shape[0] % 16 and "w1" in name for name, value in tensors.items()
    )
    write(models / "checkpoints/mine-turbo.safetensors", comfy_nvfp4(z_image_names(tensors)))
    ours = state(read(found(models)))
    for name, theirs in tensors.items():
        assert ours[name].shape == theirs.shape
        assert (ours[name] - theirs).abs().max() <= theirs.abs().max() / 4, name


def halves(tensors: Tensors) -> Tensors:
    return {name: tensor.bfloat16() for name, tensor in tensors.items()}


@pytest.mark.parametrize(("folder", "kind"), [(Z_IMAGE, fp8), (QWEN, halves)])
def test_narrow_weights_stay_narrow_and_draw_the_same(
    models: Path, folder: str, kind: Callable[[Tensors], Tensors]
) -> None:
    """Also with a LoRA. Each layer is widened when it computes; memory is what was reckoned."""
    lend(models, folder)
    narrow = kind(weights_of(folder))
    write(models / "checkpoints/mine-turbo.safetensors", narrow)
    wide = {name: weight.float() for name, weight in narrow.items()}
    write(models / "checkpoints/wide-turbo.safetensors", wide)
    lora = lora_of(models, folder)
    ours, changed = plain_and_styled(models, "mine-turbo", lora)
    theirs, expected = plain_and_styled(models, "wide-turbo", lora)
    assert (ours == theirs).all()
    assert abs(changed - expected).max() <= 1
    assert abs(changed - ours).max() > 20
    model = found(models)
    nbytes = sum(tensor.nbytes for tensor in read(model).state_dict().values())
    layers = [layer for name, layer in narrow.items() if name.endswith("weight") and layer.ndim > 1]
    in_full = sum(weight.nbytes for weight in wide.values())
    assert nbytes <= in_full - 2 * sum(layer.numel() for layer in layers)
    assert bytes_of_parts(model, CPU).denoiser == pytest.approx(nbytes, rel=0.05)


@pytest.mark.parametrize("name", ["fp8-dev", "Q8_0-dev.gguf", "packed"])
def test_what_stays_narrow_is_compiled_wide(models: Path, name: str) -> None:
    """OpenVINO's graph is in float32 on any CPU; the module, which draws exact pictures, stays."""
    lend(models, FLUX)
    write(models / "checkpoints/fp8-dev.safetensors", fp8(weights_of(FLUX)))
    write_gguf(models / "checkpoints/Q8_0-dev.gguf", weights_of(FLUX), "Q8_0")
    svd = {"weights_dtype": "int4", "use_svd": True, "svd_rank": 4}
    packed = models / "checkpoints/packed"
    pack_folder(tiny_flow(FLUX), packed, models.parent / "wide", {"transformer": svd})
    settings: dict[str, Any] = {"precision": "bfloat16", "cache": models.parent / "cache"}
    fast, plain = (flow_renderer(models, compile=how, **settings) for how in (True, False))
    for exact in ("false", "true"):
        (request,) = requests_of(models, name, f"prompt: a red cube\nexact: {exact}")
        (image,), (expected,) = (draw(renderer, request) for renderer in (fast, plain))
        assert (image.compiled, image.warnings) == (exact == "false", ())
        assert difference(image, expected) <= (30 if exact == "false" else 0)


@pytest.mark.parametrize(("folder", "kind"), [(Z_IMAGE, "Q4_0"), (FLUX, "BF16")])
def test_a_gguf_file_holds_the_same_numbers(models: Path, folder: str, kind: str) -> None:
    """Matrices stay quantised in memory, and each layer is widened when it computes."""
    lend(models, folder)
    tensors = weights_of(folder)
    tensors = z_image_names(tensors) if folder == Z_IMAGE else tensors
    write_gguf(models / "checkpoints/mine-turbo.gguf", tensors, kind)
    write(models / "checkpoints/wide-turbo.safetensors", rounded(tensors, kind))
    model = found(models, "mine-turbo.gguf")
    ours, theirs = read(model), state(read(found(models, "wide-turbo")))
    held = {
        name: dequantize_gguf_tensor(weight) if isinstance(weight, GGUFParameter) else weight
        for name, weight in ours.state_dict(keep_vars=True).items()
    }
    assert held.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # diffusers widens in float16.
        assert torch.allclose(held[name].float(), tensor, rtol=1e-3, atol=1e-4), name
    nbytes = sum(tensor.nbytes for tensor in ours.state_dict().values())
    assert bytes_of_parts(model, CPU).denoiser == pytest.approx(nbytes, rel=0.001)
    quantised = any(isinstance(weight, GGUFParameter) for weight in ours.parameters())
    assert quantised == kind.startswith("Q")


def whole_file(folder: str) -> Tensors:
    made = {f"{PREFIX}{name}": weight for name, weight in weights_of(folder).items()}
    vae = "first_stage_model." if folder in (SD3, SD35) else "vae."
    prefixes = {"vae": vae} | {
        part: f"text_encoders.{encoder.replace(' ', '_')}.transformer."
        for part, encoder in ENCODERS_OF[folder].items()
    }
    for part, prefix in prefixes.items():
        made |= {f"{prefix}{name}": tensor for name, tensor in tensors_of(folder, part).items()}
    return made


@pytest.mark.parametrize("folder", [name for name in ENCODERS_OF if name != ANIMA])
def test_a_whole_checkpoint_is_read_from_its_file(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """Some need a folder for the rest: here it has other text encoders and another VAE."""
    pretend(monkeypatch, models.parent / "assets", folder)
    path = write(models / "checkpoints/mine-turbo.safetensors", whole_file(folder))
    parts = ("vae", *ENCODERS_OF[folder])
    if folder in ALONE:
        assert Catalog(models).sha256(found(models)) == sha256(path.read_bytes()).hexdigest()
    else:
        changed(folder, models / "checkpoints/lender", *parts)
    ours = load(found(models))
    whole = load(lend(models, folder))
    assert ours.keys() >= {"transformer", "scheduler", *parts}
    for name in ("transformer", *parts):
        assert same(ours[name], state(whole[name])), name


VAE_FILES = {SD35: "sd3_vae", SD3: "sd3_vae", KLEIN: "flux2-vae", ANIMA: "qwen_image_vae"}


@pytest.mark.parametrize("folder", [*ALONE, ANIMA])
def test_files_complete_a_transformer(
    models: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    """A VAE of FLUX.1's looks like that of SD 3.

    CLIP L is read without a projection, which files made for other models have; OpenCLIP's own
    projection of G is transposed.
    """
    pretend(monkeypatch, models.parent / "assets", folder)
    transformer = AUTHORS.get(folder, dict)(weights_of(folder))
    write(models / "checkpoints/mine-turbo.safetensors", transformer)
    for part, encoder in ENCODERS_OF[folder].items():
        tensors = tensors_of(folder, part)
        if encoder == "CLIP L":
            tensors["text_projection.weight"] = torch.ones(32, 32)
        elif encoder == "CLIP G":
            tensors["text_projection"] = tensors.pop("text_projection.weight").T
        write(models / f"text_encoders/{ENCODERS[encoder].file}.safetensors", tensors)
    write(models / "vae/ae.safetensors", tensors_of(FLUX, "vae"))
    if folder in VAE_FILES:
        write(models / f"vae/{VAE_FILES[folder]}.safetensors", tensors_of(folder, "vae"))
    ours, whole = load(found(models)), load(lend(models, folder))
    if folder == Z_IMAGE:
        whole["vae"] = read(lend(models, FLUX), "vae")
    assert ours.keys() == whole.keys()
    for part in ("transformer", "vae", *ENCODERS_OF[folder]):
        assert same(ours[part], state(whole[part])), part


def in_old_names(tensors: Tensors) -> Tensors:
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for modern, old in new.items():
        tensors = {name.replace(f".{modern}.", f".{old}."): t for name, t in tensors.items()}
    return tensors


def cut_out(tensors: Tensors) -> Tensors:
    return {f"first_stage_model.{name}": tensor for name, tensor in ldm_vae_names(tensors).items()}


VAES: dict[str, tuple[Callable[[Tensors], Tensors], ...]] = {
    "demo": (dict, in_old_names, ldm_vae_names, cut_out),
    FLUX: (dict, ldm_vae_names),
    SD3: (ldm_vae_names,),
    KLEIN: (dict, flux2_vae_names),
    QWEN: (dict, wan_names),
}


@pytest.mark.parametrize("name", VAES)
def test_a_recipes_vae_is_read_for_each_family(models: Path, name: str) -> None:
    """A folder, or a file in its authors' names or diffusers', with the checkpoint's settings."""
    checkpoint = embedded("checkpoint") if name == "demo" else lend(models, name)
    config = json.loads((checkpoint.path / "vae/config.json").read_text())
    torch.manual_seed(1)
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    theirs.save_pretrained(models / "vae/folder")
    for number, names in enumerate(VAES[name]):
        write(models / f"vae/file-{number}.safetensors", names(weights(models / "vae/folder")))
    for path in (models / "vae").iterdir():
        ours = load_vae(checkpoint, Catalog(models).find("vae", path.stem), CPU, CPU.device)
        assert same(ours, state(theirs)), path.name
        for key in ("scaling_factor", "shift_factor", "latents_mean"):
            assert ours.config.get(key) == theirs.config.get(key)


# Classes, folders of the package's configs, and the billions of numbers that the cards say; T5's
# embeddings count twice. test_memory_table.py has the others.
FULL_SIZE = {
    "FLUX.1 Fill": (diffusers.FluxTransformer2DModel, "flux/fill/transformer", 11.9),
    "SD 3 Medium": (diffusers.SD3Transformer2DModel, "sd3/transformer", 2.1),
    "klein 9B": (diffusers.Flux2Transformer2DModel, "flux2/klein-9b/transformer", 9.1),
    "CLIP L": (_T.CLIPTextModel, ENCODERS["CLIP L"].config, 0.1),
    "CLIP G": (_T.CLIPTextModelWithProjection, ENCODERS["CLIP G"].config, 0.7),
    "T5 XXL": (_T.T5EncoderModel, ENCODERS["T5 XXL"].config, 4.9),
    "Qwen3 4B": (_T.Qwen3Model, ENCODERS["Qwen3 4B"].config, 4.0),
    "Anima": (diffusers.CosmosTransformer3DModel, "anima/transformer", 2.0),
    "Anima's texts": (diffusers.AnimaTextConditioner, "anima/text_conditioner", 0.1),
    "Qwen3 0.6B": (_T.Qwen3Model, ENCODERS["Qwen3 0.6B"].config, 0.6),
    "Qwen3 8B": (_T.Qwen3Model, ENCODERS["Qwen3 8B"].config, 7.6),
}


@pytest.mark.parametrize("name", FULL_SIZE)
def test_the_packages_configs_are_as_large_as_the_cards_say(name: str) -> None:
    """Text encoders have the shapes by which files are recognised, too."""
    kind, folder, billions = FULL_SIZE[name]
    found = shapes(kind, folder)
    assert round(sum(map(math.prod, found.values())) / 1e9, 1) == billions
    if known := ENCODERS.get(name):
        tensor = known.tensor.removeprefix("model.")
        bare = tensor.removeprefix("text_model.")
        assert known.shape == found[tensor if tensor in found else bare]


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
