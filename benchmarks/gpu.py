"""A check in some minutes of what works on a card and how fast: a JSON file for each part.

    python -m benchmarks.gpu --minutes 10 --out DIR [--first | --parts demo rungs] [--device cpu]

Each part runs in a process of its own, has a share of the minutes, stops itself when they are over,
and writes DIR/PART.json as it goes: a run that is cut off tells what was found before. A part that
fails says why in its file, and the others go on. The exit status is 0 if all parts ran, else 1.

On a CPU everything is tiny and only shows that the parts work; "skipped" names what it cannot do.
Full-size checkpoints have random weights; benchmarks/jobs.py keeps them between runs. Times are in
seconds, "median (least to most)" if they were taken several times.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import jobs
from benchmarks.folders import Folders, run_once, with_project
from benchmarks.measuring import spread
from benchmarks.parts import Found, Part, run_parts
from picowatch.engine.model.memory import CARD_LADDER, Rung
from picowatch.engine.process.child import ChildEngine
from picowatch.engine.protocol import Progress
from picowatch.engine.protocol import versions as libraries
from picowatch.errors import EngineDied, RenderFailed
from picowatch.recipe.parts import Hires
from picowatch.recipe.samplers import SAMPLERS
from tests.engine.requests import difference, draw

REPETITIONS, GIB, ON_CUDA, KLEIN = 5, 2**30, "only on CUDA", "FLUX.2-klein"
SAME_BATCH = 0.4  # seconds in which the pictures of a batch are written
Way = Callable[[int], Any]  # renders a batch in so many steps


def versions(part: Part) -> None:
    """Versions, the card, and what `picowatch doctor` says of it."""
    import torch

    part.add("libraries", libraries() | {"python": sys.version, "cuda": torch.version.cuda})
    how: Any = {"cwd": part.work, "capture_output": True, "text": True}
    how["env"] = with_project() | {"PICOWATCH_DEVICE": part.device}

    def said(*command: str) -> Found:
        told = subprocess.run(command, **how)
        return {"exit status": told.returncode, "said": told.stdout.splitlines()}

    (part.work / "inbox").mkdir()  # else `doctor` says that there is none
    doctor = partial(said, sys.executable, "-m", "picowatch", "doctor")
    part.measure({"nvidia-smi": partial(said, "sh", "-c", "nvidia-smi"), "doctor": doctor})


def demo(part: Part) -> None:
    """The demo model by every sampler beside the CPU's pictures, and where the CPU waits."""
    import torch

    wait_mode: Callable[[str], object] = torch.cuda.set_sync_debug_mode if part.on_cuda else str
    if not part.on_cuda:
        part.skip("waits", ON_CUDA)
    cpu, device = (part.engine(device=name, precision="float32") for name in ("cpu", part.device))

    def beside(**values: Any) -> Found:
        images, steps = 1 if "exact" in values else 2, 8 if part.on_cuda else 2
        batch = part.batch("demo", images, steps, **values)
        expected, _ = draw(cpu, *batch), draw(device, *batch)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            wait_mode("warn")
            try:
                seconds, found = _timed(draw, device, *batch)
            finally:
                wait_mode("default")
        waits = [warning for warning in caught if "synchroniz" in str(warning.message)]
        lines = Counter(f"{wait.filename.split('packages/')[-1]}:{wait.lineno}" for wait in waits)
        off = max(map(difference, found, expected))
        return {"of 255 from the CPU": off, "seconds": seconds, "waits": lines}

    ways = {"exact": partial(beside, exact=True)}
    ways["hires"] = partial(beside, hires=Hires(scale=2.0, steps=2))
    for sampler in SAMPLERS:
        ways[sampler.name] = partial(beside, sampler=sampler.name, schedule_type=sampler.automatic)
    part.measure(ways)


