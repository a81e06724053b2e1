"""Modular pipelines: guiders, offloading, and what diffusers passes over in silence."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from picowatch.catalog import Catalog
from picowatch.catalog.folder_files import folder_files
from picowatch.engine.model.devices import choose_target
from picowatch.engine.model.families import built
from picowatch.engine.model.memory import FULL, LAYERS, MODELS, TURNS
from picowatch.families import FAMILIES
from tests.engine.adapters import write
from tests.engine.demo import read_part
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of, scripted
from tests.engine.original_names import Tensors, anima_names, flux3_names
from tests.engine.part_files import ANIMA, pretend, tensors_of, weights_of
from tests.engine.requests import draw, pixels
from tests.engine.rungs import interrupt, lora_of, on_rung
from tests.engine.test_flows import CUBE, called, same
from tests.engine.tiny_flows import tiny_flow

NAME = ANIMA


def test_guidance_has_a_beginning_an_end_and_a_rescale() -> None:
    """As for Stable Diffusion: a step after exactly `cfg_end` is still guided, one after exactly
    `cfg_start` not yet.
    """
    cases: dict[str, tuple[dict[str, float], int]] = {
        "cfg_rescale: 0.7": ({"rescale": 0.7}, 8),
        "cfg_start: 0.25": ({"start": 0.5}, 6),
        "cfg_end: 0.4": ({"stop": 0.5}, 6),
        "cfg_start: 0.25\ncfg_end: 0.5": ({"start": 0.5, "stop": 0.75}, 5),
    }
    ours, pipeline = flow_renderer(flow_models(NAME)), scripted(None, NAME)
    calls: list[None] = []
    pipeline.transformer.register_forward_hook(lambda *_: calls.append(None))
    for lines, (guider, evaluations) in cases.items():
        recipe = f"{CUBE}\nnegative_prompt: blur\ncfg_scale: 4\nsteps: 4\n{lines}"
        (image,) = draw(ours, *requests_of(flow_models(NAME), NAME, recipe))
        values: dict[str, Any] = {f"guidance_{name}": value for name, value in guider.items()}
        values |= {"negative_prompt": "blur", "guidance_scale": 4.0, "num_inference_steps": 4}
        calls.clear()
        assert same(pixels(image), called(pipeline, values)), lines
        assert len(calls) == evaluations, lines


def test_what_is_missing_or_unknown_is_named() -> None:
    """diffusers would draw without a word, or with None for a part."""
    row = FAMILIES["anima"]
    with pytest.raises(TypeError, match="AnimaModularPipeline needs a scheduler"):
        built(row, row.variant(""), "text", {"text_encoder": None})
    parts = scripted(None, NAME).components
    pipeline = built(row, row.variant(""), "text", parts)
    with pytest.raises(TypeError, match="AnimaModularPipeline takes no stength"):
        pipeline(prompt=["a red cube"], stength=0.5)


def test_an_interrupted_batch_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """diffusers would log the traceback of every block around the step."""
    models = flow_models(NAME)
    interrupt(flow_renderer(models), requests_of(models, NAME, CUBE))
    assert not [record for record in caplog.records if record.name.startswith("diffusers")]


def test_every_part_of_a_folder_is_in_its_hash(tmp_path: Path) -> None:
    """Also parts that only modular pipelines have, and the index."""
    copy = shutil.copytree(tiny_flow(NAME), tmp_path / "checkpoints/it")
    paths = (path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert {*folder_files(copy)} == {*paths}
    shutil.rmtree(copy / "vae")
    (refused,) = Catalog(tmp_path).scan().refused
    assert refused.reason == (
        "it is a diffusers folder without vae/: copy the whole folder. Its index takes this part "
        f"from {FAMILIES['anima'].hub}."
    )


def anima_tensors() -> Tensors:
    return anima_names(*(weights_of(NAME, part) for part in ("transformer", "text_conditioner")))


def anima_files(models: Path) -> None:
    """The transformer, the text encoder and the VAE, as ComfyUI has them."""
    write(models / "checkpoints/anima-base-v1.0.safetensors", anima_tensors(), prefix="net.")
    encoder = tensors_of(NAME, "text_encoder")
    write(models / "text_encoders/qwen_3_06b_base.safetensors", encoder)
    write(models / "vae/qwen_image_vae.safetensors", tensors_of(NAME, "vae"))


def test_a_file_of_anima_draws_with_the_files_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package has the configs, both vocabularies and the noise schedule."""
    models = tmp_path / "models"
    anima_files(models)
    pretend(monkeypatch, tmp_path / "assets", NAME)
    (picture,) = drawn_by(models, "anima-base-v1.0")
    (expected,) = drawn_by(flow_models(NAME), NAME)
    assert (picture == expected).all()


