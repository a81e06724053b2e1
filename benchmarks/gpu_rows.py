"""The rows of the GPU table: a step, a full queue, memory."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from benchmarks.against_peers import PEER_1, PEER_2
from benchmarks.gpu_watch import Watched, watching
from benchmarks.jobs import Job, Picture, pictures
from benchmarks.measuring import MEBI, Bound, Figure, Goal, compared, measured, wait_until
from benchmarks.ours import PATIENCE, Daemon, Folders, running
from benchmarks.peer_runs import PROJECT, run_peer
from benchmarks.plan import Plan

QUEUE_OF_ONES = 12  # pictures of which the second half is timed
# Recipes, pictures of each, and seconds: what waits is worth compiling for on any card.
PREPARING, PREPARING_ON_CPU = (10, 1000, 400.0), (1, 3, 1.0)
STEADY_PICTURES = 64
FIRST_PREPARING_SEED = 1_000_000
LOOK_SECONDS = 0.5
# What Stable Diffusion 1.5 computes at 512x512: a step with CFG, and the VAE's decoder.
STEP_TFLOP, VAE_TFLOP = 1.61, 2.5
COUNTED_SIZE = 512
TABLE_SIDE = 8192
SMALL_SIDE = 256
GIBI = 1 << 30


def step_row(plan: Plan) -> list[Figure]:
    """Steps a second at batch 1: what three times the steps take more, against peer 2."""
    few, many = plan.large_steps
    checkpoint = plan.large(1)

    def peer(*arguments: str) -> float:
        # Each number of steps twice: the first of them prepares what the second one is timed with.
        ones = pictures(4, few)
        asked = (*ones[:2], *(replace(one, steps=many) for one in ones[2:]))
        job = Job(checkpoint, plan.large_size, asked, plan.device)
        run = run_peer(PEER_2, job, plan.new_folder(), *arguments)
        return (run.pictures[3] - run.pictures[1]) / (many - few)

    folders = Folders(plan.new_folder(), checkpoint, device=plan.device, batch_size=1)
    with running(folders) as daemon:
        queue = _Queue(plan, daemon)
        queue.prepare(few)

        def ours() -> float:
            short, long = (queue.seconds_between(steps) for steps in (few, many))
            return (long - short) / (many - few)

        measures = {"ours": ours, "eager": peer}
        if plan.on_gpu:  # on a CPU compiling takes minutes and proves nothing
            measures["compiled"] = lambda: peer("--compile")
        found = plan.in_turns(**measures)
        plan.section.note(queue.how_made())
    size = f"{plan.large_size}x{plan.large_size}"
    what = f"a step at {size}, batch 1, DPM++ 2M Karras, CFG 7.5"
    rates = [1 / seconds for seconds in found["ours"]]
    goals = {"eager": _goal(plan, "at least", 2)}
    return [
        measured(f"{what}: steps a second", rates, "it/s", _goal(plan, "at least", 110)),
        *(
            compared(what, found["ours"], found[name], f"{PEER_2} {name}", goals.get(name))
            for name in measures
            if name != "ours"
        ),
    ]


def queue_row(plan: Plan) -> list[Figure]:
    """A full queue from recipes to PNGs on disk against peer 1, and how busy the card was."""
    job = Job(
        plan.large(1),
        plan.large_size,
        pictures(max(4, plan.pictures // 8), plan.steps),
        plan.device,
    )
    watched: list[Watched] = []
    in_stages: list[float] = []
    folders = Folders(plan.new_folder(), job.checkpoint, device=plan.device)
    with running(folders) as daemon:
        queue = _Queue(plan, daemon)
        queue.prepare(plan.steps)

        def ours() -> float:
            with watching(plan.device) as samples:
                seconds = queue.seconds_for(plan.pictures, plan.steps)
            watched.append(samples)
            in_stages.append(queue.seconds_in_stages() / seconds * 100)
            return seconds / plan.pictures

        found = plan.in_turns(ours=ours, peer=lambda: run_peer(PEER_1, job, plan.new_folder()).each)
        plan.section.note(queue.how_made())
    size = f"{plan.large_size}x{plan.large_size}"
    what = f"full queue of {plan.pictures}, {size}, {plan.steps} steps, recipes to PNGs"
    rates = [1 / seconds for seconds in found["ours"]]
    figures = [
        measured(f"{what}: pictures a second", rates, "", _goal(plan, "at least", 8)),
        compared(what, found["ours"], found["peer"], PEER_1, _goal(plan, "at least", 4)),
        measured(f"{what}: time within the engine's stages", in_stages, "%"),
    ]
    idle = [samples.idle_percent for samples in watched if samples.idle_percent is not None]
    if idle:
        goal = _goal(plan, "at most", 2)
        figures.append(measured(f"{what}: time without a kernel", idle, "%", goal))
    return [*figures, *_share(plan, rates)]


class _Queue:
    """Queues of new pictures for a daemon that stays, so that what it prepared stays, too."""

    def __init__(self, plan: Plan, daemon: Daemon) -> None:
        self._plan, self._daemon = plan, daemon
        self._seed = 0
        self._last: tuple[Picture, ...] = ()

    def prepare(self, steps: int) -> None:
        """Load all, then fill the queue until the batch size is found and its UNet compiled.

        Both happen beside the work, and are known by the pictures' metadata; they are not
        waited for longer than some minutes. What still waits then is cancelled.
        """
        folders = self._daemon.folders
        self.seconds_for(1, steps)
        recipes, count, patience = PREPARING if self._plan.on_gpu else PREPARING_ON_CPU
        first = replace(pictures(1, steps)[0], seed=FIRST_PREPARING_SEED)
        job = Job(self._plan.large(1), self._plan.large_size, (first,), self._plan.device)
        files = [folders.inbox / f"prepare{number}.yaml" for number in range(recipes)]
        for number, file in enumerate(files):
            one = replace(first, seed=first.seed + number * count)
            file.write_text(f"{job.recipe(one)}count: {count}\n")
        with suppress(TimeoutError):
            wait_until(self._is_steady, "compiled pictures", patience, LOOK_SECONDS)
        for file in files:
            file.unlink()
        wait_until(folders.is_idle, "an empty queue", PATIENCE, LOOK_SECONDS)

    def _is_steady(self) -> bool:
        """Whether the newest pictures were all compiled, and made in batches of one size."""
        folders = self._daemon.folders
        newest = [folders.rendered(file) for file in folders.newest(STEADY_PICTURES)]
        return len({(one["compiled"], one["batch_size"]) for one in newest}) == 1 and all(
            one["compiled"] for one in newest
        )

    def seconds_for(self, count: int, steps: int) -> float:
        """From the recipes to their last picture."""
        plan = self._plan
        ones = pictures(count, steps)
        self._last = tuple(replace(one, seed=self._seed + one.seed) for one in ones)
        self._seed += count
        job = Job(plan.large(1), plan.large_size, self._last, plan.device)
        return self._daemon.seconds_for(job, *self._last)

    def seconds_between(self, steps: int) -> float:
        """From one picture to the next in the second half of a queue."""
        self.seconds_for(QUEUE_OF_ONES, steps)
        at = self._daemon.folders.published_at()[-QUEUE_OF_ONES // 2 :]
        return (at[-1] - at[0]) / (len(at) - 1)

    def seconds_in_stages(self) -> float:
        """What the engine says its stages took for the last queue."""
        return sum(sum(one["timings"].values()) for one in self._rendered())

    def how_made(self) -> str:
        """The last queue, as its pictures' metadata say."""
        return f"picowatch's last queue: {self._daemon.folders.how_made(self._last)}."

    def _rendered(self) -> Iterator[dict[str, Any]]:
        folders = self._daemon.folders
        return (folders.rendered(folders.picture(one.seed)) for one in self._last)


