"""What is in a card's memory on each rung, counted on the pretended one.

Run by test_on_a_pretended_card.py.
"""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model import memory
from picowatch.engine.model.memory import CARD_LADDER, TURNS, MemoryLadder, Room
from picowatch.engine.protocol import EngineOptions, RenderedImage
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of
from tests.engine.requests import ignore_steps, request
from tests.gpu.pretended import BYTES, MEMORY

SLACK = 2**22  # tiny models lose little between their tensors
SIDE = 192


@pytest.fixture(autouse=True)
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave a card as large as before."""
    monkeypatch.setattr(memory, "_CARD_SLACK", SLACK)
    yield
    MEMORY.size = BYTES


def model(name: str) -> tuple[Renderer, ImageRequest]:
    """A renderer, and an image of this checkpoint."""
    if name == "demo":
        renderer = Renderer(EngineOptions(models=Path("nowhere"), threads=1))
        return renderer, request(steps=2, width=SIDE, height=SIDE)
    models = flow_models(name)
    (wanted,) = requests_of(models, name, f"prompt: a cube\nsize: {SIDE}x{SIDE}\nexact: false")
    return flow_renderer(models), wanted


def rendered(
    renderer: Renderer, wanted: ImageRequest, room: Room
) -> tuple[RenderedImage, list[int]]:
    """The picture, and the steps that were reported."""
    steps: list[int] = []
    renderer._ladder = MemoryLadder("auto", lambda: room)
    (image,) = renderer.render([wanted], lambda done, _: steps.append(done))
    return image, steps


@pytest.mark.parametrize("name", ["demo", "FLUX.1-dev", "Z-Image-Turbo"])
def test_no_picture_is_drawn_twice_from_its_first_step(name: str) -> None:
    """A card that has just room for a rung renders on it, or above, at the first attempt."""
    for rung in CARD_LADDER:
        renderer, wanted = model(name)
        weights = renderer._checkpoints.weights(wanted)
        if rung == TURNS and not weights.takes_turns:
            continue
        gc.collect()
        size = weights.on_device(rung, SIDE**2) + SLACK
        MEMORY.size, MEMORY.most = MEMORY.used + size, 0
        room = Room(0 if rung == TURNS else 2**40, size)
        image, steps = rendered(renderer, wanted, room)
        above = [one.name for one in CARD_LADDER[: CARD_LADDER.index(rung) + 1]]
        assert image.memory_rung in above
        assert steps == sorted(set(steps))


def test_weights_without_room_are_refused_and_none_is_loaded() -> None:
    """Neither the card nor main memory has room."""
    renderer, wanted = model("FLUX.1-dev")
    before = MEMORY.used
    renderer._ladder = MemoryLadder("auto", lambda: Room(2**10, 2**10))
    with pytest.raises(RenderFailed, match="can be used"):
        renderer.render([wanted], ignore_steps)
    assert before >= MEMORY.used
