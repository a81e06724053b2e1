"""UNets that ControlNets add to are compiled for themselves."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.compiled.test_compiled import COMPILE_SECONDS, LONG_QUEUE, wait_for_compiling
from tests.engine.control.controlnets import controlnet_of, save_single
from tests.engine.control.test_against_diffusers import DEMO, requested, unet_of, use
from tests.engine.requests import difference, ignore_steps

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(
        not shutil.which("g++") and not shutil.which("clang++"), reason="needs a C++ compiler"
    ),
    # numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    pytest.mark.timeout(COMPILE_SECONDS + 100),
]


def test_pictures_with_controlnets_are_compiled_too(tmp_path: Path) -> None:
    """Also where the ControlNet rests in some steps, which adds zeros; nothing else uses it."""
    save_single(controlnet_of(unet_of(DEMO), 1), tmp_path / "controlnet/first.safetensors")
    engine = Renderer(
        EngineOptions(
            models=tmp_path, device="cpu", compiled=tmp_path / "compiled", start_images=tmp_path
        )
    )
    always = requested(tmp_path, use(tmp_path, "first"))
    resting = requested(tmp_path, use(tmp_path, "first", start=0.3, end=0.6))
    pooled = replace(always, control=(replace(always.control[0], mode="control"),))
    wanted = (always, resting, pooled)
    plain = [engine.render([one], ignore_steps)[0] for one in wanted]
    engine.render([always], ignore_steps, waiting=LONG_QUEUE)
    wait_for_compiling(engine)
    for one, expected in zip(wanted, plain, strict=True):
        (found,) = engine.render([one], ignore_steps)
        assert found.compiled and not expected.compiled
        assert difference(found, expected) <= 2
    (without,) = engine.render([replace(always, control=())], ignore_steps)
    assert not without.compiled
