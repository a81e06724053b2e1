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


@pytest.mark.parametrize(
    ("setting", "side", "threads"),
    [
        ({"OMP_WAIT_POLICY": "PASSIVE"}, 128, 1),
        ({"GOMP_SPINCOUNT": "0"}, 128, 1),
        ({"GOMP_SPINCOUNT": "0"}, 136, 2),  # longer layers, which are worth waking another thread
        ({"GOMP_SPINCOUNT": "1000"}, 128, 2),
        ({"GOMP_SPINCOUNT": "1000", "OMP_WAIT_POLICY": "passive"}, 128, 2),  # as libgomp reads them
        ({}, 128, 2),
    ],
)
def test_a_small_picture_is_drawn_in_one_thread_where_threads_sleep(
    setting: dict[str, str],
    side: int,
    threads: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They would sleep and wake for each layer; afterwards there are as many as before."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
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
