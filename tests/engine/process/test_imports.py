"""What the engine's process imports for its first picture, and what it can import later."""

import subprocess
import sys

import pytest

from tests.commands.picowatch import clean_environment

_START = """
import sys
from picowatch.engine.child_main import import_renderer
from picowatch.engine.options import EngineOptions
from pathlib import Path
from tests.engine.requests import request
renderer = import_renderer()(EngineOptions(models=Path("nowhere")), lambda preview: None)
renderer.render([request(steps=1, width=64, height=64)], lambda done, of: None, lambda: False, 0)
"""
_LATER = """
import torch
dead_weight = {"sympy", "torch._dynamo", "torch.distributed.tensor", "torch._dynamo.eval_frame",
               "diffusers.models.transformers.transformer_flux", "huggingface_hub.hf_api",
               "requests.sessions"} & {*sys.modules}
assert not dead_weight, dead_weight
from picowatch.engine.models.parts import UNet2DConditionModel
from diffusers import FluxTransformer2DModel
from diffusers.models import transformers as package, unets
from transformers import CLIPTextModel, T5EncoderModel
import transformers
assert package.FluxTransformer2DModel is FluxTransformer2DModel
assert unets.UNet2DConditionModel is UNet2DConditionModel
assert CLIPTextModel is sys.modules["transformers.models.clip.modeling_clip"].CLIPTextModel
assert transformers.T5Config and transformers.models.t5 and transformers.__version__
from huggingface_hub import HfApi
assert type(transformers.utils.hub.HfApi()) is HfApi
import requests
assert requests.get and requests.exceptions.ConnectionError
try:
    from transformers import Nothing
except ImportError:
    print("as ever")
"""
_COMPILED = """
from picowatch.engine.models.parts import UNet2DConditionModel
import torch
unet = UNet2DConditionModel(
    sample_size=8, block_out_channels=(32,), layers_per_block=1, cross_attention_dim=8,
    norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",), mid_block_type=None,
)
inputs = torch.ones(1, 4, 8, 8), 1, torch.ones(1, 4, 8)
whole = torch.compile(unet, backend="eager", fullgraph=True)
assert torch.equal(whole(*inputs).sample, unet(*inputs).sample)
from torch._inductor import aoti_load_package
print("as ever")
"""


def said_by(program: str) -> str:
    """What a new process prints that runs this after the engine's imports."""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _START + program],
        env=clean_environment(), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_a_first_picture_imports_only_what_it_needs_and_the_rest_can_follow() -> None:
    """Other families' classes are what they are without it, and so is an error."""
    assert said_by(_LATER) == "as ever\n"


@pytest.mark.heavy
def test_torchs_compiler_works_after_it() -> None:
    """Though it was not there when the models were defined."""
    assert said_by(_COMPILED) == "as ever\n"
