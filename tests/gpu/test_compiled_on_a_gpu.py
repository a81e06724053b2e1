"""Compiled UNets and progress on a CUDA device; runs where there is one."""

from pathlib import Path

import pytest
import torch

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.errors import EngineStopped
from tests.engine.requests import difference, ignore_steps, request

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

COMPILE_SECONDS = 600.0


def test_a_compiled_unet_renders_the_same_picture(tmp_path: Path) -> None:
    """Within what float16 rounds."""
    engine = Renderer(EngineOptions(models=tmp_path, device="cuda", compiled=tmp_path / "compiled"))
    [plain] = engine.render([request()], ignore_steps, waiting=10**6)
    assert not plain.compiled
    compiling = engine._compiled._process
    assert compiling is not None
    compiling.wait(COMPILE_SECONDS)
    [image] = engine.render([request()], ignore_steps)
    assert image.compiled
    assert difference(image, plain) <= 16


def test_an_interruption_is_heard_in_the_middle(tmp_path: Path) -> None:
    """Steps are reported when they are done, not when they are queued."""
    engine = Renderer(EngineOptions(models=tmp_path, device="cuda"))
    seen: list[int] = []
    with pytest.raises(EngineStopped):
        engine.render(
            [request(steps=20)], lambda done, _: seen.append(done), lambda: len(seen) >= 5
        )
    assert len(seen) == 5
