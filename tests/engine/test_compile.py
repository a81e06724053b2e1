"""Compiled denoisers compute what the modules do; after any failure, the modules compute."""

import os
import re
import shutil
import subprocess
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
from tests.engine.requests import PATIENCE, difference
from tests.engine.tiny_flows import FIRST, tiny_unet

INDUCTOR = "TORCHINDUCTOR_CACHE_DIR"
CARD = torch.device("cuda")  # only its name is looked at: the module computes where it is


def renderer(**options: Any) -> Renderer:
    given: dict[str, Any] = {"device": "cpu", "precision": "float32", "threads": 1, **options}
    return Renderer(EngineOptions(models=Path("nowhere"), compile="cache" in options, **given))


def draw(renderer: Renderer, **values: Any) -> RenderedImage:
    given = {"steps": 2, "width": 64, "height": 64, **values}
    return requests.draw(renderer, requests.request("a corgi", **given))[0]


def test_a_picture_is_drawn_compiled_unless_its_recipe_forbids_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shape is converted once for all engines; exact pictures and changed layers are not."""
    convert = Mock(wraps=compiling._convert)
    monkeypatch.setattr(compiling, "_convert", convert)
    plain = renderer(precision="bfloat16")
    fast, second = (renderer(precision="bfloat16", cache=tmp_path) for _ in range(2))
    image, again = draw(fast), draw(second)
    assert (image.compiled, image.precision, image.warnings) == (True, "bfloat16", ())
    assert difference(image, draw(plain)) <= 30
    assert again.pixels == image.pixels
    assert convert.call_count == 1
    assert not draw(fast, tiling=True).compiled
    exact = draw(fast, exact=True)
    assert (exact.compiled, exact.pixels) == (False, draw(plain, exact=True).pixels)
    # OpenVINO's telemetry would send an event as soon as OpenVINO is imported.
    assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RenderedImage]:
    """A cache with the model of a picture, and the picture."""
    cache = tmp_path_factory.mktemp("converted")
    return cache, draw(renderer(cache=cache))


def test_what_is_damaged_in_the_cache_is_converted_again(
    converted: tuple[Path, RenderedImage], tmp_path: Path
) -> None:
    """Programs that clean caches delete one file of two, or disks lose its end."""
    cache, first = converted
    shutil.copytree(cache, tmp_path, dirs_exist_ok=True)
    for name in ("model.xml", "model.bin"):
        (file,) = tmp_path.glob(f"*/{name}")
        file.unlink() if name == "model.xml" else os.truncate(file, 1000)
        again = draw(renderer(cache=tmp_path))
        assert (again.compiled, again.pixels, again.warnings) == (True, first.pixels, ())


# In a process of its own, which a failure ends.
SIGNALLED = """
import gc, os, signal, sys
from pathlib import Path
from tests.engine.test_compile import draw, renderer

signal.signal(signal.SIGTERM, lambda *_: print("heard"))
engine = renderer(cache=Path(sys.argv[1]))
assert draw(engine).compiled and draw(engine, width=128).compiled
del engine
gc.collect()
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_after_compiled_models_are_gone_is_heard(
    converted: tuple[Path, RenderedImage],
) -> None:
    """OpenVINO left the thread a stack for signals that it had freed."""
    ended = subprocess.run(
        [sys.executable, "-c", SIGNALLED, converted[0]],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), ended


@pytest.fixture(scope="module")
def plain() -> RenderedImage:
    return draw(renderer())


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
    plain: RenderedImage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: str,
    value: Any,
    said: str,
) -> None:
    """There is one warning, and no further attempt."""
    engine = renderer(cache=tmp_path)
    monkeypatch.setattr(compiling, at, value)
    for _ in range(2):
        image = draw(engine)
        assert (image.compiled, image.pixels) == (False, plain.pixels)
        (warning,) = image.warnings
        assert re.match(f"compile: true {said}", warning)
        monkeypatch.undo()


def test_the_cache_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used model is deleted; other files stay."""
    for number in range(4):
        model = tmp_path / f"{number}/model.bin"
        model.parent.mkdir()
        model.write_bytes(bytes(100))
        os.utime(model, (number, number))
    (tmp_path / "other").touch()
    monkeypatch.setattr(compiling, "_CACHE_BYTES", 200)
    with monkeypatch.context() as killed:  # half a model would be taken for one
        killed.setattr(shutil, "rmtree", lambda folder: (folder / "model.bin").rename(folder / "x"))
        compiling._delete_oldest(tmp_path)
    assert not {"0", "1"} & {path.name for path in tmp_path.iterdir()}


# From here on, what a card does: torch's compiler for the blocks of a small UNet.
@pytest.fixture
def unet() -> Any:
    kind: Any = diffusers.UNet2DConditionModel
    unet = kind.from_pretrained(tiny_unet("sd2") / "unet", local_files_only=True)
    return unet.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def predicted(unet: Callable[..., Any], rows: int = 2, size: int = 8) -> torch.Tensor:
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
    monkeypatch.setattr(compiling, "_RECOMPILE_LIMIT", 7)
    if whole:
        monkeypatch.setattr(type(unet), "_repeated_blocks", [])
    plain = predicted(unet)
    compiled = Compiled(unet, "tiny", CARD)
    torch.testing.assert_close(predicted(compiled), plain, atol=1e-4, rtol=0)
    assert (graphs := len(backend))
    with compiled.eager():
        predicted(unet, 3, 16)
    assert len(backend) == graphs
    predicted(compiled, 4)
    assert len(backend) > graphs
    assert not compiled.failure and torch._dynamo.config.recompile_limit == 7


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
