"""The parts of ten minutes on a card: `python -m benchmarks.card_parts PART DEVICE FILE.json`.

Weights are random: what is measured does not depend on them. On a CPU everything is small.
"""

import gc
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
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from benchmarks.card import PROJECT, Findings
from benchmarks.card_goals import SHORT_OF_MEMORY
from benchmarks.make_sd15 import write_checkpoint
from picowatch.engine.compiled.graphs import GraphedUnet
from picowatch.engine.compiled.measuring import example_of
from picowatch.engine.unet.denoise import EagerUnet, Shape
from picowatch.engine.unet.kept import keep_between_steps
from picowatch.errors import PicowatchError

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
from picowatch.engine.memory_usage import broken_gpu
from picowatch.engine.failures import explain_error, out_of_memory
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
    from picowatch.engine.memory import LADDERS, Ladders, MemoryLadder
    from picowatch.engine.renderer import Renderer
    from picowatch.engine.unet.loras import Loras
    from picowatch.recipe.parts import Hires
    from picowatch.recipe.samplers import SAMPLERS
    from tests.engine.adapters import kohya_lora, write
    from tests.engine.models.test_checkpoints import demo as loaded
    from tests.engine.requests import request
    from tests.engine.unet.test_loras import use
    from tests.engine.unet.test_start_images import right_half, start

    steps = 8 if device != "cpu" else 2
    with tempfile.TemporaryDirectory() as name:
        models = Path(name)
        for file, dora in (("a", False), ("dora", True)):
            tensors = kohya_lora(loaded().unet, loaded().text_encoders[0], seed=1, dora=dora)
            write(models / f"loras/{file}.safetensors", tensors)
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
        draw("guidance on a part", request(steps=steps, cfg_start=0.2, cfg_end=0.6))
        with_lora = request(steps=steps, loras=(use(models, "a", 0.5),))
        for how, worth in (("hooks", False), ("copies", True)):
            with patch.object(Loras, "is_worth_merging", lambda *_, worth=worth: worth):
                draw(f"LoRA by {how}", with_lora)
        for rung in LADDERS[torch.device(device).type].unet:
            engines[device]._ladder = MemoryLadder("full", Ladders([rung], []), None)
            draw(f"rungs/{rung.name}", request(steps=steps))
            with_dora = request(steps=steps, loras=(use(models, "dora", 0.5),))
            draw(f"rungs/{rung.name} with a DoRA", with_dora)


def _options(models: Path, device: str, **others: Any) -> Any:
    from picowatch.engine.options import EngineOptions

    named: dict[str, Any] = {"precision": "float32", "start_images": models} | others
    return EngineOptions(models=models, device=device, **named)


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
        self._form, self.side = form, side // 8
        self._like: dict[str, Any] = {"device": device, "dtype": dtype}

    def inputs(self, batch: int) -> tuple[Any, dict[str, Any]]:
        """With guidance: two rows for each image."""
        rows, config = 2 * batch, self.unet.config
        latents = torch.randn(rows, config.in_channels, self.side, self.side, **self._like)
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
    """Steps a second of Stable Diffusion 1.5 at 512x512, as diffusers has it and as picowatch does.

    The latter by each kind of UNet that it chooses from; where a graph or a compiled one is not the
    fastest, picowatch does not use it. "GroupNorm NHWC" is what replacing torch's would give: it
    is worth it if both "eager" and "graph" gain more than 3 % at every batch.
    """
    batches = BATCHES if device != "cpu" else (1, 2)
    for channels_last in (True, False):
        step = _Step("sd15", device, 512, channels_last=channels_last)
        layout = "NHWC" if channels_last else "NCHW"
        for batch in batches:
            _measured(found, f"eager {layout}/{batch}", step, step.unet, batch, device)
    for name in ("ours", "ours with GroupNorm NHWC"):
        step = _Step("sd15", device, 512)
        if name != "ours":
            _norm_in_place(step.unet)
        keep_between_steps(step.unet)
        for batch in batches:
            _measure_ours(found, name, step, batch, device)
    step = _Step("sd15", device, 512)
    for batch in batches[:1] if device == "cpu" else (1, 16):
        compiled = torch.compile(step.unet, dynamic=False)
        _measured(found, f"compiled/{batch}", step, compiled, batch, device)


