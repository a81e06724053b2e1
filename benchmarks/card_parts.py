"""The parts of ten minutes on a card: `python -m benchmarks.card_parts PART DEVICE FILE.json`.

Weights are random: what is measured does not depend on them. On a CPU everything is small.
"""

import inspect
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks.card import PROJECT, Findings

BATCHES = (1, 2, 4, 8, 16, 32)
LEAST_SECONDS = 1.0  # of repetitions that a time is the mean of
ASSETS = PROJECT / "picowatch/assets"
# diffusers has no types.
_UNet: Any = UNet2DConditionModel
_Vae: Any = AutoencoderKL
LIBRARIES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "numpy")
TOKENS = 77


def versions(found: Findings, device: str) -> None:
    """What is there, and the functions of torch that CUDA graphs and compiled UNets rest on."""
    found.add("python", platform.python_version())
    for name in LIBRARIES:
        found.add(f"libraries/{name}", version(name))
    found.add("cuda", torch.version.cuda)
    for function in (torch.cuda.graph, torch.cuda.CUDAGraph.capture_begin):
        found.add(f"signatures/{function.__qualname__}", str(inspect.signature(function)))
    from torch._inductor import aoti_load_package

    found.add("signatures/aoti_load_package", str(inspect.signature(aoti_load_package)))
    for program in ("g++", "nvcc", "nvidia-smi"):
        found.add(f"programs/{program}", _first_line([program, "--version"]))
    if device.startswith("cuda"):
        found.add("card/name", torch.cuda.get_device_name(device))
        found.add("card/capability", torch.cuda.get_device_capability(device))
        found.add("card/bytes", torch.cuda.get_device_properties(device).total_memory)
        found.add("card/code for", torch.cuda.get_arch_list())
        query = ["nvidia-smi", "--query-gpu=driver_version,power.limit", "--format=csv,noheader"]
        found.add("card/driver", _first_line(query))
    doctor = [sys.executable, "-m", "picowatch", "doctor"]
    environment = _paths() | {"PICOWATCH_DEVICE": device}
    with tempfile.TemporaryDirectory() as name:
        result = subprocess.run(doctor, cwd=name, capture_output=True, text=True, env=environment)
    found.add("doctor", result.stdout.splitlines())


def failures(found: Findings, device: str) -> None:
    """What torch says when memory runs out and when a kernel fails, and what is made of it."""
    for name, program in (("memory", _FILL), ("kernel", _BREAK)):
        if name == "kernel" and device == "cpu":
            continue
        command = [sys.executable, "-c", program, device]
        result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=_paths())
        found.add(f"{name}/exit status", result.returncode)
        found.add(f"{name}/said", result.stdout.splitlines())
        found.add(f"{name}/stderr", result.stderr.splitlines()[-3:])


_TELL = """
import sys, torch
from picowatch.engine.memory.usage import broken_gpu
from picowatch.engine.process.failures import explain_error, out_of_memory
def tell(error):
    print("type:", type(error).__name__)
    print("text:", str(error).splitlines()[0])
    print("memory:", out_of_memory(error))
    print("afterwards:", broken_gpu())
    print("explained:", repr(explain_error(error, "", broken_gpu())))
device = sys.argv[1]
"""
_FILL = f"""{_TELL}
kept, size = [], 2**50 if device == "cpu" else 2**32
try:
    while True:
        kept.append(torch.empty(size, dtype=torch.uint8, device=device))
except Exception as error:
    tell(error)
"""
_BREAK = f"""{_TELL}
try:
    torch.zeros(10, device=device)[torch.tensor([10**6], device=device)].cpu()
except Exception as error:
    tell(error)
"""


def demo(found: Findings, device: str) -> None:
    """The demo model with all that recipes can say, beside the CPU's pictures."""
    from picowatch.engine.memory.ladder import LADDERS, Ladders, MemoryLadder
    from picowatch.engine.renderer import Renderer
    from picowatch.recipe.fields import Hires
    from picowatch.recipe.samplers import SAMPLERS
    from tests.engine.adapters import kohya_lora, write
    from tests.engine.models.test_checkpoints import demo as loaded
    from tests.engine.requests import request
    from tests.engine.unet.test_loras import use
    from tests.engine.unet.test_start_images import right_half, start

    steps = 8 if device != "cpu" else 2
    with tempfile.TemporaryDirectory() as name:
        models = Path(name)
        tensors = kohya_lora(loaded().unet, loaded().text_encoders[0], seed=1)
        write(models / "loras/a.safetensors", tensors)
        engines = {where: Renderer(_options(models, where)) for where in ("cpu", device)}
        draw = partial(_beside, found, engines["cpu"], engines[device])
        draw("plain", request(steps=steps), request(steps=steps, seed=2))
        for sampler in SAMPLERS:
            wanted: dict[str, Any] = {
                "sampler": sampler.name,
                "schedule_type": sampler.automatic,
                "steps": steps,
            }
            draw(f"samplers/{sampler.name}", request(**wanted))
        draw("exact", request(exact=True, steps=steps))
        draw("hires", request(hires=Hires(scale=2.0, steps=2), steps=steps))
        draw("mask", request(steps=steps, **start(models, 0.6), **right_half(models)))
        draw("LoRA", request(steps=steps, loras=(use(models, "a", 0.5),)))
        for rung in LADDERS[torch.device(device).type].unet:
            engines[device]._ladder = MemoryLadder("full", Ladders([rung], []), None)
            draw(f"rungs/{rung.name}", request(steps=steps))


