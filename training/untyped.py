"""diffusers' classes as Any: the package calls itself typed, but its classes' methods are not."""

from __future__ import annotations

from typing import Any

import diffusers

AutoencoderKL: Any = diffusers.AutoencoderKL
PNDMScheduler: Any = diffusers.PNDMScheduler
StableDiffusionImg2ImgPipeline: Any = diffusers.StableDiffusionImg2ImgPipeline
StableDiffusionPipeline: Any = diffusers.StableDiffusionPipeline
UNet2DConditionModel: Any = diffusers.UNet2DConditionModel