def against_diffusers(family: str, part: Part) -> None:
    """Steps a second, times of whole batches and peak memory beside plain diffusers."""
    import torch

    from benchmarks.peers import diffusers_loop

    steps = {"sd15": (4, 24), "sdxl": (2, 8)}[family] if part.on_cuda else (1, 3)
    engine, job, held = part.engine(graphs=True), part.job(family, 1, steps[0]), [0, 0]
    draw(engine, *part.batch(family, 1, steps[0]))
    held[1] = torch.cuda.memory_allocated() if part.on_cuda else 0
    pipe = diffusers_loop.pipeline(job.asked())
    pipe.vae.enable_slicing()  # sixteen large pictures at once fit no card
    held[0] = torch.cuda.memory_allocated() - held[1] if part.on_cuda else 0

    def theirs(images: int, number: int) -> Any:
        asked = part.job(family, images, number).asked()
        return diffusers_loop.draw(pipe, asked, asked["pictures"])

    def batch(images: int) -> Found:
        ours = _ours(part, engine, family, images, steps)
        ways: dict[str, Way] = {"picowatch": ours, "diffusers": partial(theirs, images)}
        found: Found = {"model": f"{job.checkpoint.words}, {job.size}x{job.size}"}
        for name, others in zip(ways, held, strict=True) if part.on_cuda else ():
            _peak(part)
            ways[name](steps[0])
            found[f"{name}: peak GiB"] = round(_peak(part) - others / GIB, 2)
        return found | _compared(part, ways, steps)

    if not part.on_cuda:
        part.skip("peak memory", ON_CUDA)
    sizes = (1, 4, 16) if part.on_cuda else (1, 2)
    part.measure({f"batch {size}": partial(batch, size) for size in sizes}, growth=4)


def _ours(part: Part, engine: Any, family: str, images: int, steps: Sequence[int]) -> Way:
    batches = {number: part.batch(family, images, number) for number in steps}
    return lambda number: draw(engine, *batches[number])


def _compared(part: Part, ways: Mapping[str, Way], steps: tuple[int, int]) -> Found:
    """Two ways by turns: a step, which is what more steps take more, and the more steps."""
    (first, other), (few, many) = ways, steps
    pictures = (way(few)[0] for way in ways.values())
    pixels = [np.frombuffer(getattr(p, "pixels", None) or p.tobytes(), np.uint8) for p in pictures]
    apart = float(np.abs(np.subtract(*pixels, dtype=int)).mean())
    found, began = defaultdict[str, list[float]](list), time.monotonic()
    for turn in range(1, REPETITIONS + 1):
        for name in (first, other) if turn % 2 else (other, first):
            short, long = (_timed(ways[name], number)[0] for number in steps)
            step = max(1e-6, (long - short) / (many - few))
            for what, value in (("step", step), ("steps a second", 1 / step), ("batch", long)):
                found[f"{name}: {what}"].append(value)
        for what in ("step", "batch"):
            ratio = found[f"{other}: {what}"][-1] / found[f"{first}: {what}"][-1]
            found[f"times as fast: {what}"].append(ratio)
        if time.monotonic() - began > part.left() / 8:  # larger batches need more
            break
    told = {"of 255 apart, in the mean": apart, "repetitions": turn}
    return told | {what: spread(values) for what, values in found.items()}


def _peak(part: Part) -> float:
    """The most GiB of the card that torch held since the last call; 0 without one."""
    import torch

    peak = torch.cuda.max_memory_allocated()
    if part.on_cuda:
        torch.cuda.reset_peak_memory_stats()
    return round(peak / GIB, 2)


def rungs(part: Part) -> None:
    """A picture by each memory-saving level: its time, its memory, and how far it is off."""
    from tests.engine.rungs import on_rung

    first: dict[str, Any] = {}

    def on(family: str, rung: Rung) -> Found:
        engine = on_rung(part.engine(), rung)
        batch = part.batch(family, 1, 20 if part.on_cuda else 2)
        loading, _ = _timed(draw, engine, *batch)
        _peak(part)
        seconds, (image,) = _timed(draw, engine, *batch)
        off = difference(image, first.setdefault(family, image))
        found = {"seconds": seconds, "seconds with loading": loading, "of 255 from full": off}
        return found | {"level": image.memory_rung, "peak GiB": _peak(part)}

    ladder = CARD_LADDER if part.on_cuda else CARD_LADDER[:2]
    for rung in CARD_LADDER[len(ladder) :]:
        part.skip(rung.name, ON_CUDA)
    both = [(family, rung) for family in ("sd15", "sdxl") for rung in ladder]
    part.measure({f"{family}, {rung.name}": partial(on, family, rung) for family, rung in both})


