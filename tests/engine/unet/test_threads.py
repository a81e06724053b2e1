"""How many threads draw a single picture."""

from pathlib import Path

import pytest
import torch

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.requests import request

pytestmark = [
    # diffusers' and torch's own, with this numpy.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.mark.parametrize(("side", "threads"), [(128, 1), (136, 2)])
def test_a_small_picture_is_drawn_in_one_thread(side: int, threads: int, tmp_path: Path) -> None:
    """More would wait for each other in each layer; afterwards there are as many as before."""
    before = torch.get_num_threads()
    seen: list[int] = []
    try:
        engine = Renderer(EngineOptions(models=tmp_path, device="cpu", threads=2))
        sized = request(width=side, height=side, steps=2)
        engine.render([sized], lambda done, total: seen.append(torch.get_num_threads()))
        assert seen == [threads, threads]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
