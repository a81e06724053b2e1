"""Checkpoints and VAEs from files and folders, in this process."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from picowatch.engine.models import parts, unets
from picowatch.engine.models.loaded import Loaded
from picowatch.engine.models.parts import SD15
from picowatch.engine.models.weights import empty
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from benchmarks.make_sd15 import checkpoint_shapes
from picowatch.catalog import Catalog, read_config
from picowatch.engine.checkpoints import Checkpoints
from picowatch.engine.devices import Target, choose_target, precision_name
from picowatch.errors import RenderFailed
from tests.engine.ldm import ldm_vae, weights, write_single_file
from tests.engine.requests import request

DEMO = Catalog(Path("nowhere")).demo.path
CPU = choose_target("cpu", "float32")


def checkpoints(models: Path) -> Checkpoints:
    """Single files are taken for the demo model's architecture, not Stable Diffusion 1.5's."""
    return Checkpoints(Catalog(models), CPU, configs={"sd1": DEMO, "demo": DEMO})


def load(models: Path, **values: Any) -> Loaded:
    loaded: Loaded = checkpoints(models).load(named(models, **values))
    return loaded


@cache
def demo() -> Loaded:
    """The demo model, from its folder."""
    return load(Path("nowhere"))


def named(models: Path, **values: Any) -> Any:
    """A request with the hashes of the files it names."""
    catalog = Catalog(models)
    for kind, name in (("checkpoint", "checkpoint"), ("vae", "vae")):
        if name in values:
            values[f"{name}_hash"] = catalog.sha256(catalog.find(kind, values[name]))  # type: ignore[arg-type]
    return request(**values)


def assert_equal(first: Any, second: Any) -> None:
    """Two models hold the same weights."""
    expected = first.state_dict()
    assert expected.keys() == second.state_dict().keys()
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_a_single_file_holds_the_model_its_folder_holds(models: Path, dtype: torch.dtype) -> None:
    """In the original's layout, with EMA weights, position_ids and buffers besides."""
    write_single_file(DEMO, models / "checkpoints/one.safetensors", dtype)
    folder, single = demo(), load(models, checkpoint="one")
    for part in ("unet", "vae"):
        if dtype == torch.bfloat16:
            assert getattr(single, part).dtype == torch.float32
        else:
            assert_equal(getattr(folder, part), getattr(single, part))
    with torch.inference_mode():
        chunks = folder.prompts.chunks("a corgi")
        one, other = (loaded.prompts.encode(chunks, 1, 1).states for loaded in (folder, single))
    assert torch.allclose(one, other, atol=0.1 if dtype == torch.bfloat16 else 0)


def test_a_copied_folder_is_the_same_model(models: Path) -> None:
    """diffusers folders in models/checkpoints."""
    shutil.copytree(DEMO, models / "checkpoints/mine")
    (models / "checkpoints/mine/scheduler/note.json").write_text("{}")  # another hash
    assert_equal(demo().unet, load(models, checkpoint="mine").unet)


def changed_demo(models: Path, config: str, **values: object) -> None:
    """The demo model as a stranger might pass it on, called mine."""
    folder = shutil.copytree(DEMO, models / "checkpoints/mine")
    path = folder / config
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_a_stranger_adds_to_a_config_is_not_read(models: Path) -> None:
    """Such a key once caused the advice to install a package, or changed how the libraries work."""
    changed_demo(
        models,
        "text_encoder/config.json",
        _attn_implementation="flash_attention_2",
        attn_implementation="kernels/evil",
        quantization_config={"load_in_4bit": True},
        output_hidden_states=True,
    )
    assert_equal(demo().text_encoders[0], load(models, checkpoint="mine").text_encoders[0])


def test_a_config_that_divides_by_zero_is_called_damaged(models: Path) -> None:
    """Whatever its keys make the libraries compute."""
    changed_demo(models, "vae/config.json", norm_num_groups=0)
    with pytest.raises(RenderFailed, match="'mine' is damaged: ZeroDivisionError"):
        load(models, checkpoint="mine")


