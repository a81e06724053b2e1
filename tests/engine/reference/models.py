"""The files for the reference's cases: small models and pictures, created anew each time.

Random weights come from fixed seeds, so that they are the same ones each time.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
import yaml
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch import nn

from picowatch.catalog import embedded
from picowatch.engine.protocol import EngineOptions
from picowatch.recipe.request import ImageRequest
from tests.engine.adapters import Tensors, controlnet_of, kohya_lora, random_layer, union_of, write
from tests.engine.flow_requests import requests_of
from tests.engine.requests import circle, half, plain_options
from tests.engine.tiny_flows import tiny_unet

EXAMPLES = Path(__file__).parents[3] / "examples"
Values = dict[str, Any]
_USUAL: Values = {
    "prompt": "a red circle on a blue background", "checkpoint": "demo", "seed": 1, "exact": False,
    "sampler": "DPM++ 2M", "schedule_type": "karras", "steps": 6, "cfg_scale": 5.0,
    "width": 128, "height": 128,
}  # fmt: skip


class Models:
    """A folder with all models and pictures of the cases, and requests for them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        for name, picture in _pictures().items():
            picture.save(folder / f"{name}.png")
        _write_checkpoints(folder / "checkpoints")
        _write_demos_parts(folder)
        _write_sdxls_parts(folder)

    @property
    def options(self) -> EngineOptions:
        return plain_options(self._folder)

    def request(self, values: Values) -> ImageRequest:
        given = {**_USUAL, **values}
        given["size"] = f"{given.pop('width')}x{given.pop('height')}"
        checkpoint = given.pop("checkpoint")
        (request,) = requests_of(self._folder, checkpoint, yaml.safe_dump(given, sort_keys=False))
        return request


def _pictures() -> dict[str, Image.Image]:
    ring = Image.new("L", (96, 64))
    ImageDraw.Draw(ring).ellipse((24, 8, 72, 56), fill=160, outline=255, width=8)
    return {
        "circle": circle(),
        "wide": circle(96, 64),
        "corgi": Image.open(EXAMPLES / "corgi.png").convert("RGB"),
        "half": half(),
        "grey ring": ring,
        "sketch": _sketch(44, 48),
        "lower sketch": _sketch(84, 80),
    }


def _sketch(x: int, y: int) -> Image.Image:
    """The outline of a circle, black on white."""
    picture = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(picture).ellipse((x - 24, y - 24, x + 24, y + 24), outline="black", width=2)
    return picture


def _write_checkpoints(folder: Path) -> None:
    folder.mkdir()
    for name in ("sdxl", "sdxl-lcm", "sd2", "sd2-lcm"):
        (folder / f"tiny-{name}").symlink_to(tiny_unet(name))
    write_inpainting_demo(folder / "demo-inpaint")


def write_inpainting_demo(folder: Path) -> None:
    """Write the demo model with five more inputs of small weights."""
    shutil.copytree(_demo(), folder)
    config = folder / "unet/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 9}))
    (weights,) = (folder / "unet").glob("*.safetensors")
    tensors = load_file(weights)
    first = tensors["conv_in.weight"]
    more = torch.randn(len(first), 5, 3, 3, generator=torch.Generator().manual_seed(7)) * 0.02
    tensors["conv_in.weight"] = torch.cat([first, more.to(first.dtype)], dim=1)
    save_file(tensors, weights)


def _write_demos_parts(folder: Path) -> None:
    pipeline = _loaded(_demo())
    unet, encoder = pipeline.unet, pipeline.text_encoder
    loras = folder / "loras"
    write(loras / "both.safetensors", kohya_lora(unet, encoder, seed=1))
    for name, prefix in (("unet-only", "lora_unet_"), ("text-only", "lora_te_")):
        tensors = kohya_lora(unet, encoder, seed=len(prefix))
        part = {key: tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        write(loras / f"{name}.safetensors", part)
    write(loras / "with-kernels.safetensors", _lora_of_kernels(unet))
    words = pipeline.tokenizer("a red hat", add_special_tokens=False)["input_ids"]
    vectors = encoder.get_input_embeddings().weight[words].detach().clone()
    write(folder / "embeddings/redhat.safetensors", {"emb_params": vectors})
    for name in ("random", "random-shuffle"):
        write(folder / f"controlnet/{name}.safetensors", controlnet_of(unet, 1).state_dict())
    controlnet_of(unet, 2).save_pretrained(folder / "controlnet/random-folder")
    pipeline.vae.decoder.conv_out.bias.data += torch.tensor([0.3, 0.0, -0.3])
    pipeline.vae.save_pretrained(folder / "vae/warm")


def _write_sdxls_parts(folder: Path) -> None:
    pipeline = _loaded(tiny_unet("sdxl"))
    encoders = pipeline.text_encoder, pipeline.text_encoder_2
    write(folder / "loras/xl.safetensors", kohya_lora(pipeline.unet, *encoders, seed=4))
    for name, made in (
        ("xl", controlnet_of(pipeline.unet, 3)),
        ("xl-union", union_of(pipeline.unet)),
    ):
        write(folder / f"controlnet/{name}.safetensors", made.state_dict())


def _demo() -> Path:
    return embedded("checkpoint").path


def _loaded(folder: Path) -> Any:
    return diffusers.DiffusionPipeline.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True
    )


def _lora_of_kernels(unet: Any) -> Tensors:
    """What LyCORIS calls LoCon and LCM's LoRA is: the residual blocks' convolutions."""
    tensors: Tensors = {}
    for number, (name, module) in enumerate(unet.named_modules()):
        if isinstance(module, nn.Conv2d) and name.endswith(("conv1", "conv2")):
            flat = f"lora_unet_{name.replace('.', '_')}"
            down, up = random_layer(module, 6000 + number, size=0.2)
            tensors[f"{flat}.lora_down.weight"] = down
            tensors[f"{flat}.lora_up.weight"] = up
            tensors[f"{flat}.alpha"] = torch.tensor(2.0)
    return tensors
