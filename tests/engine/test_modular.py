"""Modular pipelines: guiders, offloading, and what diffusers passes over in silence."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog
from picowatch.catalog.folder_files import folder_files
from picowatch.engine.model.families import built
from picowatch.families import FAMILIES
from tests.engine.flow_requests import flow_models, flow_renderer, requests_of, scripted
from tests.engine.part_files import ANIMA
from tests.engine.requests import draw, pixels
from tests.engine.rungs import interrupt
from tests.engine.test_flows import CUBE, called, same
from tests.engine.tiny_flows import tiny_flow

NAME = ANIMA


def test_guidance_has_a_beginning_an_end_and_a_rescale() -> None:
    """As in Stable Diffusion, a step at exactly `cfg_end` is guided, one at `cfg_start` not yet."""
    cases: dict[str, tuple[dict[str, float], int]] = {
        "cfg_rescale: 0.7": ({"rescale": 0.7}, 8),
        "cfg_start: 0.25": ({"start": 0.5}, 6),
        "cfg_end: 0.4": ({"stop": 0.5}, 6),
        "cfg_start: 0.25\ncfg_end: 0.5": ({"start": 0.5, "stop": 0.75}, 5),
    }
    ours, pipeline = flow_renderer(flow_models(NAME)), scripted(None, NAME)
    calls: list[None] = []
    pipeline.transformer.register_forward_hook(lambda *_: calls.append(None))
    for lines, (guider, evaluations) in cases.items():
        recipe = f"{CUBE}\nnegative_prompt: blur\ncfg_scale: 4\nsteps: 4\n{lines}"
        (image,) = draw(ours, *requests_of(flow_models(NAME), NAME, recipe))
        values: dict[str, Any] = {f"guidance_{name}": value for name, value in guider.items()}
        values |= {"negative_prompt": "blur", "guidance_scale": 4.0, "num_inference_steps": 4}
        calls.clear()
        assert same(pixels(image), called(pipeline, values)), lines
        assert len(calls) == evaluations, lines


def test_what_is_missing_or_unknown_is_named() -> None:
    """diffusers would draw without a word, or with None for a part."""
    row = FAMILIES["anima"]
    with pytest.raises(TypeError, match="AnimaModularPipeline needs a scheduler"):
        built(row, row.variant(""), "text", {"text_encoder": None})
    pipeline = built(row, row.variant(""), "text", scripted(None, NAME).components)
    with pytest.raises(TypeError, match="AnimaModularPipeline takes no stength"):
        pipeline(prompt=["a red cube"], stength=0.5)


def test_an_interrupted_batch_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """diffusers would log the traceback of every block around the step."""
    models = flow_models(NAME)
    interrupt(flow_renderer(models), requests_of(models, NAME, CUBE))
    assert not [record for record in caplog.records if record.name.startswith("diffusers")]


def test_every_part_of_a_folder_is_in_its_hash(tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_flow(NAME), tmp_path / "checkpoints/it")
    paths = (path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file())
    assert {*folder_files(copy)} == {*paths}
    shutil.rmtree(copy / "vae")
    (refused,) = Catalog(tmp_path).scan().refused
    assert refused.reason == (
        "it is a diffusers folder without vae/: copy the whole folder. Its index takes this part "
        f"from {FAMILIES['anima'].hub}."
    )