def another_vae() -> dict[str, torch.Tensor]:
    """The demo's VAE, a little brighter."""
    tensors = weights(DEMO / "vae")
    tensors["decoder.conv_out.bias"] = tensors["decoder.conv_out.bias"] + 0.25
    return tensors


def diffusers_file(path: Path) -> None:
    save_file(another_vae(), path.with_suffix(".safetensors"))


def diffusers_file_with_old_names(path: Path) -> None:
    """Before diffusers 0.15 the attention's parts were called query, key, value, proj_attn."""
    new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = another_vae()
    for modern, old in new.items():
        tensors = {name.replace(f".{modern}.", f".{old}."): t for name, t in tensors.items()}
    save_file(tensors, path.with_suffix(".safetensors"))


def diffusers_folder(path: Path) -> None:
    shutil.copytree(DEMO / "vae", path)
    save_file(another_vae(), path / "diffusion_pytorch_model.safetensors")


def original_file(prefix: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        folder = path.parent / ".parts"
        diffusers_folder(folder)
        tensors = {f"{prefix}{name}": t.contiguous() for name, t in ldm_vae(folder).items()}
        save_file(tensors, path.with_suffix(".safetensors"))

    return write


@pytest.mark.parametrize(
    "write",
    [
        diffusers_folder,
        diffusers_file,
        diffusers_file_with_old_names,
        original_file(""),
        original_file("first_stage_model."),
    ],
    ids=["folder", "diffusers", "old diffusers", "kohya", "cut out"],
)
def test_a_vae_in_any_form_takes_the_place_of_the_checkpoints(
    models: Path, write: Callable[[Path], None]
) -> None:
    """And the checkpoint's own comes back when it is requested."""
    (models / "vae").mkdir(parents=True)
    write(models / "vae/bright")
    loading = checkpoints(models)
    baked = loading.load(request())
    bias = float(baked.vae.decoder.conv_out.bias[0])
    bright = loading.load(named(models, vae="bright"))
    assert float(bright.vae.decoder.conv_out.bias[0]) == pytest.approx(bias + 0.25, abs=1e-3)
    assert bright.unet is baked.unet
    assert loading.held(request()) is None
    assert_equal(loading.load(request()).vae, baked.vae)


def test_checkpoints_that_fit_are_all_kept(models: Path) -> None:
    """Going back to one reads nothing."""
    shutil.copytree(DEMO, models / "checkpoints/mine")
    (models / "checkpoints/mine/scheduler/note.json").write_text("{}")  # another hash
    loading, other = checkpoints(models), named(models, checkpoint="mine")
    first, second = loading.load(request()), loading.load(other)
    assert loading.held(request()) is first
    assert loading.held(other) is second
    assert loading.forget_others(other)
    assert loading.held(request()) is None
    assert loading.held(other) is second


def test_a_checkpoint_goes_where_another_would_not_fit(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its memory is free before the next one is read."""
    monkeypatch.setattr("picowatch.engine.checkpoints.free_bytes", lambda device: 0)
    shutil.copytree(DEMO, models / "checkpoints/mine")
    (models / "checkpoints/mine/scheduler/note.json").write_text("{}")  # another hash
    loading = checkpoints(models)
    first = loading.load(request())
    assert loading.held(request(prompt="another", seed=9)) is first
    unet = weakref.ref(first.unet)
    del first
    seen: list[bool] = []
    real = unets.load

    def load(*given: Any) -> Loaded:
        seen.append(unet() is None)
        return real(*given)

    monkeypatch.setattr("picowatch.engine.checkpoints.load", load)
    other = named(models, checkpoint="mine")
    loading.load(other)
    gc.collect()
    assert seen == [True]
    assert loading.held(other) is not None
    assert loading.held(request()) is None


def test_after_a_failed_load_nothing_is_held(models: Path) -> None:
    """And the next load is a whole one."""
    loading = checkpoints(models)
    loading.load(request())
    with pytest.raises(RenderFailed):
        loading.load(request(vae="gone", vae_hash="0"))
    assert loading.held(request()) is None
    assert loading.load(request()).vae is not None


def test_a_checkpoint_with_a_missing_weight_is_refused(models: Path) -> None:
    """Rather than rendered with what memory happened to hold."""
    path = models / "checkpoints/one.safetensors"
    write_single_file(DEMO, path)
    tensors = load_file(path)
    del tensors["model.diffusion_model.input_blocks.1.0.in_layers.2.weight"]
    save_file(tensors, path)
    with pytest.raises(
        RenderFailed, match=r"The UNet of 'one' is incomplete: 1 weights are missing"
    ):
        load(models, checkpoint="one")


def test_a_checkpoint_of_other_shapes_is_refused(models: Path) -> None:
    """The demo's small weights are not Stable Diffusion 1.5."""
    write_single_file(DEMO, models / "checkpoints/one.safetensors")
    with pytest.raises(RenderFailed, match=r"does not fit its kind of model"):
        Checkpoints(Catalog(models), CPU).load(named(models, checkpoint="one"))


def test_a_file_that_is_overwritten_in_place_does_not_change_the_loaded_model(
    models: Path,
) -> None:
    """safetensors maps files into memory; weights are copies."""
    path = models / "checkpoints/one.safetensors"
    write_single_file(DEMO, path, torch.float32)
    loaded = load(models, checkpoint="one")
    before = loaded.unet.conv_in.weight.clone()
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    assert torch.equal(loaded.unet.conv_in.weight, before)


def test_the_full_size_script_writes_all_of_stable_diffusion_15(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its key names and shapes fill the models that the shipped configs describe."""
    shapes = checkpoint_shapes()

    def holes(files: list[Path], target: Target, wanted: Any = lambda name: True) -> Any:
        return {
            name: torch.empty(shape, device="meta")
            for name, shape in shapes.items()
            if wanted(name)
        }

    monkeypatch.setattr(unets, "read_tensors", holes)
    monkeypatch.setattr(parts, "read_tensors", holes)
    unet_config, vae_config = (read_config(SD15 / part / "config.json") for part in ("unet", "vae"))
    text_config = CLIPTextConfig(**read_config(SD15 / "text_encoder" / "config.json"))
    unet = empty(UNet2DConditionModel, unet_config)
    vae = empty(AutoencoderKL, vae_config)
    text = empty(CLIPTextModel, text_config)
    read_text = unets._FAMILIES["sd1"].texts[0].read_single(text, Path(), CPU)
    for model, tensors in (
        (unet, parts.read_single_unet(Path(), unet_config, CPU)),
        (vae, parts.read_single_vae(Path(), vae_config, CPU)),
        (text, parts.text_encoder_names(text, read_text)),
    ):
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        assert {name: tensor.shape for name, tensor in tensors.items()} == expected


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
def test_a_set_precision_is_used_for_everything(precision: Any) -> None:
    """Only "auto" chooses by device and size."""
    target = choose_target("cpu", precision)
    assert precision_name(target.dtype) == precision_name(target.for_unet(512).dtype) == precision


def test_auto_takes_float32_for_the_demo_on_the_cpu() -> None:
    """And what the CPU is best at for full-size UNets."""
    target = choose_target("cpu", "auto")
    assert target.dtype == target.for_unet(128).dtype == torch.float32
    assert target.for_unet(512).dtype in (torch.float32, torch.bfloat16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_missing_gpu_is_explained() -> None:
    """With the way out."""
    with pytest.raises(RenderFailed, match=r"There is no CUDA device here .* Set device: auto"):
        choose_target("cuda", "auto")


def test_configs_are_plain_json() -> None:
    """Every config that ships can be read."""
    for path in SD15.rglob("*.json"):
        assert json.loads(path.read_text(encoding="utf-8"))
