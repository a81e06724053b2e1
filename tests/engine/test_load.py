"""Parts of checkpoints as they are read from files and folders."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from picowatch.catalog import Catalog, Model, embedded
from picowatch.catalog.folder_files import read_index
from picowatch.catalog.parts import CONFIGS, parts_of
from picowatch.cli import main
from picowatch.engine.model import load as loading
from picowatch.engine.model.devices import choose_target
from picowatch.engine.model.load import bytes_of_parts, load_part, load_vae
from picowatch.engine.model.part_files import own_class
from picowatch.engine.model.tensors import read_tensors
from picowatch.engine.model.vae import TinyFlux2
from picowatch.engine.protocol import RgbPicture
from picowatch.errors import RenderFailed
from picowatch.families import FAMILIES
from tests.catalog.files import sd2_shapes, sd15_shapes, sdxl_shapes, write_model
from tests.engine.adapters import write
from tests.engine.demo import CPU, assert_equal, load, read_part
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.ldm import weights, write_single_file
from tests.engine.original_names import Tensors, z_image_names
from tests.engine.part_files import weights_of
from tests.engine.requests import ignore_progress
from tests.engine.tiny_flows import FOLDERS, tiny_flow, tiny_unet
from tests.kinds import one_of_each_kind

DEMO = embedded("checkpoint")
HALF = choose_target("cpu", "float16")
_D: Any = diffusers
_T: Any = transformers


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("checkpoints", "vae", "controlnet"):
        (tmp_path / name).mkdir()
    return tmp_path


def found(models: Path, name: str, kind: Any = "checkpoint") -> Model:
    return Catalog(models).find(kind, name)


def modules_of(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if isinstance(part, torch.nn.Module)}


DRAWING = ("transformer", "unconditional_transformer", "text_conditioner")
IN_EACH_RUN = (
    *("FLUX.1-schnell", "FLUX.2-klein", "Qwen-Image", "Krea-2-Raw", "sd3.5-medium", "Ideogram-4"),
)


@pytest.mark.parametrize("name", one_of_each_kind(FOLDERS, IN_EACH_RUN))
def test_a_folder_is_read_as_the_libraries_read_it(
    models: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In float16, with the layers that some of them keep in float32.

    Further layers and heads that no pipeline needs are not read; test_flows.py compares pictures.
    """
    (models / "checkpoints" / name).symlink_to(tiny_flow(name))
    model, from_files = found(models, name), list[torch.Tensor]()

    def noted(*given: Any, **named: Any) -> Any:
        tensors = read_tensors(*given, **named)
        from_files.extend(tensors.values())
        return tensors

    monkeypatch.setattr(loading, "read_tensors", noted)
    parts = load(model, HALF)
    held = [each for part in modules_of(parts).values() for each in part.state_dict().values()]
    numbers = {tensor.data_ptr(): tensor.numel() for tensor in held}  # each once
    assert sum(tensor.numel() for tensor in from_files) == sum(numbers.values())
    index = read_index(tiny_flow(name))
    for part, ours in modules_of(parts).items():
        library, class_name = index[part]
        kind = getattr(_T if library == "transformers" else _D, class_name)
        theirs = kind.from_pretrained(
            tiny_flow(name) / part, dtype=torch.float16, local_files_only=True
        )
        assert isinstance(ours, kind) and type(ours).__name__ == class_name
        if part == "text_encoder" and (layers := FAMILIES[model.family].encoder_layers):
            del getattr(theirs.model, "language_model", theirs.model).layers[layers:]
        if hasattr(theirs, "lm_head"):
            theirs.lm_head = torch.nn.Identity()
        assert_equal(ours, theirs.requires_grad_(False))
    sizes = bytes_of_parts(model, CPU)
    encoders = (name for name in modules_of(parts) if name not in (*DRAWING, "vae"))
    for names, size in ((encoders, sum(sizes.encoders)), (DRAWING, sizes.denoiser)):
        read = [parts[name].state_dict().values() for name in names if name in parts]
        some = {tensor.data_ptr() for part in read for tensor in part}
        assert size == pytest.approx(4 * sum(numbers[each] for each in some), rel=0.01)
    if "unconditional_transformer" in parts:  # both draw in turn, so both become narrow
        assert bytes_of_parts(model, CPU, "fp8").denoiser < 0.7 * sizes.denoiser


