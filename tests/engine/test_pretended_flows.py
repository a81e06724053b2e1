"""Weights of a flow family that move to a card and back, on a pretended one."""

from pathlib import Path

import pytest

from picowatch.engine.memory import FLOW_LADDER, Ladders, MemoryLadder
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.recipe.request import ImageRequest
from tests.engine.pictures import circle
from tests.engine.pretended_gpu import pretended_gpu
from tests.engine.requests import ignore_steps, pixels
from tests.engine.test_flows import SIDE, requests_of
from tests.engine.test_pretended_gpu import options
from tests.engine.tiny_flows import tiny_flow

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

FAMILY = "Z-Image-Turbo"
RUNGS = {rung.name: rung for rung in FLOW_LADDER}
RECIPE = "image: start.png\nstrength: 0.6\nhires: {scale: 1.5, steps: 2}\nexact: false\n"


def on_rung(engine: Renderer, name: str, batch: list[ImageRequest]) -> list[RenderedImage]:
    engine._ladder = MemoryLadder("full", Ladders([], [RUNGS[name]]), None)
    return engine.render(batch, ignore_steps)


def test_weights_that_move_come_once_for_all_groups_of_a_batch(tmp_path: Path) -> None:
    """With start images and hires, whose VAE encodes all of them and decodes all of them.

    Not with 8-bit weights: diffusers replaces their objects where these tests pretend a card.
    """
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / FAMILY).symlink_to(tiny_flow(FAMILY))
    circle(SIDE).save(tmp_path / "start.png")
    batch = [
        one
        for prompt in ("a red cube", "two blue balls on grass")
        for one in requests_of(tmp_path, FAMILY, f"prompt: {prompt}\n{RECIPE}")
    ]
    expected = on_rung(Renderer(options(tmp_path, "cpu")), "VAE tiling", batch)
    with pretended_gpu() as gpu:
        engine = Renderer(options(tmp_path, "cuda"))
        for name in ("model offload", "group offload"):
            images = on_rung(engine, name, batch)
            assert gpu.mixed == []
            pairs = [(pixels(a), pixels(b)) for a, b in zip(images, expected, strict=True)]
            assert max(abs(a - b).mean() for a, b in pairs) < 0.5, name
            if name == "model offload":
                parts = engine._checkpoints.held(batch[0]).models
                loads = [gpu.loads[next(part.parameters()).data_ptr()] for part in parts]
                # After the first pass the VAE stays: it encodes again what it decoded.
                assert loads == [1, 2, 3]