def memory(part: Part) -> None:
    """A batch where others hold most of the card: the level it comes to, or what is said."""
    import torch

    def came(engine: Any, images: int, size: int, others: int = 0) -> str:
        batch = part.batch("sd15", images, 4, width=size, height=size)
        _peak(part)
        try:
            image = draw(engine, *batch)[0]
        except RenderFailed as error:
            return f"{error.message} {error.remedy}"
        return f"{image.memory_rung}, {_peak(part) - others / GIB:.2f} GiB"

    def within(gib: float) -> Found:
        engine, size = part.engine(), 768 if part.on_cuda else 64
        more = torch.cuda.mem_get_info()[0] - int(gib * GIB) if part.on_cuda else 0
        held = torch.empty(max(0, more), dtype=torch.uint8, device=part.device)
        seconds, how = _timed(came, engine, 8, size, held.numel())
        del held
        return {"batch": how, "seconds": seconds, "afterwards": came(engine, 1, size)}

    sizes = (4, 2, 0.5, 0.1) if part.on_cuda else (8.0,)
    if not part.on_cuda:  # there the system ends the process
        part.skip("memory that runs out", ON_CUDA)
    part.measure({f"{gib} GiB free": partial(within, gib) for gib in sizes})


def killed(part: Part) -> None:
    """An engine's process that is killed in the middle of a batch, and the next batch."""
    engine, short, long = part.engine(ChildEngine), *(part.batch("sd15", 1, n) for n in (2, 100))

    def picture() -> Found:
        seconds, images = _timed(lambda: draw(engine, *short))
        return {"seconds": seconds, "device": images[0].device}

    def kill(progress: Progress) -> None:
        if progress.done == 3 and engine.process_id:
            os.kill(engine.process_id, signal.SIGKILL)

    def die() -> Found:
        try:
            list(engine.render(long, kill))
        except EngineDied as error:
            return {"said": f"{error.message} {error.remedy}"}
        raise TypeError("its batch was rendered")

    part.measure({"first": picture, "next": picture, "killed": die, "again": picture}, growth=0)
    engine.close()


def folder(part: Part) -> None:
    """Recipes that wait, `picowatch run --once`, and their pictures; beside a script's loop."""

    def saved(family: str, images: int, steps: int) -> Found:
        job = part.job(family, images, steps)
        folders = Folders(part.work / family, job.checkpoint, device=part.device, graphs="true")
        folders.save(job, *job.pictures)
        seconds, at = run_once(folders), folders.published_at()
        told: Found = {"pictures": folders.how_made(job.pictures), "seconds": seconds}
        told["engine's seconds"] = folders.seconds_of_phases(job.pictures)
        told["images a second"] = round(len(at) / seconds, 2)  # the start included
        later = [moment for moment in at if moment > at[0] + SAME_BATCH]
        script = _script(part, family, min(images, 12), steps)
        told["script: seconds a picture"] = spread(script)
        if later:  # than the first batch
            each = (at[-1] - at[0]) / len(later)
            told |= {"seconds a picture": each, "times as fast": median(script) / each}
        return told

    cases = (("sd15", 48, 20), ("demo", 64, 24)) if part.on_cuda else (("demo", 4, 4),)
    part.measure({family: partial(saved, family, *how) for family, *how in cases})


def _script(part: Part, family: str, images: int, steps: int) -> list[float]:
    """Seconds of each picture that a loop around diffusers draws and saves, after one more."""
    from benchmarks.peers import diffusers_loop

    asked = part.job(family, images, steps).asked()
    pipe = diffusers_loop.pipeline(asked)

    def picture(entry: Any) -> None:
        diffusers_loop.draw(pipe, asked, [entry])[0].save(part.work / "script.png")

    return [_timed(picture, entry)[0] for entry in (asked["pictures"][0], *asked["pictures"])][1:]


