"""The memory ladder against a real allocator's limit; runs where there is a CUDA device."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.requests import difference, ignore_steps, request

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

BATCH = 8


@pytest.fixture
def all_memory_back() -> Iterator[None]:
    """Whatever a test allows the process, the next one has the whole card."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_a_batch_that_does_not_fit_is_rendered_on_a_lower_rung(
    all_memory_back: None, tmp_path: Path
) -> None:
    """The same pictures, within rounding, in 60 % of the memory that they took at full speed."""
    engine = Renderer(EngineOptions(models=tmp_path, device="cuda"))
    batch = [request(seed=seed, steps=4, width=512, height=512) for seed in range(BATCH)]
    plain = engine.render(batch, ignore_steps)
    assert {image.memory_rung for image in plain} == {"full"}
    needed = torch.cuda.max_memory_reserved()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(0.6 * needed / total)
    fresh = Renderer(EngineOptions(models=tmp_path, device="cuda"))
    images = fresh.render(batch, ignore_steps)
    assert all(image.memory_rung != "full" for image in images)
    # Float16 rounds otherwise in another batch size.
    assert all(difference(*pair) <= 16 for pair in zip(images, plain, strict=True))
