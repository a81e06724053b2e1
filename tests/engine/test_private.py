"""Private names of libraries mean what the engine takes them for.

Tests of what is drawn fail if a name is gone. Other meanings fail in test_load.py (layers in
float32), test_gguf_fp8.py (old names of VAEs), test_loras.py (parts for LoRAs), test_compile.py
(nested arguments, the limit of compiled forms) and test_samplers.py (other levels than the beta
distribution's).
"""

import inspect
import platform
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

from picowatch.engine import private

_D: Any = diffusers


def test_the_cpu_tells_of_bfloat16() -> None:
    assert isinstance(torch.cpu._is_avx512_bf16_supported(), bool)
    if platform.machine() == "x86_64" and (linux := Path("/proc/cpuinfo")).exists():
        assert private.computes_bfloat16() == ("avx512_bf16" in linux.read_text())


def test_loaders_of_loras_take_the_pipeline_whose_offloading_they_renew() -> None:
    pipeline = _D.StableDiffusionPipeline
    (name,) = private.renewing_offloading(None)
    assert name in inspect.signature(pipeline.load_lora_into_text_encoder).parameters
    assert f'"{name}"' in inspect.getsource(_D.UNet2DConditionModel.load_lora_adapter)


def test_group_offloading_takes_changed_weights() -> None:
    """A module without it is left alone."""
    layer = nn.Linear(2, 2, bias=False).requires_grad_(requires_grad=False)
    private.renew_group_offloading(layer)
    apply_group_offloading(layer, torch.device("cpu"), offload_type="leaf_level")
    before = hooks_of(layer)
    assert before
    private.renew_group_offloading(layer)
    assert before != hooks_of(layer)
    assert len(before) == len(hooks_of(layer))


def hooks_of(layer: Any) -> list[int]:
    return [id(hook) for hook in layer._diffusers_hook.hooks.values()]


def test_a_config_tells_its_own_values_from_defaults() -> None:
    config = _D.EulerDiscreteScheduler.from_config({"beta_start": 0.5}).config
    assert config["beta_end"] == 0.02
    assert private.without_defaults(config) == {"beta_start": 0.5}


def test_a_scheduler_counts_from_the_step_of_a_timestep_on() -> None:
    scheduler = _D.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    assert scheduler.step_index is None
    private.begin_steps(scheduler, scheduler.timesteps[1])
    assert scheduler.step_index == 1
    private.count_step(scheduler)
    assert scheduler.step_index == 2
    scheduler.set_timesteps(4)
    assert scheduler.step_index is None