def as_scripted(tensors: Tensors) -> Tensors:
    """Return a file as diffusers' script writes it: with transformers' name and order."""
    place = "conditioner.embedders.1.model.text_projection"
    projection = tensors.pop(place).T.contiguous()
    return tensors | {f"{place}.weight": projection}


# Names of folders, and what is changed in their files.
UNETS = [
    *(("demo", dict, torch.float16), ("sdxl-lcm", dict, torch.float32)),
    *((name, dict, torch.float16) for name in ("sdxl-inpainting", "sd2")),
    ("sdxl", as_scripted, torch.float32),
]


@pytest.mark.parametrize(("name", "changed", "dtype"), UNETS)
def test_a_single_file_holds_the_model_its_folder_holds(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    changed: Callable[[Tensors], Tensors],
    dtype: torch.dtype,
) -> None:
    """In the original's layout, with EMA weights, position_ids and buffers besides."""
    folder = DEMO.path if name == "demo" else tiny_unet(name)
    path = models / "checkpoints/file.safetensors"
    of_its_own(monkeypatch, folder)
    (models / "checkpoints/folder").symlink_to(folder)
    write_single_file(folder, path, dtype)
    save_file(changed(load_file(path)), path)
    parts, other = (load(found(models, each)) for each in ("folder", "file"))
    assert parts.keys() == other.keys()
    sizes = bytes_of_parts(found(models, "file"), CPU)  # in the type that computes, not the file's
    reckoned = sum(sizes.encoders) + sizes.denoiser + sizes.vae
    weights = [weight for each in modules_of(other).values() for weight in each.parameters()]
    assert reckoned == pytest.approx(sum(weight.nbytes for weight in weights), rel=0.01)
    for part, module in modules_of(parts).items():
        # The demo's weights are stored in float16.
        module.to(torch.float32 if name == "demo" else dtype).to(torch.float32)
        assert_equal(other[part], module)
    for part, tokenizer in parts.items():
        if part.startswith("tokenizer"):
            assert other[part].pad_token == tokenizer.pad_token


def of_its_own(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let this folder describe single files, instead of the package's full-size configs."""
    for family in CONFIGS:
        monkeypatch.setitem(CONFIGS, family, folder)
    telling = "model.diffusion_model.output_blocks.0.1.transformer_blocks.0.norm1.bias"
    monkeypatch.setattr(loading, "_TELLING", telling)


@pytest.mark.parametrize("shapes", [sd15_shapes, sd2_shapes, sdxl_shapes])
def test_the_packages_configs_describe_full_size_files(models: Path, shapes: Any) -> None:
    """Every weight of the models is in the file, by name and shape, under the original's names."""
    write_model(models / "checkpoints/it.safetensors", shapes())
    model = found(models, "it")
    for part in parts_of(model):
        if part.name in ("unet", "vae") or part.name.startswith("text_encoder"):
            made = load_part(model, HALF, torch.device("meta"), part.name)
            assert sum(weight.numel() for weight in made.parameters()) > 1e7


@pytest.mark.parametrize(
    ("name", "marks", "spread", "predicts"),
    [
        ("sdxl", ("v_pred", "ztsnr"), 0.0, "v_prediction"),
        *(("sd2", (), 0.01, "epsilon"), ("sd2", (), 0.2, "v_prediction")),
    ],
)
def test_the_scheduler_says_what_the_file_says_of_the_training(
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    marks: Any,
    spread: float,
    predicts: str,
) -> None:
    """The header of a v-prediction checkpoint (NoobAI's), or one weight, by ComfyUI's rule."""
    folder, path = tiny_unet(name), models / "checkpoints/it.safetensors"
    of_its_own(monkeypatch, folder)
    write_single_file(folder, path, torch.float32, {mark: torch.zeros(1) for mark in marks})
    tensors = load_file(path)
    if spread:
        telling = tensors[loading._TELLING]
        tensors[loading._TELLING] = torch.linspace(-1, 1, len(telling)) * spread * 3**0.5
    save_file(tensors, path)
    config = read_part(found(models, "it"), "scheduler").config
    assert config.prediction_type == predicts
    if "ztsnr" in marks:
        assert (config.rescale_betas_zero_snr, config.timestep_spacing) == (True, "trailing")
    assert "final_sigmas_type" in config["_use_default_values"]


STRANGE = {
    "_attn_implementation": "flash_attention_2",
    "attn_implementation": "kernels/evil",
    "auto_map": {"AutoModel": "evil.Model"},
}


@pytest.mark.parametrize("part", ["text_encoder", "unet"])
def test_what_a_stranger_adds_to_a_config_is_not_read(models: Path, part: str) -> None:
    """Such a key once caused the advice to install a package, or changed how the libraries work."""
    path = shutil.copytree(DEMO.path, models / "checkpoints/mine") / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | STRANGE))
    assert_equal(read_part(found(models, "mine"), part), read_part(DEMO, part))


