"""diffusers' classes as Any: the package calls itself typed, but its classes' methods are not."""

from __future__ import annotations

from typing import Any

import diffusers

AutoencoderKL: Any = diffusers.AutoencoderKL
ControlNetModel: Any = diffusers.ControlNetModel
DDIMScheduler: Any = diffusers.DDIMScheduler
DPMSolverMultistepScheduler: Any = diffusers.DPMSolverMultistepScheduler
EulerAncestralDiscreteScheduler: Any = diffusers.EulerAncestralDiscreteScheduler
EulerDiscreteScheduler: Any = diffusers.EulerDiscreteScheduler
PNDMScheduler: Any = diffusers.PNDMScheduler
StableDiffusionImg2ImgPipeline: Any = diffusers.StableDiffusionImg2ImgPipeline
StableDiffusionInpaintPipeline: Any = diffusers.StableDiffusionInpaintPipeline
StableDiffusionPipeline: Any = diffusers.StableDiffusionPipeline
UNet2DConditionModel: Any = diffusers.UNet2DConditionModel
UniPCMultistepScheduler: Any = diffusers.UniPCMultistepScheduler
