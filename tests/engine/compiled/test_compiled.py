"""Compiled UNets: compiled in the background, used when they are ready, never trusted blindly.

`make test` pretends the compiler, which takes minutes; `make test-heavy` repeats them with it.
"""

import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from subprocess import TimeoutExpired
from time import monotonic
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from picowatch.catalog import Catalog
from picowatch.engine.compiled import compiled as compiling
from picowatch.engine.compiled.compile_job import CompileJob
from picowatch.engine.compiled.compile_main import failure_of
from picowatch.engine.compiled.trials import MOST_TRIALS, begin_trial
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.unet.denoise import Shape
from picowatch.recipe.request import ImageRequest, LoraUse
from tests.engine import requests
from tests.engine.compiled.pretended_package import pretended_packages
from tests.engine.requests import difference, ignore_steps
from tests.engine.tiny_models import tiny_sd2, tiny_sdxl

COMPILE_SECONDS = 800.0  # bound on a busy machine: compiling lets all others go first

HAVE_COMPILER = bool(shutil.which("g++") or shutil.which("clang++"))

pytestmark = [
    # numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.timeout(COMPILE_SECONDS + 100),
]

LONG_QUEUE = 1_000_000


def request(**values: Any) -> ImageRequest:
    """Of as few steps as show what computed them."""
    return requests.request(**({"steps": 2} | values))


PLAIN = request()
STYLES = Path(__file__).parents[2] / "styles"


@pytest.fixture(
    scope="module",
    params=[
        pretended_packages,
        pytest.param(
            nullcontext,
            marks=[
                pytest.mark.heavy,
                pytest.mark.skipif(not HAVE_COMPILER, reason="needs a C++ compiler"),
            ],
        ),
    ],
    ids=["pretended", "compiled"],
)
def folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A cache with the UNet of one plain request in it."""
    folder = tmp_path_factory.mktemp("cache") / "compiled"
    with request.param():
        engine = engine_with(folder, tmp_path_factory.mktemp("models"))
        [image] = make(engine, PLAIN, waiting=LONG_QUEUE)
        assert not image.compiled
        wait_for_compiling(engine)
        yield folder


def wait_for_compiling(engine: Renderer) -> None:
    """Beside other tests it would wait for idle cores: it hurries where that is allowed (root)."""
    process = engine._compiled._process
    assert process is not None
    end = monotonic() + COMPILE_SECONDS
    while True:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, 0)
        try:
            process.wait(1)
            return
        except TimeoutExpired:
            assert monotonic() < end


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """The cache for one test to damage."""
    return Path(shutil.copytree(folder, tmp_path / "compiled"))


def engine_with(folder: Path | None, models: Path) -> Renderer:
    """An engine on the CPU with this cache."""
    return Renderer(EngineOptions(models=models, device="cpu", compiled=folder))


def make(engine: Renderer, *batch: ImageRequest, waiting: int = 0) -> Sequence[RenderedImage]:
    """The batch's pictures."""
    return engine.render(batch, ignore_steps, waiting=waiting)


def test_the_compiled_unet_renders_the_same_picture(folder: Path, tmp_path: Path) -> None:
    """Within rounding; and the picture says that it was compiled."""
    [plain] = make(engine_with(None, tmp_path), request())
    [image] = make(engine_with(folder, tmp_path), request())
    assert image.compiled and not plain.compiled
    assert difference(image, plain) <= 2


def test_other_shapes_and_exact_images_stay_eager(folder: Path, tmp_path: Path) -> None:
    """A compiled UNet is for one shape and has edges; exact means always the same pixels."""
    engine = engine_with(folder, tmp_path)
    others = [
        *(request(width=64), request(cfg_scale=1.0)),
        *(request(exact=True), request(tiling=True)),
    ]
    assert not any(make(engine, other)[0].compiled for other in others)


