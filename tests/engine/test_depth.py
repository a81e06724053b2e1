"""Depth by a tiny, random Depth Anything, read from a folder as the real one is."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from picowatch.catalog import Catalog
from picowatch.engine.renderer import Renderer
from tests.engine.pictures import circle
from tests.engine.reference.models import Models
from tests.engine.requests import NUMPY_WARNINGS, draw

pytestmark = NUMPY_WARNINGS
NAME = "Depth-Anything-Tiny"


def tiny_depth() -> Any:
    """Return a model with the parts and options of the real one."""
    torch.manual_seed(1)
    kind: Any = Dinov2Config
    stages = [f"stage{number}" for number in (1, 2, 3, 4)]
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = DepthAnythingConfig(
        backbone_config=kind(
            image_size=28, patch_size=14, out_features=stages, reshape_hidden_states=False, **sizes
        ),
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    made: Any = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3)
        made.head.conv3.weight.abs_()  # or the last ReLU may cut all of it off
    return made.eval()


def test_a_picture_follows_its_depth(tmp_path: Path) -> None:
    """As transformers gives it, nearest white, farthest black; it is shown."""
    models, model = Models(tmp_path / "models"), tiny_depth()
    model.save_pretrained(tmp_path / "models/depth" / NAME)
    catalog = Catalog(tmp_path / "models")
    follows = {"image": "circle", "model": "random", "preprocess": "depth", "preview": True}
    depth_hash = catalog.sha256(catalog.find("depth", NAME))
    control = [follows | {"depth": NAME, "depth_hash": depth_hash}]
    (image,) = draw(Renderer(models.options), models.request({"steps": 1, "control": control}))
    found = np.frombuffer(image.control_maps[0].pixels, np.uint8).reshape(128, 128, 3)
    assert (found.min(), found.max()) == (0, 255)
    small = np.asarray(circle(128).resize((518, 518), Image.Resampling.BICUBIC))
    values = (small / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        depth = model(torch.from_numpy(values).permute(2, 0, 1)[None].float()).predicted_depth
    depth = torch.nn.functional.interpolate(depth[:, None], (128, 128), mode="bilinear")[0, 0]
    expected = (depth - depth.min()) / (depth.max() - depth.min()) * 255
    assert np.abs(found[:, :, 0] - expected.numpy().astype(int)).max() <= 1