def _options(models: Path, device: str) -> Any:
    from picowatch.engine.options import EngineOptions

    return EngineOptions(models=models, device=device, precision="float32", start_images=models)


def _beside(found: Findings, plain: Any, other: Any, name: str, *batch: Any) -> None:
    """Note how far the other engine's pictures are from the first one's, and what waited."""
    from tests.engine.requests import difference, ignore_steps

    expected = plain.render(batch, ignore_steps)
    with _counted_waits() as waits:
        began = time.perf_counter()
        images = other.render(batch, ignore_steps)
        seconds = time.perf_counter() - began
    again = other.render(batch, ignore_steps)
    pairs = zip(images, expected, strict=True)
    found.add(f"{name}/of 255 from the CPU", max(difference(*pair) for pair in pairs))
    same = [one.pixels for one in images] == [one.pixels for one in again]
    found.add(f"{name}/the same again", same)
    found.add(f"{name}/seconds", round(seconds, 3))
    found.add(f"{name}/waits", waits)


@contextmanager
def _counted_waits() -> Iterator[list[str]]:
    """Fills in the lines at which the CPU waited for the card."""
    lines: list[str] = []
    if not torch.cuda.is_available():
        yield lines
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")
    told = (one for one in caught if "synchronizing" in str(one.message))
    lines += sorted({f"{one.filename.split('site-packages/')[-1]}:{one.lineno}" for one in told})


class _Step:
    """A UNet of one of our families with random weights, and the input of a step."""

    def __init__(self, family: str, device: str, side: int, *, channels_last: bool = True) -> None:
        if device == "cpu":
            family, side = "demo", 64
        self._family = family
        dtype = torch.float32 if device == "cpu" else torch.float16
        config = _UNet.load_config(str(ASSETS / family / "unet"))
        with torch.device("meta"):
            unet: Any = _UNet.from_config(config)
        unet = unet.to(dtype).to_empty(device=device).eval().requires_grad_(False)
        for weight in unet.parameters():
            weight.normal_(std=0.02)
        form = torch.channels_last if channels_last else torch.contiguous_format
        self.unet = unet.to(memory_format=form)
        self._form, self._side = form, side // 8
        self._like: dict[str, Any] = {"device": device, "dtype": dtype}

    def inputs(self, batch: int) -> tuple[Any, dict[str, Any]]:
        """With guidance: two rows for each image."""
        rows, config = 2 * batch, self.unet.config
        latents = torch.randn(rows, config.in_channels, self._side, self._side, **self._like)
        states = torch.randn(rows, TOKENS, config.cross_attention_dim, **self._like)
        timestep = torch.tensor(500.0, device=self._like["device"])
        added = None
        if self._family == "sdxl":
            pooled = torch.randn(rows, 1280, **self._like)
            ids = torch.ones(rows, 6, **self._like)
            added = {"text_embeds": pooled, "time_ids": ids}
        inputs = latents.contiguous(memory_format=self._form), timestep, states
        return inputs, {"added_cond_kwargs": added, "return_dict": False}


def unet(found: Findings, device: str) -> None:
    """Steps a second of Stable Diffusion 1.5 at 512x512: eager, as a graph, compiled."""
    batches = BATCHES if device != "cpu" else (1, 2)
    for channels_last in (True, False):
        step = _Step("sd15", device, 512, channels_last=channels_last)
        layout = "NHWC" if channels_last else "NCHW"
        for batch in batches:
            _measured(found, f"eager {layout}/{batch}", step, step.unet, batch, device)
    step = _Step("sd15", device, 512)
    if device != "cpu":
        for batch in batches:
            found.add(f"graph/{batch}", _tried(partial(_graph_rate, step, batch)))
    for batch in batches[:1] if device == "cpu" else (1, 8):
        compiled = torch.compile(step.unet, dynamic=False)
        _measured(found, f"compiled/{batch}", step, compiled, batch, device)