def test_weights_in_several_files_are_found_under_all_their_names(models: Path) -> None:
    """Shards with an index or none, in fp16 and bf16, with fp16 where diffusers once wrote it."""
    name = "FLUX.1-schnell"
    kinds = {"transformer": _D.FluxTransformer2DModel, "text_encoder_2": _T.T5EncoderModel}
    expected = load_part_of(models, tiny_flow(name), "whole")
    for copy, variant in (("shards", None), ("unlisted", None), ("v0.3", "fp16"), ("b", "bf16")):
        folder = shutil.copytree(tiny_flow(name), models / copy)
        for part, kind in kinds.items():
            model = kind.from_pretrained(tiny_flow(name) / part)
            for file in (folder / part).glob("*.safetensors"):
                file.unlink()
            model.save_pretrained(folder / part, variant=variant, max_shard_size="20KB")
            for file in (folder / part).iterdir():
                if copy == "unlisted" and file.name.endswith(".index.json"):
                    file.unlink()
                elif copy == "v0.3":
                    old = re.sub(r"\.fp16(-\d+-of-\d+)", r"\1.fp16", file.name)
                    file.rename(file.with_name(old))
            assert len([*(folder / part).glob("*-of-*.safetensors")]) > 1
        for part, model in load_part_of(models, folder, copy).items():
            assert_equal(model, expected[part])


def load_part_of(models: Path, folder: Path, name: str) -> dict[str, Any]:
    link = models / "checkpoints" / f"FLUX.1-schnell-{name}"
    link.symlink_to(folder)
    model = found(models, link.name)
    return {part: read_part(model, part) for part in ("transformer", "text_encoder_2")}


Z_IMAGE = "Z-Image-Turbo"
IN_FILE = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
IN_DIFFUSERS = {IN_FILE: "down_blocks.0.resnets.0.conv1.weight"}
BROKEN = [
    ("UNet", "unet", "folder/unet/diffusion_pytorch_model", "conv_in.weight"),
    ("VAE", "vae", "folder/vae/diffusion_pytorch_model", "decoder.conv_in.weight"),
    ("text encoder", "text_encoder", "folder/text_encoder/model", "final_layer_norm.weight"),
    ("UNet", "unet", "file", IN_FILE),
    ("transformer", "transformer", "z-turbo", "layers.1.feed_forward.w1.weight"),
]


