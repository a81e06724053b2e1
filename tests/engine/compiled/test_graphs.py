"""CUDA graphs, pretended: captured where it pays off, and the same pictures as without."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from picowatch.engine.compiled import graphs
from picowatch.engine.compiled.compiled import CompiledUnets
from picowatch.engine.compiled.graphs import GraphedUnet
from picowatch.engine.compiled.measuring import example_of
from picowatch.engine.options import GRAPHS_FAILURE
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.unet.denoise import EagerUnet, Shape
from picowatch.engine.unet.draw import Drawing
from picowatch.engine.unet.kept import keep_between_steps
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ImageRequest
from tests.engine.control.test_against_diffusers import use as control
from tests.engine.pretended_gpu import PretendedGpu, pretended_gpu
from tests.engine.pretended_graphs import PretendedGraph, pretended_graphs
from tests.engine.requests import difference, ignore_steps, request
from tests.engine.test_pretended_gpu import models as models
from tests.engine.test_pretended_gpu import options
from tests.engine.tiny_models import tiny_unet
from tests.engine.unet.test_loras import use
from tests.engine.unet.test_start_images import start

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "sampler": "Euler"}


@pytest.fixture(scope="module")
def gpu() -> Iterator[PretendedGpu]:
    with pretended_gpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def engine(gpu: PretendedGpu, models: Path) -> Renderer:
    """On the card; it has loaded the demo model once for all tests."""
    return Renderer(options(models, "cuda", compiled=models / "cache"))


@pytest.fixture(scope="module")
def plain(models: Path) -> Renderer:
    return Renderer(options(models, "cpu"))


@pytest.fixture(autouse=True)
def graph(
    gpu: PretendedGpu,
    engine: Renderer,
    models: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[type[PretendedGraph]]:
    """Each test has its own graphs; one is four times as fast as eager steps."""
    others = engine._other_unets
    others.compiled = CompiledUnets(None)  # graphs alone
    others.graphs = engine._graphs = graphs.CapturedUnets(models / "cache")
    for kept in engine._checkpoints._kept.values():
        kept.loaded.graphs.clear()
    monkeypatch.setattr(graphs, "seconds_of", _seconds_of)
    with pretended_graphs(gpu) as graph:
        yield graph


def _seconds_of(unet: Any, inputs: Any) -> float:
    unet(inputs)
    return 0.25 if isinstance(unet, GraphedUnet) else 1.0


def drawn(engine: Renderer, *batch: ImageRequest, waiting: int = 0) -> RenderedImage:
    """The first picture of a batch."""
    return engine.render(batch, ignore_steps, waiting=waiting)[0]


LONG_QUEUE = 100


def test_the_second_batch_of_a_shape_is_computed_by_a_graph(
    graph: type[PretendedGraph], engine: Renderer, plain: Renderer
) -> None:
    """Its pictures are the CPU's, also with other prompts, edited ones and other timesteps."""
    first, *others = (
        request(**SMALL),
        request(prompt="a [red|green] [square:circle:0.5]", **SMALL),
        request(negative_prompt="red", **(SMALL | {"schedule_type": "exponential"})),
    )
    drawn(engine, first)
    assert not graph.made
    for index, one in enumerate(others):
        replays = graph.replays
        found = drawn(engine, one)
        assert graph.replays - replays >= one.steps, index
        assert difference(found, drawn(plain, one)) <= 1, index
        assert not found.compiled
    assert len(graph.made) == 1
    replays = graph.replays
    drawn(engine, request(exact=True, **SMALL)), drawn(engine, request(tiling=True, **SMALL))
    assert graph.replays == replays, "their kernels are others"


@pytest.mark.heavy
def test_each_pass_of_hires_and_each_kind_of_steps_has_a_graph(
    graph: type[PretendedGraph], engine: Renderer, plain: Renderer
) -> None:
    """They share their memory, and a queue is worth them at once."""
    one = request(hires=Hires(scale=1.5, steps=2), **SMALL)
    half = request(cfg_end=0.5, **(SMALL | {"steps": 4}))
    for wanted in (one, half):
        found = drawn(engine, wanted, waiting=LONG_QUEUE)
        assert difference(found, drawn(plain, wanted)) <= 1
    assert len(graph.made) == 3 and len({id(one.pool) for one in graph.made}) == 1


@pytest.mark.heavy
def test_other_loras_are_another_graph(
    graph: type[PretendedGraph],
    engine: Renderer,
    plain: Renderer,
    models: Path,
) -> None:
    """The old one is gone: it would compute with the LoRAs that it was captured with."""
    styled = request(loras=(use(models, "a", 0.5),), **SMALL)
    for index, one in enumerate((request(**SMALL), styled), 1):
        found = drawn(engine, one, waiting=LONG_QUEUE)
        assert difference(found, drawn(plain, one)) <= 1
        assert len(graph.made) == index
        assert sum(bool(one.operations) for one in graph.made) == 1


