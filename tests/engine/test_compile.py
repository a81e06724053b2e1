"""Compiled denoisers compute what the modules do; after any failure, the modules compute."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from picowatch.engine import compile as compiling
from picowatch.engine.compile import Compiled
from picowatch.engine.protocol import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.requests import difference, draw, request

CPU = torch.device("cpu")
CARD = torch.device("cuda")  # only its name is looked at: the module computes where it is


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models that this module's tests convert, each once."""
    return tmp_path_factory.mktemp("cache") / "converted"


@pytest.fixture
def unet() -> Any:
    """Return a tiny UNet with the demo model's inputs."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        cross_attention_dim=96,
        block_out_channels=(32, 64),
        layers_per_block=1,
        attention_head_dim=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )
    return unet.eval().to(memory_format=torch.channels_last)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each conversion from now on."""
    rows: list[int] = []
    convert = compiling._convert

    def counted(denoiser: Any, leaves: Any, tree: Any, tensors: Any) -> Any:
        rows.append(len(tensors[0]))
        return convert(denoiser, leaves, tree, tensors)

    monkeypatch.setattr(compiling, "_convert", counted)
    return rows


@torch.inference_mode()
def predicted(unet: Callable[..., Any], rows: int = 2, size: int = 8, **given: Any) -> torch.Tensor:
    """The first output, called as diffusers' pipelines do."""
    noise = torch.Generator().manual_seed(rows)
    dtype = given.pop("dtype", torch.float32)
    (sample,) = unet(
        torch.randn(rows, 4, size, size, generator=noise).to(dtype),
        torch.tensor(500),
        encoder_hidden_states=torch.randn(rows, 77, 96, generator=noise).to(dtype),
        timestep_cond=None,
        cross_attention_kwargs=None,
        added_cond_kwargs={},
        return_dict=False,
        **given,
    )
    assert isinstance(sample, torch.Tensor)
    return sample


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
def test_a_picture_is_drawn_compiled_unless_its_recipe_forbids_it(cache: Path) -> None:
    """The module itself draws exact pictures, and those with changed layers."""
    options = EngineOptions(models=Path("nowhere"), device="cpu", threads=1)
    plain, fast = (Renderer(replace(options, compile=on, cache=cache)) for on in (False, True))
    for values, compiled in (({}, True), ({"tiling": True}, False), ({"exact": True}, False)):
        wanted = request("a corgi", steps=2, width=64, height=64, **values)
        (image,), (expected,) = draw(fast, wanted), draw(plain, wanted)
        assert image.compiled == compiled
        assert difference(image, expected) <= (4 if compiled else 0)


def test_it_computes_what_the_module_does(unet: Any, conversions: list[int]) -> None:
    """This holds for each shape, and the module is unchanged."""
    compiled = Compiled(unet, "tiny", CPU)
    for rows, size in ((2, 8), (1, 8), (2, 8)):
        plain = predicted(unet, rows, size)
        torch.testing.assert_close(predicted(compiled, rows, size), plain, atol=1e-4, rtol=0)
        assert torch.equal(predicted(unet, rows, size), plain)
    assert (conversions, compiled.failure) == ([2, 1], "")


def test_bfloat16_stays_within_its_rounding(unet: Any, cache: Path) -> None:
    """Converted as it is, OpenVINO would compute NaN."""
    whole, compiled = predicted(unet), Compiled(unet.to(torch.bfloat16), "tiny", CPU, cache)
    found = predicted(compiled, dtype=torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert (found.float() - whole).abs().max() < 0.1
    assert not compiled.failure


def test_a_second_engine_converts_nothing(unet: Any, cache: Path, conversions: list[int]) -> None:
    """It computes the same bits as the first one."""
    pictures = [predicted(Compiled(unet, "another", CPU, cache)) for _ in range(2)]
    assert conversions == [2]
    assert torch.equal(*pictures)
    # OpenVINO's telemetry would send an event as soon as OpenVINO is imported.
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("No rule\nDetails: many")


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        ("_convert", fail, "RuntimeError: No rule Details: many"),
        ("_BYTES_TO_CONVERT", 10**9, "GB of memory have to be free"),
    ],
)
def test_what_cannot_be_converted_the_module_computes(
    unet: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, value: Any, said: str
) -> None:
    """There is one warning, and no further attempt."""
    monkeypatch.setattr(compiling, at, value)
    compiled = Compiled(unet, "tiny", CPU, tmp_path)
    for _ in range(2):
        assert torch.equal(predicted(compiled), predicted(unet))
        monkeypatch.undo()
    assert compiled.failure.startswith("compile: true failed for UNet2DConditionModel")
    assert said in compiled.failure


def test_a_machine_without_openvino_is_told_how_to_install_it(
    unet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "find_spec", lambda name: None)
    assert "[openvino]" in Compiled(unet, "tiny", CPU).failure


def test_the_cache_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used model is deleted; other files stay."""
    for number in range(4):
        model = tmp_path / f"{number}/model.bin"
        model.parent.mkdir()
        model.write_bytes(bytes(100))
        os.utime(model, (number, number))
    (tmp_path / "other").touch()
    monkeypatch.setattr(compiling, "_CACHE_BYTES", 200)
    compiling._delete_oldest(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "3", "other"]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Replace torch's slow compiler, and return the graphs that it gets."""
    graphs: list[int] = []
    compile_module = torch.nn.Module.compile

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(len(inputs))
        return graph.forward

    def compile_so(self: Any, *given: Any, **named: Any) -> None:
        compile_module(self, *given, **named, backend=count)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_so)
    yield graphs
    torch.compiler.reset()


def test_a_cards_blocks_are_compiled_and_can_be_left(unet: Any, backend: list[int]) -> None:
    """At more sizes than torch's own limit allows."""
    plain = predicted(unet)
    compiled = Compiled(unet, "tiny", CARD)
    torch.testing.assert_close(predicted(compiled), plain, atol=1e-4, rtol=0)
    assert (graphs := len(backend))
    with compiled.eager():
        predicted(unet, 3, 16)
    assert len(backend) == graphs
    for rows, size in ((4, 8), (2, 16), (1, 8), (1, 16)):
        predicted(compiled, rows, size)
    assert len(backend) > 4
    assert not compiled.failure


def test_a_compiler_that_fails_is_left(unet: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one warning; the module's own errors are raised."""
    plain = predicted(unet)
    compile_module = torch.nn.Module.compile

    def fail(graph: Any, inputs: Any) -> Any:
        raise FileNotFoundError("nvcc")

    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self, **named: compile_module(self, backend=fail)
    )
    compiled = Compiled(unet, "tiny", CARD)
    with pytest.raises(RuntimeError):
        compiled(torch.zeros(1, 3, 8, 8), 500, torch.zeros(1, 77, 96), return_dict=False)
    assert not compiled.failure
    for _ in range(2):
        assert torch.equal(predicted(compiled), plain)
    assert compiled.failure.startswith("compile: true failed for UNet2DConditionModel")
    assert "nvcc" in compiled.failure
    torch.compiler.reset()