@pytest.mark.parametrize(("what", "part", "file", "weight"), BROKEN)
def test_the_first_weight_that_is_missing_or_of_another_shape_is_named(
    models: Path, monkeypatch: pytest.MonkeyPatch, what: str, part: str, file: str, weight: str
) -> None:
    """Otherwise it would be rendered with whatever memory contains."""
    checkpoints, model = models / "checkpoints", file.partition("/")[0]
    of_its_own(monkeypatch, DEMO.path)
    shutil.copytree(DEMO.path, checkpoints / "folder")
    write_single_file(DEMO.path, checkpoints / "file.safetensors")
    (checkpoints / Z_IMAGE).symlink_to(tiny_flow(Z_IMAGE))
    write(checkpoints / "z-turbo.safetensors", z_image_names(weights_of(Z_IMAGE)))
    path = checkpoints / f"{file}.safetensors"
    others = {key: tensor for key, tensor in load_file(path).items() if key != weight}
    of_it, name = f"{what} of '{model}'", re.escape(IN_DIFFUSERS.get(weight, weight))
    save_file(others | {weight: torch.zeros(3, 5)}, path, {"format": "pt"})
    with pytest.raises(RenderFailed, match=rf"{of_it} does not .* {name} is \[3, 5\]"):
        read_part(found(models, model), part)
    save_file(others, path, {"format": "pt"})
    with pytest.raises(RenderFailed, match=rf"{of_it} is incomplete: 1 .* {name}\."):
        read_part(found(models, model), part)


def test_sdxls_vae_computes_in_float32_unless_it_is_fixed(models: Path) -> None:
    """A folder's config tells, or a file's name, but no header."""
    (models / "checkpoints/xl").symlink_to(tiny_unet("sdxl"))
    checkpoint = found(models, "xl")
    assert read_part(checkpoint, "vae", HALF).dtype == torch.float32
    assert read_part(checkpoint, "unet", HALF).dtype == torch.float16
    tensors = weights(tiny_unet("sdxl") / "vae")
    for name in ("sdxl_vae_fp16", "sdxl-vae-fp16-fix", "sdxl.vae.FP16Fix"):
        save_file(tensors, models / f"vae/{name}.safetensors")
        vae = load_vae(checkpoint, found(models, name, "vae"), HALF, CPU.device)
        fixed = "fix" in name.casefold()
        assert vae.dtype == (torch.float16 if fixed else torch.float32), name
    _D.AutoencoderKL.from_pretrained(tiny_unet("sdxl") / "vae", force_upcast=False).save_pretrained(
        models / "vae/folder"
    )
    vae = load_vae(checkpoint, found(models, "folder", "vae"), HALF, CPU.device)
    assert vae.dtype == torch.float16


@pytest.mark.parametrize("layout", ["file", "folder"])
def test_a_tiny_vae_takes_the_place_of_the_checkpoints(models: Path, layout: str) -> None:
    """Latents keep their scale and size."""
    torch.manual_seed(3)
    theirs = _D.AutoencoderTiny().eval()
    if layout == "folder":
        theirs.save_pretrained(models / "vae/taesd")
    else:
        write(models / "vae/taesd.safetensors", theirs.state_dict())
    vae = load_vae(DEMO, found(models, "taesd", "vae"), CPU, CPU.device)
    assert_equal(vae, theirs.requires_grad_(False))
    assert (vae.config.scaling_factor, vae.config.shift_factor) == (1.0, 0.0)
    with torch.inference_mode():
        assert vae.encode(torch.zeros(1, 3, 64, 64)).latents.shape == (1, 4, 8, 8)