def edit(part: Part) -> None:
    """A photo edited by FLUX.2 klein 4B in four steps, beside plain diffusers."""
    import torch
    from diffusers import Flux2KleinPipeline

    prompt, steps = "make it red", (1, 4)
    folder, models, side = _klein(part)
    photo = Image.radial_gradient("L").convert("RGB").resize((side, side))
    photo.save(models / "photo.png")
    pipe = Flux2KleinPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16).to(part.device)
    pipe.set_progress_bar_config(disable=True)

    def theirs(number: int) -> Any:
        how = {"num_inference_steps": number, "width": side, "height": side}
        return pipe(photo, prompt, generator=torch.Generator("cpu").manual_seed(7), **how).images

    recipe = f"references: photo.png\nprompt: {prompt}"
    ways: dict[str, Way] = {"picowatch": _by_klein(part, recipe, graphs=True), "diffusers": theirs}
    part.measure({"edit": partial(_compared, part, ways, steps)})


def _klein(part: Part) -> tuple[Path, Path, int]:
    """The folder of FLUX.2 klein, one of models with it, and the side of its pictures."""
    from tests.engine.flow_requests import flow_models
    from tests.engine.tiny_flows import tiny_flow

    folder, side = (jobs.full_size_klein(), 1024) if part.on_cuda else (tiny_flow(KLEIN), 64)
    return folder, flow_models(KLEIN, folder), side


def _by_klein(part: Part, recipe: str, **options: Any) -> Way:
    _, models, side = _klein(part)
    recipe = f"{recipe}\nsize: {side}x{side}"
    return _by_recipe(part, models, KLEIN, recipe, precision="bfloat16", **options)


def _by_recipe(part: Part, models: Path, checkpoint: str, recipe: str, **options: Any) -> Way:
    from tests.engine.flow_requests import requests_of

    folders: Any = {"models": models, "start_images": models, "hash_cache": models / jobs.HASHES}
    engine = part.engine(**folders, **options)

    def pictures(steps: int) -> Any:
        text = f"{recipe}\nexact: false\nsteps: {steps}"
        return draw(engine, *requests_of(models, checkpoint, text))

    return pictures


def graphs(part: Part) -> None:
    """`graphs: true` beside `graphs: false`: the same pixels, where a card waits for the CPU."""
    quick, eager = part.engine(graphs=True), part.engine()
    steps = (4, 24) if part.on_cuda else (1, 3)

    def batch(family: str, images: int) -> Found:
        both = [_ours(part, engine, family, images, steps) for engine in (quick, eager)]
        return _switched(part, dict(zip(("graphs", "eager"), both, strict=True)), steps)

    cases = (("sd15", 1), ("sdxl", 1), ("sd15", 4)) if part.on_cuda else (("sd15", 1),)
    part.measure(
        {f"{family}, batch {images}": partial(batch, family, images) for family, images in cases}
    )


def compiled(part: Part) -> None:
    """`compile: true` beside `compile: false`; a card compiles no UNet, but FLUX.2 klein."""
    if not part.on_cuda and find_spec("openvino") is None:
        part.skip("compile: true", "OpenVINO is not installed")
        return
    steps, options = (1, 4), dict[str, Any](compile=True, cache=part.work / "cache")
    if part.on_cuda:
        ways = {"compiled": _by_klein(part, "prompt: a boat", **options)}
        ways["eager"] = _by_klein(part, "prompt: a boat")
    else:
        engines = {"compiled": part.engine(**options), "eager": part.engine()}
        ways = {name: _ours(part, engine, "sd15", 1, steps) for name, engine in engines.items()}
    part.measure({"batch 1": partial(_switched, part, ways, steps)})


def _switched(part: Part, ways: Mapping[str, Way], steps: tuple[int, int]) -> Found:
    """Two settings by turns: the first picture by the first of them, and what `_compared` finds."""
    (first, made), _ = [_timed(way, steps[0]) for way in ways.values()]
    told = {"first": first, "compiled": made[0].compiled, "warnings": made[0].warnings}
    return told | _compared(part, ways, steps)


def cached(part: Part) -> None:
    """`step_cache: true` beside false: FLUX.2 klein 4B, reused as often as may be.

    Random weights change from step to step as no model's do: its own measure says nothing.
    """
    from picowatch.engine.drawing import callbacks

    steps = (8, 20) if part.on_cuda else (6, 8)
    ways = {"step_cache": _by_klein(part, "prompt: a boat\nstep_cache: true", graphs=True)}
    ways["without"] = _by_klein(part, "prompt: a boat", graphs=True)

    def reusing(most: float) -> Found:
        callbacks._NUMBERS["residual_diff_threshold"] = most
        return _switched(part, ways, steps)

    part.measure({f"{most} apart": partial(reusing, most) for most in (10.0, 0.0)})


