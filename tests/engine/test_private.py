"""Private names of libraries mean what the engine takes them for.

Others fail for the rest: test_load.py (layers in float32), test_gguf_fp8.py (old names of VAEs),
test_loras.py (parts for LoRAs), test_compile.py (the limit of compiled forms) and test_samplers.py
(other levels than the beta distribution's).
"""

import inspect
import platform
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks import apply_group_offloading
from torch import nn

from picowatch.engine import private
from tests.engine.demo import demo

_D: Any = diffusers


def test_nested_arguments_are_flattened_and_restored() -> None:
    given = ({"a": [torch.zeros(1), 2]}, None)
    leaves, tree = private.tree_flatten(given)
    assert leaves == [torch.zeros(1), 2, None]
    assert private.tree_unflatten([1, 2, 3], tree) == ({"a": [1, 2]}, 3)
    assert isinstance(tree, private.TreeSpec)
    assert private.tree_map_only(int, str, given)[0]["a"][1] == "2"


def test_the_cpu_tells_of_bfloat16() -> None:
    """As Linux does."""
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


def test_a_pipeline_tells_where_it_computes() -> None:
    pipeline = _D.StableDiffusionPipeline(
        **demo(), safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    assert private.execution_device(pipeline) == torch.device("cpu")


def test_lumina2_encodes_a_prompt_without_its_preamble() -> None:
    """test_flows.py compares what it computes."""
    given = inspect.signature(_D.Lumina2Pipeline._get_gemma_prompt_embeds).parameters.values()
    assert [arg.name for arg in given if arg.default is arg.empty] == ["self", "prompt"]


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


def test_ideogram4_counts_places_and_reads_layers_by_methods_of_its_pipeline() -> None:
    """test_flows.py compares what they return."""
    takes = {
        "_prepare_ids": ["text_lengths", "grid_h", "grid_w", "max_text_tokens", "device"],
        "_get_text_encoder_hidden_states": [
            *("text_encoder", "token_ids", "attention_mask", "pos_2d")
        ],
    }
    for name, expected in takes.items():
        assert [*inspect.signature(getattr(_D.Ideogram4Pipeline, name)).parameters] == expected
