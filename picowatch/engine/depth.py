"""Guesses depth with a model of Depth Anything that the user installed.

Its pictures are prepared as by its authors: the shorter side brought to 518 pixels, both sides to
multiples of 14 (preprocessor_config.json of Depth-Anything-V2-Small-hf).
"""

from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from picowatch.catalog.folder_files import depth_config
from picowatch.engine.canvas import Bytes
from picowatch.engine.devices import Target
from picowatch.engine.gguf_fp8 import read_tensors
from picowatch.engine.part_files import transformers_model
from picowatch.engine.verify import FindFile, unchanged
from picowatch.recipe.request import ControlUse

_SHORTER_SIDE = 518
# ImageNet's, which its backbone was trained with.
_MEAN, _SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DepthModels:
    """The model that was used last stays in memory, on the device that it computes on."""

    def __init__(self, find: FindFile, target: Target) -> None:
        self._find = find
        self._target = target
        self._kept = lru_cache(1)(self._load)
        self._lock = Lock()  # on a CPU, parts of a batch ask at once

    def guess(self, picture: Bytes, use: ControlUse) -> Bytes:
        """The nearest part of an RGB picture white, the farthest black; of its size."""
        with self._lock:
            model = self._kept(use.depth, use.depth_hash)
        return _guessed(model, picture, self._target.device)

    def forget(self) -> None:
        """Give its memory back."""
        self._kept.cache_clear()

    def _load(self, name: str, sha256: str) -> Any:
        # Here, for every engine's start would wait for what few recipes need.
        from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

        with unchanged(self._find, "depth", name, sha256) as at:
            values, backbone = depth_config(at)
            config = DepthAnythingConfig(**values, backbone_config=Dinov2Config(**backbone))
            dtype, device = self._target.dtype, self._target.device
            tensors = read_tensors(at, lambda _: dtype, device)
            kind, what = DepthAnythingForDepthEstimation, f"depth model {name!r}"
            return transformers_model(kind, config, tensors, what, dtype).to(device)


def _guessed(model: Any, picture: Bytes, device: torch.device) -> Bytes:
    height, width = picture.shape[:2]
    scale, patch = _SHORTER_SIDE / min(height, width), model.config.patch_size
    sides = [max(1, round(side * scale / patch)) * patch for side in (width, height)]
    small = Image.fromarray(picture).resize((sides[0], sides[1]), Image.Resampling.BICUBIC)
    values = (np.asarray(small, np.float32) / 255 - _MEAN) / _SPREAD
    pixels = torch.from_numpy(values).permute(2, 0, 1)[None].to(device, model.dtype)
    found = model(pixels).predicted_depth.float()[:, None]
    found = functional.interpolate(found, (height, width), mode="bilinear", align_corners=False)
    found = found[0, 0] - found.min()
    grey = (found / found.max().clamp(min=1e-6) * 255).to(torch.uint8).cpu().numpy()
    return np.repeat(grey[:, :, None], 3, axis=2)
