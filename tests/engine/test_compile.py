"""Compiled denoisers compute what the modules do; after any failure, the modules compute."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import diffusers
import pytest
import torch

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model import compile as compiling
from picowatch.engine.model.compile import Compiled
from picowatch.engine.protocol import EngineOptions, RenderedImage
from tests.engine import requests
from tests.engine.requests import difference
from tests.engine.tiny_flows import FIRST, tiny_unet

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
CARD = torch.device("cuda")  # only its name is looked at: the module computes where it is


def renderer(**options: Any) -> Renderer:
    given: dict[str, Any] = {"device": "cpu", "precision": "float32", "threads": 1, **options}
    return Renderer(EngineOptions(models=Path("nowhere"), **given))


def compiling_renderer(cache: Path, **options: Any) -> Renderer:
    return renderer(compile=True, cache=cache, **options)


def draw(renderer: Renderer, **values: Any) -> RenderedImage:
    given = {"steps": 2, "width": 64, "height": 64, **values}
    return requests.draw(renderer, requests.request("a corgi", **given))[0]


@pytest.mark.parametrize(
    ("precision", "most", "widths"),
    [
        pytest.param("float32", 4, [64, 72], marks=pytest.mark.heavy),
        ("bfloat16", 30, [64]),
    ],
)
def test_a_picture_is_drawn_compiled_unless_its_recipe_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, most: int, widths: list[int]
) -> None:
    """Each shape is converted once, for all engines, which draw the same bits.

    The module itself draws exact pictures, and those with changed layers.
    """
    convert = Mock(wraps=compiling._convert)
    monkeypatch.setattr(compiling, "_convert", convert)
    plain = renderer(precision=precision)
    fast, second = (compiling_renderer(tmp_path, precision=precision) for _ in range(2))
    for values in [{"width": width, "seed": seed} for width in widths for seed in (1, 2)]:
        image, expected = draw(fast, **values), draw(plain, **values)
        assert (image.compiled, image.precision, image.warnings) == (True, precision, ())
        assert difference(image, expected) <= most
    assert draw(second, **values).pixels == image.pixels
    latents = [tensors[0] for *_, tensors in (call.args for call in convert.call_args_list)]
    assert [one.shape[-1] * 8 for one in latents] == widths
    for forbidden in ("tiling", "exact"):
        image, expected = (draw(one, **{forbidden: True}) for one in (fast, plain))
        assert (image.compiled, image.pixels) == (False, expected.pixels)
    # OpenVINO's telemetry would send an event as soon as OpenVINO is imported.
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def changed(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "damaged"), [("model.xml", cut), ("model.bin", changed)])
def test_what_is_damaged_in_the_cache_is_converted_again(
    tmp_path: Path, name: str, damaged: Callable[[bytes], bytes]
) -> None:
    """OpenVINO notices no changed weights."""
    expected = draw(compiling_renderer(tmp_path))
    (file,) = tmp_path.glob(f"*/{name}")
    file.write_bytes(damaged(file.read_bytes()))
    image = draw(compiling_renderer(tmp_path))
    assert (image.compiled, image.warnings, image.pixels) == (True, (), expected.pixels)


def fail(*_: Any, **__: Any) -> Any:
    raise RuntimeError("No rule\nDetails: many")


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (
            "_convert",
            fail,
            "failed for UNet2DConditionModel, .*: RuntimeError: No rule Details: many",
        ),
        ("_BYTES_TO_CONVERT", 10**9, r"failed for .* [\d.]+ GB of memory have to be free"),
        ("find_spec", lambda _: None, r"needs OpenVINO, which is not installed: .*\[openvino\]"),
    ],
)
def test_what_cannot_be_converted_the_module_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str, value: Any, said: str
) -> None:
    """There is one warning, and no further attempt."""
    engine, expected = compiling_renderer(tmp_path), draw(renderer())
    monkeypatch.setattr(compiling, at, value)
    for _ in range(2):
        image = draw(engine)
        assert (image.compiled, image.pixels) == (False, expected.pixels)
        (warning,) = image.warnings
        assert re.match(f"compile: true {said}", warning)
        monkeypatch.undo()


@pytest.mark.heavy
def test_the_cache_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used model is deleted; other files stay."""
    for number in range(4):
        model = tmp_path / f"{number}/model.bin"
        model.parent.mkdir()
        model.write_bytes(bytes(100))
        os.utime(model, (number, number))
    (tmp_path / "other").touch()
    monkeypatch.setattr(compiling, "_CACHE_BYTES", 200)
    draw(compiling_renderer(tmp_path))
    kept = sorted(path.name for path in tmp_path.iterdir() if len(path.name) < 32)
    assert kept == ["2", "3", "other"]