def _goal(plan: Plan, bound: Bound, value: float) -> Goal | None:
    """Goals are for a GPU (absolute ones for an H200); elsewhere there are none."""
    return Goal(bound, value) if plan.on_gpu else None


def _share(plan: Plan, rates: list[float]) -> list[Figure]:
    """What of the card's own rate the pictures use, where their cost is known."""
    side = TABLE_SIDE if plan.on_gpu else SMALL_SIDE
    command = [sys.executable, "-m", "benchmarks.matmul", plan.device, str(side)]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    roof = float(result.stdout)
    figures = [measured("matrix products in bfloat16", [roof], "TFLOP/s")]
    if plan.large_size == COUNTED_SIZE:
        cost = plan.steps * STEP_TFLOP + VAE_TFLOP
        shares = [rate * cost / roof * 100 for rate in rates]
        figures.append(measured(f"share of that rate, {cost:.1f} TFLOP a picture", shares, "%"))
    return figures


def memory_row(plan: Plan) -> list[Figure]:
    """Peak memory at batch 1, at full speed and with `memory: low`."""
    figures = []
    for memory, goal in (("full", 3.0), ("low", 1.5)):
        with watching(plan.device) as samples:
            torch_peak = _bench_peak(plan, memory)
        what = f"peak memory at {plan.large_size}x{plan.large_size}, batch 1, memory: {memory}"
        bound = _goal(plan, "at most", goal)
        figures.append(measured(f"{what}, held by torch", [torch_peak / GIBI], "GiB", bound))
        if (used := samples.peak_mebibytes) is not None:
            whole = used * MEBI / GIBI
            figures.append(measured(f"{what}, on the card with CUDA's own", [whole], "GiB"))
    return figures


def _bench_peak(plan: Plan, memory: str) -> int:
    """As `picowatch bench` tells it."""
    folders = Folders(plan.new_folder(), plan.large(1), device=plan.device, memory=memory)
    size = f"{plan.large_size}x{plan.large_size}"
    asked = ["--steps", str(plan.steps), "--sizes", size, "--batches", "1", "--json"]
    told = folders.output("bench", *asked, "--checkpoint", plan.large(1).name)
    (cell,) = json.loads(told)["cells"]
    if cell["failure"]:
        raise RuntimeError(cell["failure"])
    return int(cell["peak_bytes"])
