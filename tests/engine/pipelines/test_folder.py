"""Parts of diffusers folders as they are read."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import transformers
from picowatch.engine.pipelines.loading import read_part

from picowatch.catalog.models import Part
from picowatch.engine.flow_samplers import scheduler_for
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from tests.engine.test_flows import requests_of
from tests.engine.tiny_flows import tiny_flow
from tests.engine.requests import ignore_steps

_D: Any = diffusers
_T: Any = transformers


def test_a_scheduler_with_beta_sigmas_needs_no_scipy(tmp_path: Path) -> None:
    """At even quantiles of the beta distribution, from the first to the last noise level."""
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_beta_sigmas": True}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(config))
    part = Part("scheduler", "FlowMatchEulerDiscreteScheduler", tmp_path)
    scheduler = read_part(part, torch.float32, torch.device("cpu"))
    for sampler in ("Euler", "UniPC"):
        _check_levels(scheduler_for(sampler, scheduler))


def _check_levels(scheduler: Any) -> None:
    assert scheduler.config.use_beta_sigmas
    scheduler.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4, 0.2])
    levels = (scheduler.sigmas[:-1].double().numpy() - 0.2) / 0.8
    # The share of the distribution below each, by the sum over many thin slices.
    x = np.linspace(0, 1, 2_000_001)[1:-1]
    mass = np.cumsum((x * (1 - x)) ** (0.6 - 1))
    shares = np.interp(levels, x, mass / mass[-1])
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=1e-3)


# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning")
def test_weights_in_several_files_draw_the_same_picture(tmp_path: Path) -> None:
    """The transformer's and a text encoder's shards, as large folders have them.

    Without a list of what is in each; in fp16 as well, in bf16 as Sana has them, and with fp16
    where diffusers once wrote it, as AuraFlow has it, in a folder with a dot in its name.
    """
    name = "FLUX.1-schnell"
    copies = ("whole", "shards", "unlisted", "half", "bf16", "v0.3")
    for copy in copies:
        shutil.copytree(tiny_flow(name), tmp_path / copy / "checkpoints" / name)
    sizes = {"transformer": "20KB", "text_encoder_2": "20KB"}
    kinds = {"transformer": _D.FluxTransformer2DModel, "text_encoder_2": _T.T5EncoderModel}
    for part, size in sizes.items():
        model = kinds[part].from_pretrained(tiny_flow(name) / part)
        for copy, variant in (
            ("unlisted", None),
            ("shards", None),
            ("half", "fp16"),
            ("bf16", "bf16"),
            ("v0.3", "fp16"),
        ):
            folder = tmp_path / copy / "checkpoints" / name / part
            for file in folder.glob("*.safetensors"):
                file.unlink()
            model.save_pretrained(folder, variant=variant, max_shard_size=size)
            assert len([*folder.glob(f"*{variant or ''}-*-of-*.safetensors")]) > 1
        for file in (tmp_path / "unlisted/checkpoints" / name / part).glob("*.index.json"):
            file.unlink()
        for file in (tmp_path / "v0.3/checkpoints" / name / part).iterdir():
            old = re.sub(r"\.fp16(-\d+-of-\d+)", r"\1.fp16", file.name)
            file.rename(file.with_name(old.replace(".index.fp16.json", ".fp16.index.json")))
    found = {}
    for copy in copies:
        models = tmp_path / copy
        options = EngineOptions(models=models, device="cpu", precision="float32", threads=1)
        wanted = requests_of(models, name, "prompt: a red cube")
        (image,) = Renderer(options).render(wanted, ignore_steps)
        found[copy] = image.pixels
    assert all(found[copy] == found["whole"] for copy in copies)