def _measure_ours(found: Findings, name: str, step: "_Step", batch: int, device: str) -> None:
    """Steps a second of an eager UNet and its graph, and how far they are from each other."""
    loaded: Any = SimpleNamespace(unet=step.unet, loras=SimpleNamespace(applied=()))
    example = example_of(step.unet, Shape(2 * batch, step.side, step.side, TOKENS))
    eager = EagerUnet(step.unet)
    [timestep] = eager.foresee(example.timestep[None])
    inputs = example._replace(timestep=timestep)
    found.add(f"{name}/eager/{batch}/steps a second", _tried(lambda: _rate(lambda: eager(inputs))))
    if device == "cpu":
        return

    def captured() -> dict[str, object]:
        before = torch.cuda.memory_reserved()
        shape = Shape(2 * batch, step.side, step.side, TOKENS)
        graph = GraphedUnet(loaded, shape, torch.cuda.graph_pool_handle())
        torch.cuda.empty_cache()
        gigabytes = (torch.cuda.memory_reserved() - before) / 2**30
        expected, given = eager(inputs), graph(inputs)
        try:
            return {
                "steps a second": _rate(lambda: graph(inputs)),
                "GiB": round(gigabytes, 2),
                "same bits": bool(torch.equal(expected, given)),
                "off by": float((expected - given).abs().max() / expected.abs().max()),
            }
        finally:
            graph.release()

    found.add(f"{name}/graph/{batch}", _tried(captured))


class _NormNhwc(torch.nn.GroupNorm):
    """Of channels_last tensors, without the copy to the other layout that torch's makes on CUDA.

    It normalises a view whose last dimension is a group's channels, and multiplies once.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        rows, channels, *sides = x.shape
        values = x.permute(0, 2, 3, 1).reshape(
            rows, -1, self.num_groups, channels // self.num_groups
        )
        variance, mean = torch.var_mean(values.float(), dim=(1, 3), correction=0, keepdim=True)
        scale = self.weight.view(self.num_groups, -1) * (variance + self.eps).rsqrt()
        bias = self.bias.view(self.num_groups, -1) - mean * scale
        result = torch.addcmul(bias, values, scale).to(x.dtype)
        return result.view(rows, *sides, channels).permute(0, 3, 1, 2)


def _norm_in_place(unet: Any) -> None:
    for layer in unet.modules():
        if type(layer) is torch.nn.GroupNorm:
            layer.__class__ = _NormNhwc


def _measured(found: Findings, name: str, step: _Step, model: Any, batch: int, device: str) -> None:
    """Note steps a second, a step being one of the whole batch, and the memory it took."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    inputs, named = step.inputs(batch)
    found.add(f"{name}/steps a second", _tried(partial(_rate, partial(model, *inputs, **named))))
    if device != "cpu":
        found.add(f"{name}/peak GiB", round(torch.cuda.max_memory_allocated() / 2**30, 2))


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
    """Decoding pictures of 512x512: one, four, one in tiles of 256, and a batch to its pixels."""
    from picowatch.engine.models.loaded import _tile
    from picowatch.engine.latents import Decoding

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
    model.disable_tiling()
    latents = torch.randn(16 if device != "cpu" else 2, 4, side, side, device=device, dtype=dtype)
    rate = _tried(partial(_rate, lambda: Decoding(model, latents).images()))
    found.add("16 with their pixels/decodes a second", rate)