@pytest.mark.parametrize(("able", "large"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_processor_takes_bfloat16_for_what_is_large(
    models: Path, monkeypatch: pytest.MonkeyPatch, able: bool, large: torch.dtype
) -> None:
    """Where it has instructions for it: the rest is too small to gain from it.

    Only convolutions of a large UNet gain from another layout, and those over frames, which have
    five sides, support no other.
    """
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: able)
    target = choose_target("cpu", "auto")
    folder = shutil.copytree(DEMO.path, models / "checkpoints/large")
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"sample_size": 64}))
    parts = load(found(models, "large"), target)
    assert parts["unet"].dtype == large
    assert parts["unet"].conv_in.weight.is_contiguous(memory_format=torch.channels_last) == able
    assert parts["vae"].dtype == parts["text_encoder"].dtype == torch.float32
    small = read_part(DEMO, "unet", target)
    assert small.dtype == torch.float32 and small.conv_in.weight.is_contiguous()
    (models / "checkpoints/Qwen-Image").symlink_to(tiny_flow("Qwen-Image"))
    flow = load(found(models, "Qwen-Image"), target)
    assert flow["transformer"].dtype == large
    assert all(weight.is_contiguous() for weight in flow["vae"].parameters())


@pytest.mark.parametrize("name", ["NoSuchModel", "pipeline", "CLIPTokenizer"])
def test_only_models_of_the_libraries_are_loaded(name: str) -> None:
    with pytest.raises(RenderFailed, match=f"has a PreTrainedModel called '{name}'"):
        own_class(name, _T.PreTrainedModel)


def _halves() -> tuple[Tensors, Tensors]:
    """TAEF2's files as its author publishes them, with random weights."""
    torch.manual_seed(5)
    halves: tuple[Tensors, Tensors] = ({}, {})
    for name, tensor in TinyFlux2().state_dict().items():
        coder, _, rest = name.partition(".layers.")
        number, _, layer = rest.partition(".")
        if coder == "encoder":
            halves[0][rest] = tensor.half()
        elif coder == "decoder":  # its first layer, a clamp, has no weights
            halves[1][f"{int(number) + 1}.{layer}"] = tensor.half()
    return halves


def test_halves_of_a_tiny_vae_become_a_file_that_draws(capsys: pytest.CaptureFixture[str]) -> None:
    """For the families of FLUX.2's VAE, whose statistics of latents it takes; never in tiles."""
    name = "FLUX.2-klein"
    models = flow_models(name, tiny_flow(name))
    folder = models / "vae"
    folder.mkdir()
    files = [folder / f"taef2_{coder}.pth" for coder in ("encoder", "decoder")]
    encoder, decoder = _halves()
    torch.save(encoder, files[0])
    assert main(["convert", str(files[0])]) == 1
    assert "is half of a tiny VAE. Put taef2_decoder.pth beside it." in capsys.readouterr().err
    torch.save(decoder, files[1])
    assert main(["convert", *map(str, reversed(files))]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("taef2.safetensors: 5.4 MB. It is a VAE: it belongs in models/vae/.")
    catalog = Catalog(models)
    vae, checkpoint = catalog.find("vae", "taef2"), catalog.find("checkpoint", name)
    assert vae.variant == "tiny, FLUX.2"
    made = load_vae(checkpoint, vae, CPU, CPU.device)
    full = read_part(checkpoint, "vae")
    assert made.bn.running_var.equal(full.bn.running_var)
    assert made.config.batch_norm_eps == full.config.batch_norm_eps
    assert made.encoder.layers[0].weight.half().equal(encoder["0.weight"])
    made.enable_tiling()
    assert not made.use_tiling
    encoded = made.encode(torch.zeros(1, 3, 64, 64)).latent_dist
    assert encoded.mode().shape == (1, 32, 8, 8)
    assert encoded.mode().equal(encoded.sample())
    text = "prompt: a red cube\nreferences: start.png"
    requests = requests_of(models, name, f"{text}\nvae: taef2")
    previews: list[RgbPicture] = []
    ours = flow_renderer(models, on_preview=previews.append, preview_seconds=1e-9)
    (drawn,) = ours.render(requests, ignore_progress)
    plain = flow_renderer(models).render(requests_of(models, name, text), ignore_progress)
    assert drawn.pixels != next(iter(plain)).pixels
    assert [(each.width, each.height) for each in previews] == [(8, 8)] * 2
