"""Private names of libraries mean what the engine takes them for, where no picture would tell."""

import inspect
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

from picowatch.engine import private

_D: Any = diffusers


def test_loaders_of_loras_take_the_pipeline_whose_offloading_they_renew() -> None:
    pipeline = _D.StableDiffusionPipeline
    (name,) = private.renewing_offloading(None)
    assert name in inspect.signature(pipeline.load_lora_into_text_encoder).parameters
    assert f'"{name}"' in inspect.getsource(_D.UNet2DConditionModel.load_lora_adapter)


def test_group_offloading_takes_changed_weights() -> None:
    """A module without it is left alone."""
    layer: Any = nn.Linear(2, 2, bias=False).requires_grad_(requires_grad=False)
    private.renew_group_offloading(layer)
    apply_group_offloading(layer, torch.device("cpu"), offload_type="leaf_level")
    before = {*layer._diffusers_hook.hooks.values()}
    private.renew_group_offloading(layer)
    after = {*layer._diffusers_hook.hooks.values()}
    assert before and len(before) == len(after) and not before & after


def test_a_config_tells_its_own_values_from_defaults() -> None:
    config = _D.EulerDiscreteScheduler.from_config({"beta_start": 0.5}).config
    assert config["beta_end"] == 0.02
    assert private.without_defaults(config) == {"beta_start": 0.5}


@pytest.mark.parametrize("kind", [_D.StableDiffusionPipeline, _D.StableDiffusionXLPipeline])
def test_guidance_changes_between_steps(kind: Any) -> None:
    pipeline = kind.__new__(kind)
    pipeline.__dict__["unet"] = SimpleNamespace(config=SimpleNamespace(time_cond_proj_dim=None))
    pipeline.register_to_config()
    for scale in (1.0, 3.0):
        private.set_guidance_scale(pipeline, scale)
        assert pipeline.guidance_scale == scale
        assert pipeline.do_classifier_free_guidance == (scale > 1)


def test_kontext_can_keep_a_references_size() -> None:
    parameters = inspect.signature(_D.FluxKontextPipeline.__call__).parameters
    assert parameters[private.AUTO_RESIZE].default is True
