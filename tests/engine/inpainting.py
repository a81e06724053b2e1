"""An inpainting checkpoint made of the demo model."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.engine.control_requests import DEMO
from tests.engine.ldm import weights


def inpainting_demo(models: Path) -> Path:
    """The demo with five more inputs, to which it is blind."""
    folder = models / "checkpoints/inpaint"
    shutil.copytree(DEMO, folder)
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"in_channels": 9}))
    tensors = weights(folder / "unet")
    blind = torch.zeros(64, 5, 3, 3, dtype=tensors["conv_in.weight"].dtype)
    tensors["conv_in.weight"] = torch.cat([tensors["conv_in.weight"], blind], dim=1)
    save_file(tensors, folder / "unet/diffusion_pytorch_model.safetensors")
    return folder
