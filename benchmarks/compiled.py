"""A step of Stable Diffusion 1.5's size with `compile: true` against OpenVINO alone, on a CPU.

python -m benchmarks.compiled [--size 512] [--rounds 6]

Both compute the same UNet with random weights for the same tensors, in bfloat16 where the CPU has
it, in turns. It takes minutes: each converts the UNet first.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openvino  # type: ignore[import-untyped]
import torch
from diffusers import UNet2DConditionModel

from picowatch.engine.compile import CompiledDenoisers


class _Step(torch.nn.Module):
    """A UNet that takes tensors in their order alone, as OpenVINO's converter wants it."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, sample: Any, timestep: Any, prompt: Any) -> Any:
        return self.unet(sample, timestep, encoder_hidden_states=prompt, return_dict=False)[0]


def openvino_alone(unet: Any, tensors: tuple[torch.Tensor, ...]) -> Callable[[], object]:
    """Return a step as a script of OpenVINO's documentation would make it."""
    model = openvino.convert_model(_Step(unet), example_input=tensors)
    model.reshape({at: list(t.shape) for at, t in zip(model.inputs, tensors, strict=True)})
    core = openvino.Core()
    halves = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if halves else "f32",
    }
    compiled = core.compile_model(model, "CPU", hints)
    arrays = [tensor.numpy() for tensor in tensors]
    return lambda: compiled(arrays)


def seconds(step: Callable[[], object]) -> float:
    """Return how long it takes."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def main() -> None:
    """Compare them in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=512, help="pixels of a side")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        compare(arguments.size, arguments.rounds, Path(cache))


def compare(size: int, count: int, cache: Path) -> None:
    """Print each round's seconds, and the ratio's median and spread."""
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64).eval()
    latents = torch.randn(2, 4, size // 8, size // 8)
    timestep, prompt = torch.tensor(500), torch.randn(2, 77, 768)
    alone = openvino_alone(unet, (latents, timestep, prompt))
    unet = unet.to(torch.bfloat16)
    denoisers = CompiledDenoisers(torch.device("cpu"), cache)
    compute = denoisers.of(unet, "random")
    if compute is None:
        raise SystemExit("; ".join(denoisers.failure(unet)))
    halves = latents.bfloat16(), prompt.bfloat16()

    def ours() -> object:
        return compute(halves[0], timestep, encoder_hidden_states=halves[1], return_dict=False)

    alone(), ours()
    rounds = [(seconds(ours), seconds(alone)) for _ in range(count)]
    for mine, theirs in rounds:
        print(f"compile: true {mine:.2f} s, OpenVINO alone {theirs:.2f} s")
    ratios = [mine / theirs for mine, theirs in rounds]
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print("\n".join(denoisers.failure(unet)))


if __name__ == "__main__":
    main()