def overlap(found: Findings, device: str) -> None:
    """Batches of the demo model one after the other, decoded beside the next one's steps or not."""
    from picowatch.engine.renderer import Renderer
    from tests.engine.requests import ignore_steps, request

    side, images, batches, steps = (256, 8, 8, 12) if device != "cpu" else (64, 1, 2, 2)
    with tempfile.TemporaryDirectory() as name:
        engine = Renderer(_options(Path(name), device))
        batch = [request(seed=seed, steps=steps, width=side, height=side) for seed in range(images)]
        engine.render(batch, ignore_steps)
        for how, waiting in (("one after the other", 0), ("decoded beside", 1)):
            engine.render(batch, ignore_steps)
            rate, beside = _images_a_second(engine, batch, batches, waiting)
            found.add(f"{how}/images a second", rate)
            found.add(f"{how}/batches on their way", beside)


def _images_a_second(engine: Any, batch: Any, batches: int, waiting: int) -> tuple[float, int]:
    """Of so many batches in a row, and how many were decoded beside the next one's steps."""
    from picowatch.engine.process.wire import Render

    from picowatch.engine.renderer import OnTheirWay
    from tests.engine.requests import ignore_steps

    _finish()
    began, before, beside = time.perf_counter(), None, 0
    for _ in range(batches):
        begun = engine.begin(Render(0, tuple(batch), waiting), ignore_steps, lambda: False)
        if isinstance(before, OnTheirWay):
            before.images()
        before, beside = begun, beside + isinstance(begun, OnTheirWay)
    if isinstance(before, OnTheirWay):
        before.images()
    return round(len(batch) * batches / (time.perf_counter() - began), 2), beside


def pictures(found: Findings, device: str) -> None:
    """Pictures of Stable Diffusion 1.5 from their requests: how many a second, in which memory.

    Without PNGs, which are compressed meanwhile. Then on a card that seems to have 4 GB.
    """
    from picowatch.catalog import Catalog
    from picowatch.engine.renderer import Renderer
    from tests.engine.requests import ignore_steps, request

    side, steps, large = (512, 24, 1024) if device != "cpu" else (64, 2, 128)
    with tempfile.TemporaryDirectory() as name:
        models = Path(name)
        changes: dict[str, Any] = {"width": side, "height": side, "steps": steps, "cfg_scale": 7.5}
        if device != "cpu":
            write_checkpoint(models / "checkpoints/random.safetensors")
            catalog = Catalog(models)
            model = catalog.find("checkpoint", "random")
            changes |= {"checkpoint": model.name, "checkpoint_hash": catalog.sha256(model)}
        engine = Renderer(_options(models, device, precision="auto", compiled=models / "cache"))
        for images in (1, 8):
            batch = [request(seed=seed, **changes) for seed in range(images)]
            for _ in range(2):  # the second one by a graph
                made = engine.render(batch, ignore_steps, waiting=images)
            found.add(f"{images}/peak GB", round((made[0].peak_bytes or 0) / 1e9, 2))
            rate, _ = _images_a_second(engine, batch, 3, images)
            found.add(f"{images}/images a second", rate)
        del engine
        _seem_small(device)
        engine = Renderer(_options(models, device, precision="auto"))
        for what, images, wanted in (("1", 1, side), ("8", 8, side), (f"1 of {large}", 1, large)):
            size = {"width": wanted, "height": wanted}
            batch = [request(seed=seed, **(changes | size)) for seed in range(images)]
            found.add(f"4 GB/{what}", _level(partial(engine.render, batch, ignore_steps)))


def _seem_small(device: str) -> None:
    """Let this process have no more than 4 GB of the card from now on."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()
        size = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(4e9 / size, device)


def _level(render: Callable[[], Any]) -> str:
    """The memory-saving level that pictures were rendered on, or why there are none."""
    try:
        return str(render()[0].memory_rung)
    except PicowatchError as error:
        return f"{SHORT_OF_MEMORY}{error.message}"


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
    part.__name__: part
    for part in (versions, failures, demo, unet, trace, vae, overlap, pictures, folder, sdxl)
}


def main(name: str, device: str, path: str) -> None:
    found = Findings(Path(path))
    with torch.inference_mode():
        ALL[name](found, device)
    found.add("finished", True)


if __name__ == "__main__":
    main(*sys.argv[1:])