def test_parts_of_a_batch_stay_eager(tmp_path: Path) -> None:
    """Compiled code would let them take turns, so nothing is compiled for them either."""
    engine = engine_with(tmp_path / "compiled", tmp_path)
    batch = [request(width=64, height=64, seed=seed) for seed in range(4)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # wherever the test runs: as many parts
    try:
        assert not any(image.compiled for image in make(engine, *batch, waiting=LONG_QUEUE))
    finally:
        torch.set_num_threads(threads)
    assert engine._compiled._process is None
    assert not list((tmp_path / "compiled").iterdir())


@pytest.mark.parametrize("checkpoint", ["sdxl", "lcm"])
def test_what_is_too_large_or_quick_to_be_compiled_stays_eager(
    checkpoint: str, tmp_path: Path
) -> None:
    """However much of it is queued."""
    path = tmp_path / f"checkpoints/{checkpoint}"
    path.parent.mkdir()
    path.symlink_to(tiny_sdxl() if checkpoint == "sdxl" else tiny_sd2(embeds_guidance=True))
    engine = engine_with(tmp_path / "compiled", tmp_path)
    sha256 = Catalog(tmp_path).sha256(Catalog(tmp_path).find("checkpoint", checkpoint))
    wanted = request(checkpoint=checkpoint, checkpoint_hash=sha256, width=64, height=64)
    assert not make(engine, wanted, waiting=LONG_QUEUE)[0].compiled
    assert engine._compiled._process is None
    assert not list((tmp_path / "compiled").iterdir())


def test_few_packages_are_kept_open(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds a copy of the weights, which goes with it."""
    engine = engine_with(folder, tmp_path)
    make(engine, request())
    [kept] = engine._checkpoints._kept.values()
    gone = weakref.ref(next(iter(kept.loaded.compiled.values())))
    monkeypatch.setattr(compiling.CompiledUnets, "_load", lambda *_: Mock())
    for tokens in (154, 231):
        engine._compiled.find(kept.loaded, Shape(2, 16, 16, tokens))
    assert gone() is None and len(kept.loaded.compiled) == 2


def test_a_short_queue_compiles_nothing(tmp_path: Path) -> None:
    """It would take longer than it saves."""
    engine = engine_with(tmp_path / "compiled", tmp_path)
    make(engine, request(), waiting=3)
    assert engine._compiled._process is None
    assert not list((tmp_path / "compiled").iterdir())


def test_loras_act_in_the_compiled_unet(folder: Path, models: Path) -> None:
    """They are added to its copy of the weights, and taken away without compiling again."""
    (models / "loras").mkdir(parents=True)
    shutil.copy(STYLES / "pixel-art.safetensors", models / "loras")
    catalog = Catalog(models)
    lora = LoraUse("pixel-art", catalog.sha256(catalog.find("lora", "pixel-art")), 1.0)
    engine, plain = engine_with(folder, models), engine_with(None, models)
    with_lora = request(loras=(lora,))
    first, styled, again = (make(engine, one)[0] for one in (request(), with_lora, request()))
    assert first.compiled and styled.compiled and again.compiled
    assert difference(styled, first) > 10
    assert difference(styled, make(plain, with_lora)[0]) <= 3
    assert again.pixels == first.pixels


@pytest.mark.parametrize("content", [b"", b"not a package"])
def test_a_damaged_package_is_left_alone(copied: Path, tmp_path: Path, content: bytes) -> None:
    """The picture is rendered by the eager UNet, and the package is not tried again."""
    [package] = copied.glob("*.pt2")
    package.write_bytes(content)
    engine = engine_with(copied, tmp_path)
    assert not make(engine, request())[0].compiled
    assert package.with_suffix(".trials").read_text()
    assert not make(engine_with(copied, tmp_path), request())[0].compiled


def test_a_package_that_ended_the_process_is_tried_again_later(
    copied: Path, tmp_path: Path
) -> None:
    """Something else may have killed the process."""
    [package] = copied.glob("*.pt2")
    trials = package.with_suffix(".trials")
    begin_trial(trials)
    engine = engine_with(copied, tmp_path)
    assert not make(engine, request())[0].compiled
    os.utime(trials, (1, 1))
    assert make(engine, request())[0].compiled


def test_two_engines_that_try_a_package_at_once_both_render_their_pictures(
    copied: Path, tmp_path: Path
) -> None:
    """One of them with the eager UNet, until the other has tried it."""
    [package] = copied.glob("*.pt2")
    engine = engine_with(copied, tmp_path)
    trials = package.with_suffix(".trials")
    assert begin_trial(trials)
    assert not make(engine, request())[0].compiled
    trials.write_text("")
    assert make(engine, request())[0].compiled


def test_a_package_that_computes_something_else_is_not_used(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compared with the eager UNet before it renders a picture."""
    monkeypatch.setattr(compiling.CompiledUnet, "__call__", lambda self, given: given.latents * 2)
    assert not make(engine_with(copied, tmp_path), request())[0].compiled


def test_a_folder_that_others_may_write_is_not_used(copied: Path, tmp_path: Path) -> None:
    """What is in it is run."""
    copied.chmod(0o777)
    assert not make(engine_with(copied, tmp_path), request())[0].compiled


def test_what_could_not_be_compiled_is_not_tried_again(folder: Path, tmp_path: Path) -> None:
    """By this version: the name of the package has all versions in it."""
    [package] = folder.glob("*.pt2")
    cache = tmp_path / "compiled"
    cache.mkdir(mode=0o700)
    failure_of(cache / package.name).write_text("nvcc was not found")
    engine = engine_with(cache, tmp_path)
    make(engine, request(), waiting=LONG_QUEUE)
    assert engine._compiled._process is None


@pytest.mark.heavy
def test_a_trial_without_memory_counts_as_none(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any number of them the package is used, once there is memory."""
    [package] = copied.glob("*.pt2")
    trials = package.with_suffix(".trials")
    full = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory."))
    with monkeypatch.context() as patch:
        patch.setattr(compiling, "CompiledUnet", full)
        for _ in range(MOST_TRIALS + 1):
            assert not make(engine_with(copied, tmp_path), request())[0].compiled
            os.utime(trials, (1, 1))
    assert full.call_count == MOST_TRIALS + 1
    assert make(engine_with(copied, tmp_path), request())[0].compiled


def test_a_compiled_unet_takes_no_memory_that_pictures_need(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that is there, nor compiling one."""
    monkeypatch.setattr(compiling, "_has_room", lambda loaded, copies: False)
    engine = engine_with(copied, tmp_path)
    assert not make(engine, request())[0].compiled
    make(engine, request(width=64), waiting=LONG_QUEUE)
    assert engine._compiled._process is None


@pytest.mark.parametrize(("free", "copies", "fits"), [(3, 1, True), (2, 1, False), (3, 2, False)])
def test_room_is_what_the_copies_leave_for_pictures(
    monkeypatch: pytest.MonkeyPatch, free: int, copies: int, fits: bool
) -> None:
    """Two gigabytes; a UNet of one here."""
    weight = SimpleNamespace(nbytes=2**30)
    unet = SimpleNamespace(device=torch.device("cuda:1"), parameters=lambda: [weight])
    monkeypatch.setattr(compiling, "free_bytes", lambda device: free * 2**30)
    assert compiling._has_room(SimpleNamespace(unet=unet), copies=copies) is fits  # type: ignore[arg-type]


def test_cards_of_one_kind_share_their_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code belongs to a kind of card, whatever its number."""
    names = ["RTX 4090", "RTX 4090", "RTX 3060"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: names[device.index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    first, second, other = (
        CompileJob({}, Shape(2, 64, 64, 77), "float16", True, f"cuda:{number}", 1, False).name
        for number in range(3)
    )
    assert first == second != other