def test_loras_that_are_read_again_are_another_graph(
    graph: type[PretendedGraph], engine: Renderer, plain: Renderer, models: Path
) -> None:
    """Those that the first one computes with are gone: an image without a graph had others."""
    styled = request(loras=(use(models, "a", 0.5),), **SMALL)
    drawn(engine, styled, waiting=LONG_QUEUE)
    drawn(engine, request(exact=True, **SMALL))
    assert not any(one.operations for one in graph.made)
    assert engine._graphs.held_bytes == 0
    engine._checkpoints.held(styled).loras._files.clear()
    assert difference(drawn(engine, styled, waiting=LONG_QUEUE), drawn(plain, styled)) <= 1
    assert len(graph.made) == 2


@pytest.mark.heavy
def test_controlnets_add_to_a_graph_while_they_act(
    graph: type[PretendedGraph],
    engine: Renderer,
    plain: Renderer,
    models: Path,
) -> None:
    """And zeros where they rest."""
    acting = control(models, "first", end=0.4)
    one = request(control=(acting,), **(SMALL | start(models, 0.9)))
    found = drawn(engine, one, waiting=LONG_QUEUE)
    assert graph.replays >= 2
    assert difference(found, drawn(plain, one)) <= 1


def test_without_memory_to_spare_there_is_no_graph(
    graph: type[PretendedGraph], engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures need it."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda *_: (2**30, 24 * 2**30))
    drawn(engine, request(**SMALL), waiting=LONG_QUEUE)
    assert not graph.made


def test_graphs_go_first_when_memory_runs_out(
    graph: type[PretendedGraph], engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is rendered again without, and no other one is captured for its shape."""
    decode, failing = Drawing.decode, [1]

    def decode_or_fail(*args: Any, **named: Any) -> Any:
        if failing and failing.pop():
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return decode(*args, **named)

    monkeypatch.setattr(Drawing, "decode", decode_or_fail)
    for _ in range(2):
        assert drawn(engine, request(**SMALL), waiting=LONG_QUEUE).memory_rung == "full"
    assert [bool(one.operations) for one in graph.made] == [False]


def test_a_capture_that_fails_is_the_last_and_noted(
    graph: type[PretendedGraph],
    engine: Renderer,
    models: Path,
) -> None:
    """One that runs out of memory is the last of its shape only; pictures go on in both cases."""
    ends = [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("operation not permitted when stream is capturing"),
    ]
    note = models / "cache" / GRAPHS_FAILURE
    for width, error in zip((64, 128), ends, strict=True):
        assert not note.exists()
        with patch.object(torch.cuda, "graph", side_effect=error):
            drawn(engine, request(**(SMALL | {"width": width})), waiting=LONG_QUEUE)
    assert note.read_text().endswith("RuntimeError: " + str(ends[1]))
    made = len(graph.made)
    drawn(engine, request(**(SMALL | {"height": 128})), waiting=LONG_QUEUE)
    assert len(graph.made) == made
    note.unlink()


@pytest.mark.parametrize("wrong", [True, False])
def test_a_graph_that_gains_nothing_is_given_back(
    graph: type[PretendedGraph], engine: Renderer, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    """Or one that computes something else."""
    if wrong:
        monkeypatch.setattr(graphs, "agree", lambda *_: False)
    else:
        monkeypatch.setattr(graphs, "seconds_of", lambda *_: 1.0)
    for _ in range(2):
        drawn(engine, request(**SMALL), waiting=LONG_QUEUE)
    assert [bool(one.operations) for one in graph.made] == [False]
    assert bool(engine._graphs.failure) is wrong


@torch.inference_mode()
def test_sdxl_is_captured_with_its_summaries_and_sizes(gpu: PretendedGpu) -> None:
    """And no result is where the next one is written."""
    unet = tiny_unet(transformer_layers_per_block=1).eval().to("cuda")
    keep_between_steps(unet)
    loaded: Any = SimpleNamespace(unet=unet, loras=SimpleNamespace(applied=()))
    shape = Shape(2, 8, 8, 77)
    graphed, eager = GraphedUnet(loaded, shape, object()), EagerUnet(unet)
    example, other = (example_of(unet, shape) for _ in range(2))
    assert other.prompts.pooled is not None
    other.prompts.pooled.mul_(-1)
    steps = eager.foresee(torch.tensor([900.0, 20.0], device="cuda"))
    pairs = zip((example, other), steps, strict=True)
    made = [one._replace(timestep=step) for one, step in pairs]
    found = [graphed(one) for one in made]
    for one, given in zip(found, made, strict=True):
        assert torch.allclose(one.cpu(), eager(given).cpu(), atol=1e-5)