# From here on, what a card does: torch's compiler for the blocks of a small UNet.
@pytest.fixture
def unet() -> Any:
    kind: Any = diffusers.UNet2DConditionModel
    unet = kind.from_pretrained(tiny_unet("sd2") / "unet", local_files_only=True)
    return unet.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def predicted(unet: Callable[..., Any], rows: int = 2, size: int = 8) -> torch.Tensor:
    """The first output, called as diffusers' pipelines do."""
    noise = torch.Generator().manual_seed(rows)
    latents = torch.randn(rows, 4, size, size, generator=noise)
    words = torch.randn(rows, 77, FIRST, generator=noise)
    (sample,) = unet(latents, torch.tensor(500), encoder_hidden_states=words, return_dict=False)
    assert isinstance(sample, torch.Tensor)
    return sample


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Replace torch's slow compiler, and return the graphs that it gets; an error is raised."""
    graphs: list[Any] = []
    compile_module = torch.nn.Module.compile

    def count(graph: Any, inputs: Any) -> Any:
        if graphs and isinstance(graphs[0], Exception):
            raise graphs[0]
        graphs.append(graph)
        return graph.forward

    def compile_so(self: Any, *given: Any, **named: Any) -> None:
        compile_module(self, *given, **named, backend=count)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_so)
    yield graphs
    torch.compiler.reset()


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.heavy)])
def test_a_cards_blocks_are_compiled_and_can_be_left(
    unet: Any, backend: list[Any], monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """At more sizes than torch's own limit allows; the whole module if it names no blocks."""
    if whole:
        monkeypatch.setattr(type(unet), "_repeated_blocks", [])
    plain = predicted(unet)
    compiled = Compiled(unet, "tiny", CARD)
    torch.testing.assert_close(predicted(compiled), plain, atol=1e-4, rtol=0)
    assert (graphs := len(backend))
    with compiled.eager():
        predicted(unet, 3, 16)
    assert len(backend) == graphs
    for rows, size in ((4, 8), (2, 16)) if whole else ((4, 8), (2, 16), (1, 8), (1, 16)):
        predicted(compiled, rows, size)
    assert len(backend) >= (2 if whole else 5)
    assert not compiled.failure


@pytest.mark.parametrize("own", ["", "/elsewhere"])
def test_what_a_card_s_compiler_made_is_kept_with_picowatch_s_caches(
    unet: Any, backend: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str
) -> None:
    """Unless the user has set torch's variable. Its default is emptied when a computer starts."""
    monkeypatch.setenv(INDUCTOR, own)  # is restored afterwards
    if not own:
        monkeypatch.delenv(INDUCTOR)
    Compiled(unet, "tiny", CARD, tmp_path)
    assert os.environ[INDUCTOR] == (own or str(tmp_path / "inductor"))


def test_a_compiler_that_fails_is_left(unet: Any, backend: list[Any]) -> None:
    """There is one warning."""
    plain = predicted(unet)
    backend.append(FileNotFoundError("nvcc"))
    compiled = Compiled(unet, "tiny", CARD)
    for _ in range(2):
        assert torch.equal(predicted(compiled), plain)
    assert compiled.failure.startswith("compile: true failed for UNet2DConditionModel")
    assert "nvcc" in compiled.failure


def test_a_cpu_compiles_into_a_folder(unet: Any) -> None:
    """Users without a home in containers have none."""
    assert Compiled(unet, "tiny", torch.device("cpu")).failure.endswith("set XDG_CACHE_HOME.")