def finders(part: Part) -> None:
    """A large photo searched by each finder, beside a CPU."""
    from picowatch.catalog import Catalog
    from picowatch.engine.model.devices import choose_target
    from picowatch.engine.networks import find

    find._MOST_NUMBERS = 3 * 2048 * 1536  # random weights find something everywhere
    models = part.work / "models"
    jobs.write_finders(models / "segmentation", tiny=not part.on_cuda)
    photo = Image.effect_noise((4000, 3000) if part.on_cuda else (96, 64), 90).convert("RGB")
    catalog = Catalog(models, models / jobs.HASHES)

    def by(name: str) -> Found:
        told: Found = {}
        for device in dict.fromkeys((part.device, "cpu")):
            target = choose_target(device, "auto")
            finder = find.load_finder(catalog.find("segmentation", name), target)
            places, mask = finder.search(photo, "a hat", 0)
            seconds = [_timed(finder.search, photo, "a hat", 0)[0] for _ in range(3)]
            told |= {f"{device}: seconds": spread(seconds), f"{device}: places": places}
            told[f"{device}: mask"] = float(mask.mean())
        return told

    part.measure({name: partial(by, name) for name in ("clipseg", "grounding-dino", "sam3")})


def details(part: Part) -> None:
    """Pictures of the demo model with a detail that is drawn again, and without."""
    models, steps = part.work / "models", 20 if part.on_cuda else 4
    models.mkdir(exist_ok=True)
    once = "prompt: a red circle\nsize: 128x128"
    again = f"{once}\ndetail: {{find: red circle, model: demo-find, count: 2}}"

    def batch(images: int) -> Found:
        told: Found = {}
        for how, recipe in (("once", once), ("again", again)):
            recipe = f"{recipe}\nseed: {[*range(images)]}"
            pictures = _by_recipe(part, models, "demo", recipe, graphs=True)
            pictures(steps)
            drawn = [_timed(pictures, steps) for _ in range(3)]
            told[f"{how}: a picture"] = spread([seconds / images for seconds, _ in drawn])
            last = drawn[-1][1]
            told[f"{how}: timings"] = last[0].timings
            told[f"{how}: boxes"] = [[at.box for at in picture.places or ()] for picture in last]
        return told

    part.measure({f"batch {images}": partial(batch, images) for images in (1, 4)})


def _timed(call: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    """The seconds of a call that gives pictures, and so waits for the card."""
    began, result = time.perf_counter(), call(*given)
    return round(time.perf_counter() - began, 4), result


PARTS: dict[str, tuple[int, Callable[[Part], None]]] = {  # in this order, with shares of the time
    "versions": (10, versions),
    "graphs": (20, graphs),
    "demo": (10, demo),
    "sd15": (15, partial(against_diffusers, "sd15")),
    "sdxl": (20, partial(against_diffusers, "sdxl")),
    "rungs": (12, rungs),
    "memory": (8, memory),
    "killed": (10, killed),
    "folder": (15, folder),
    "edit": (16, edit),
    "compile": (20, compiled),
    "step_cache": (15, cached),
    "finders": (20, finders),
    "details": (5, details),
}
# What a new card or a change of the engine decides, in eight minutes.
FIRST = ("versions", "graphs", "sd15", "sdxl", "edit", "folder", "compile", "memory")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What works on a card and how fast, as JSON.")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    first: Any = {"dest": "parts", "action": "store_const", "const": FIRST}
    parser.add_argument("--first", **first, help="the parts that decide most, in this order")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--here", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not given.here:
        shares = {name: PARTS[name][0] for name in given.parts}
        return 1 - run_parts(shares, given.minutes, given.device, given.out.resolve())
    import picowatch.engine.drawing.renderer  # the libraries, before its time begins  # noqa: F401

    name, *where = given.here
    part = Part(name, *where, seconds=float(sys.stdin.readline()))
    PARTS[name][1](part)
    part.add("finished", True)
    return 1 if part.failed else 0


if __name__ == "__main__":
    sys.exit(main())
