"""A recipe's own VAE for flow families: a diffusers script's picture with that VAE."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.metadata import parameters_text
from tests.engine.ldm import ldm_vae, weights
from tests.engine.pictures import circle
from tests.engine.test_flows import (
    CASES,
    apart,
    expected,
    rendered,
    requests_of,
)
from tests.engine.test_flows import pytestmark as pytestmark
from tests.engine.tiny_flows import tiny_flow
from tests.engine.transformer_files import Tensors, write

_WAN = (
    (r"mid_block\.resnets\.0\.", "middle.0."),
    (r"mid_block\.attentions\.0\.", "middle.1."),
    (r"mid_block\.resnets\.1\.", "middle.2."),
    (r"down_blocks\.(\d+)\.", r"downsamples.\1."),
    (r"up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"upsamples.{4 * int(m[1]) + int(m[2])}."),
    (r"up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"upsamples.{4 * int(m[1]) + 3}."),
    (r"norm1\.", "residual.0."),
    (r"conv1\.", "residual.2."),
    (r"conv_shortcut\.", "shortcut."),
    (r"norm2\.", "residual.3."),
    (r"conv2\.", "residual.6."),
    (r"norm_out\.", "head.0."),
    (r"conv_out\.", "head.2."),
    (r"^post_quant_conv\.", "conv2."),
    (r"^quant_conv\.", "conv1."),
    (r"\.conv_in\.", ".conv1."),
)


def wan(folder: Path) -> Tensors:
    """The names of Wan's authors, in which Qwen-Image's VAE is shared."""
    renamed = {}
    for name, tensor in weights(folder).items():
        for theirs, original in _WAN:
            name = re.sub(theirs, original, name)
        renamed[name] = tensor
    return renamed


def flux2(folder: Path) -> Tensors:
    """As its authors name it, without what diffusers counts."""
    inner = {"quant_conv.": "encoder.quant_conv.", "post_quant_conv.": "decoder.post_quant_conv."}
    renamed = {}
    for name, tensor in ldm_vae(folder).items():
        first = f"{name.partition('.')[0]}."
        renamed[name.replace(first, inner.get(first, first), 1)] = tensor
    del renamed["bn.num_batches_tracked"]
    return renamed


# The layouts of files; a checkpoint for each class of VAE, and for each scaling.
FILES: dict[str, tuple[Callable[[Path], Tensors], ...]] = {
    "FLUX.1-dev": (weights, ldm_vae),
    "sd3-medium": (ldm_vae,),
    "AuraFlow": (ldm_vae,),
    "FLUX.2-klein": (weights, flux2),
    "Qwen-Image": (weights, wan),
    "Sana": (weights,),
    "CogView4": (),
}


def another(checkpoint: str, folder: Path) -> Any:
    """A VAE like the checkpoint's with other weights, kept in that folder."""
    own = tiny_flow(checkpoint) / "vae"
    config = json.loads((own / "config.json").read_text())
    torch.manual_seed(1)
    vae = getattr(diffusers, config["_class_name"]).from_config(config)
    vae.save_pretrained(folder)
    return vae.eval()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "vae").mkdir()
    circle(64).save(tmp_path / "start.png")
    return tmp_path


@pytest.mark.parametrize("checkpoint", FILES)
def test_a_recipes_vae_is_the_one_that_a_script_would_put_in(models: Path, checkpoint: str) -> None:
    """As a folder; as a file with the numbers of the checkpoint's own config."""
    (models / "checkpoints" / checkpoint).symlink_to(tiny_flow(checkpoint))
    folder = models / "vae/soft"
    vae, case = another(checkpoint, folder), CASES[checkpoint]
    for number, layout in enumerate(FILES[checkpoint]):
        write(models / f"vae/file-{number}.safetensors", layout(folder))
    names = ["soft", *(f"file-{number}" for number in range(len(FILES[checkpoint])))]
    text = "prompt: a red cube\n"
    wanted, inputs = {"vae": vae, **case.plain}, case.from_text
    if case.from_image:
        text += "image: start.png\ndenoising_strength: 0.6\nsteps: 4\n"
        wanted |= {"image": circle(64), "strength": 0.6, "num_inference_steps": 4}
        inputs = case.from_image
    theirs = expected(inputs, checkpoint, case, **wanted)
    ours = Renderer(
        EngineOptions(
            models=models, device="cpu", precision="float32", threads=1, start_images=models
        )
    )
    (baked,) = rendered(ours, *requests_of(models, checkpoint, text))
    assert apart(baked, theirs) > 1
    for name in names:
        (request,) = requests_of(models, checkpoint, f"{text}vae: {name}")
        assert f"VAE: {name}, " in parameters_text(request, "0.1.0")
        assert request.vae_hash
        (image,) = rendered(ours, request)
        assert apart(image, theirs) <= 1, name


def test_a_vae_for_frames_computes_in_bfloat16(models: Path) -> None:
    """Its convolutions have five sides: they cannot be laid out as those for pictures are."""
    name = "Qwen-Image"
    (models / "checkpoints" / name).symlink_to(tiny_flow(name))
    another(name, models / "vae/soft")
    write(models / "vae/file.safetensors", wan(models / "vae/soft"))
    ours = Renderer(EngineOptions(models=models, device="cpu", precision="bfloat16", threads=1))
    one, other = (
        rendered(ours, *requests_of(models, name, f"prompt: a red cube\nvae: {vae}"))[0]
        for vae in ("soft", "file")
    )
    assert one.pixels == other.pixels