def _measured(found: Findings, name: str, step: _Step, model: Any, batch: int, device: str) -> None:
    """Note steps a second, a step being one of the whole batch, and the memory it took."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    inputs, named = step.inputs(batch)
    found.add(f"{name}/steps a second", _tried(partial(_rate, partial(model, *inputs, **named))))
    if device != "cpu":
        found.add(f"{name}/peak GiB", round(torch.cuda.max_memory_allocated() / 2**30, 2))


def _graph_rate(step: _Step, batch: int) -> float:
    """Steps a second of a CUDA graph over the eager UNet, its input copied in each time."""
    inputs, named = step.inputs(batch)
    fresh = [each.clone() for each in inputs]
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step.unet(*inputs, **named)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step.unet(*inputs, **named)

    def replay() -> None:
        for place, value in zip(inputs, fresh, strict=True):
            place.copy_(value)
        graph.replay()

    return _rate(replay)


def _rate(call: Callable[[], object]) -> float:
    """Calls a second, in the mean of a second or more, after three to warm up."""
    for _ in range(3):
        call()
    _finish()
    began = time.perf_counter()
    for done in count(1):
        call()
        if done % 4 == 0 or done < 4:
            _finish()
        elapsed = time.perf_counter() - began
        if elapsed >= LEAST_SECONDS:
            return round(done / elapsed, 2)
    raise AssertionError("count never ends")


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _tried(measure: Callable[[], object]) -> object:
    """What it gives, or what torch says if it cannot."""
    try:
        return measure()
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def trace(found: Findings, device: str) -> None:
    """Kernels of a step, and how long the card stands still between them."""
    from torch.profiler import ProfilerActivity, profile

    step = _Step("sd15", device, 512)
    inputs, named = step.inputs(1)
    for _ in range(3):
        step.unet(*inputs, **named)
    _finish()
    kinds = [ProfilerActivity.CPU]
    if device != "cpu":
        kinds.append(ProfilerActivity.CUDA)
    began = time.perf_counter()
    with profile(activities=kinds) as profiled:
        step.unet(*inputs, **named)
        _finish()
    wall = time.perf_counter() - began
    events = profiled.events() or []
    kernels = [event for event in events if "CUDA" in str(event.device_type)]
    counted = kernels or [event for event in events if event.cpu_parent is None]
    busy = sum(event.time_range.elapsed_us() for event in counted) / 1e6
    found.add("a step/kernels", len(counted))
    found.add("a step/busy seconds", round(busy, 5))
    found.add("a step/wall seconds under the profiler", round(wall, 5))
    longest = sorted(counted, key=lambda event: -event.time_range.elapsed_us())[:10]
    found.add("a step/longest", [[e.name[:90], e.time_range.elapsed_us()] for e in longest])


def vae(found: Findings, device: str) -> None:
    """Decoding pictures of 512x512: one, four, and one in tiles of 256."""
    from picowatch.engine.models.loaded import _tile

    family, side = ("sd15", 64) if device != "cpu" else ("demo", 8)
    config = _Vae.load_config(str(ASSETS / family / "vae"))
    with torch.device("meta"):
        model: Any = _Vae.from_config(config)
    dtype = torch.float16 if device != "cpu" else torch.float32
    model = model.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(std=0.02)
    for name, rows in (("one", 1), ("four", 4), ("tiled", 1)):
        if name == "tiled":
            _tile(model)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        latents = torch.randn(rows, 4, side, side, device=device, dtype=dtype)
        rate = _tried(partial(_rate, partial(model.decode, latents)))
        found.add(f"{name}/decodes a second", rate)
        if device != "cpu":
            found.add(f"{name}/peak GiB", round(torch.cuda.max_memory_allocated() / 2**30, 2))


def folder(found: Findings, device: str) -> None:
    """The queue from recipes to PNGs beside a loop of diffusers, by the table's own row."""
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "table.md"
        few = ["--size", "64", "--steps", "2", "--pictures", "3"] if device == "cpu" else []
        queue = ["--rows", "queue", "--rounds", "1", "--checkpoint", "demo", "--device", device]
        command = [sys.executable, "-m", "benchmarks.gpu", *queue, *few, "--results", str(table)]
        result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
        found.add("exit status", result.returncode)
        found.add("table", table.read_text().splitlines() if table.exists() else [])
        found.add("said", result.stderr.splitlines()[-5:])


def sdxl(found: Findings, device: str) -> None:
    """Steps a second of Stable Diffusion XL at 1024x1024."""
    step = _Step("sdxl", device, 1024)
    for batch in (1, 4) if device != "cpu" else (1,):
        _measured(found, f"eager NHWC/{batch}", step, step.unet, batch, device)


def _first_line(command: list[str]) -> str:
    """What a program says first, or why it does not."""
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return next(iter(told.strip().splitlines()), "")


def _paths() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(PROJECT)}


ALL: dict[str, Callable[[Findings, str], None]] = {
    part.__name__: part for part in (versions, failures, demo, unet, trace, vae, folder, sdxl)
}


def main(name: str, device: str, path: str) -> None:
    found = Findings(Path(path))
    with torch.inference_mode():
        ALL[name](found, device)
    found.add("finished", True)


if __name__ == "__main__":
    main(*sys.argv[1:])