# As ConvRot's files have them.
FUSED = (r"([qkv])_proj\.weight", lambda found: f"qkv.weight#{'qkv'.index(found[1])}")


@pytest.mark.parametrize("lender", ["Anima", "FLUX.3-klein"])
def test_a_folder_completes_a_file(tmp_path: Path, lender: str) -> None:
    """Of the folder's own transformer only the config counts."""
    tensors = anima_tensors()
    if lender != NAME:
        tensors = flux3_names(weights_of(lender, "transformer"), FUSED)
    write(tmp_path / "checkpoints/mine.safetensors", tensors)
    folder = shutil.copytree(tiny_flow(lender), tmp_path / "checkpoints/whole")
    for part in ("transformer", "text_conditioner"):
        for file in (folder / part).glob("*.safetensors"):
            save_file({name: tensor * 1.3 for name, tensor in load_file(file).items()}, file)
    (picture,) = drawn_by(tmp_path, "mine")
    (expected,) = drawn_by(flow_models(lender), lender)
    assert (picture == expected).all()


def test_layers_that_stay_in_float32_do_so_from_files(tmp_path: Path) -> None:
    """A file of FLUX.3 has other names for them than the library's list."""
    tensors = weights_of("FLUX.3-klein", "transformer")
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    write(tmp_path / "checkpoints/mine.safetensors", flux3_names(halves))
    shutil.copytree(tiny_flow("FLUX.3-klein"), tmp_path / "checkpoints/whole")
    catalog, half = Catalog(tmp_path), choose_target("cpu", "bfloat16")
    mine, whole = (
        read_part(catalog.find("checkpoint", name), "transformer", half)
        for name in ("mine", "whole")
    )
    types = {name: parameter.dtype for name, parameter in whole.named_parameters()}
    assert types == {name: parameter.dtype for name, parameter in mine.named_parameters()}
    assert {*types.values()} == {torch.bfloat16, torch.float32}


def drawn_by(models: Path, name: str) -> list[Any]:
    wanted = requests_of(models, name, CUBE)
    return [pixels(image) for image in draw(flow_renderer(models), *wanted)]


@pytest.mark.parametrize(
    "name", ["Anima", pytest.param("FLUX.3-klein-base", marks=pytest.mark.heavy)]
)
def test_a_lora_is_diffusers_lora_on_every_rung(name: str) -> None:
    """Anima's also changes what maps its texts; without it everything is as before."""
    models = flow_models(name)
    lora = lora_of(models, name, *(["text_conditioner"] if name == NAME else []))
    (wanted,) = requests_of(models, name, CUBE)
    pipeline = scripted(None, name)
    plain = called(pipeline, {"guidance_scale": 4.0})
    pipeline.load_lora_weights(models / "loras/a.safetensors", adapter_name="a")
    pipeline.set_adapters(["a"], [0.7])
    changed = called(pipeline, {"guidance_scale": 4.0})
    assert not same(plain, changed)
    ours = flow_renderer(models)
    for rung in (FULL, MODELS, LAYERS, TURNS):
        renderer = on_rung(ours, replace(rung, tiled=False))
        for uses, expected in (((lora,), changed), ((), plain)):
            (image,) = draw(renderer, replace(wanted, loras=uses))
            assert same(pixels(image), expected), rung
            assert not image.warnings
