"""What is compiled: a UNet for one shape on one kind of device.

A job is also the name of its result, so that nothing compiled for another version, processor or
shape is ever used.
"""

import json
import platform
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from picowatch.engine.control.residuals import Residuals
from picowatch.engine.unet.denoise import Shape
from picowatch.engine.unet.onednn import onednn_is_faster, use_onednn
from picowatch.engine.versions import versions


@dataclass(frozen=True, slots=True)
class CompileJob:
    """One UNet for one shape; `config` is diffusers' own, `threads` counts those of a CPU.

    `onednn`: whether that computes linear layers and convolutions (onednn.py).
    """

    config: dict[str, Any]
    shape: Shape
    dtype: str
    channels_last: bool
    device: str
    threads: int
    onednn: bool

    @property
    def name(self) -> str:
        """A digest of the job and of everything else the result depends on.

        Not of the card's number: cards of one kind share their packages.
        """
        device = torch.device(self.device)
        known = [asdict(self) | {"device": device.type}, versions(), processor(device)]
        return sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:32]

    def as_json(self) -> str:
        """For the process that compiles it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "CompileJob":
        """The inverse of `as_json`."""
        values = json.loads(text)
        return cls(**(values | {"shape": Shape(*values["shape"])}))


def job_for(unet: Any, shape: Shape) -> CompileJob:
    """The job for a loaded UNet; weights do not matter, only what they are."""
    weight = unet.conv_in.weight
    config = {key: value for key, value in dict(unet.config).items() if not key.startswith("_")}
    return CompileJob(
        config=config,
        shape=shape,
        dtype=str(unet.dtype).removeprefix("torch."),
        channels_last=not weight.is_contiguous(),
        device=str(weight.device),
        threads=torch.get_num_threads(),
        onednn=onednn_is_faster(weight.device, unet.dtype),
    )


def processor(device: torch.device) -> str:
    """The kind of processor that code is compiled for: the CPU's instructions, or the GPU."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} {torch.cuda.get_device_capability(device)}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


class PlainUnet(torch.nn.Module):
    """A UNet with tensors in and out and nothing else, as torch.export wants it."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(
        self,
        latents: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        residuals: Residuals,
    ) -> torch.Tensor:
        """The prediction; `residuals` are () without ControlNets."""
        predicted: torch.Tensor = self.unet(
            latents,
            timestep,
            encoder_hidden_states=states,
            down_block_additional_residuals=residuals[:-1] or None,
            mid_block_additional_residual=residuals[-1] if residuals else None,
            return_dict=False,
        )[0]
        return predicted


def example_inputs(
    job: CompileJob,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Residuals]:
    """Latents, timestep, states and residuals of the job's shape, the same ones each time."""
    device, dtype = torch.device(job.device), getattr(torch, job.dtype)
    rows, height, width, tokens, controlled = job.shape
    source = torch.Generator().manual_seed(0)
    latents = torch.randn(rows, job.config["in_channels"], height, width, generator=source)
    states = torch.randn(rows, tokens, job.config["cross_attention_dim"], generator=source)
    return (
        arranged(latents.to(device, dtype), job.channels_last),
        torch.tensor(500.0, device=device),
        states.to(device, dtype),
        tuple(
            arranged(torch.randn(shape, generator=source).to(device, dtype), job.channels_last)
            for shape in (residual_shapes(job) if controlled else ())
        ),
    )


def residual_shapes(job: CompileJob) -> list[tuple[int, int, int, int]]:
    """Of what ControlNets add: to the first layer, each layer and each halving, and the middle."""
    rows, height, width = job.shape[:3]
    channels, layers = job.config["block_out_channels"], job.config["layers_per_block"]
    shapes = [(rows, channels[0], height, width)]
    for level, outputs in enumerate(channels):
        shapes += [(rows, outputs, height, width)] * layers
        if level + 1 < len(channels):
            height, width = (height + 1) // 2, (width + 1) // 2
            shapes.append((rows, outputs, height, width))
    return [*shapes, (rows, channels[-1], height, width)]


def arranged(latents: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """Latents in memory as the compiled code expects them."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    return latents.contiguous(memory_format=form)


def unet_to_compile(job: CompileJob) -> Any:
    """A UNet as the job's, with random weights: equal ones would be compiled in as constants."""
    with torch.device("meta"):
        unet: Any = UNet2DConditionModel.from_config(job.config)
    unet = unet.to(getattr(torch, job.dtype)).to_empty(device=job.device).eval()
    form = torch.channels_last if job.channels_last else torch.contiguous_format
    for weight in unet.requires_grad_(False).parameters():
        weight.normal_()
    if job.onednn:
        use_onednn(unet)
    return unet.to(memory_format=form)
