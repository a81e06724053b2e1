"""The rows in which picowatch and its peers make the same pictures, one after the other."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.jobs import DEMO, Checkpoint, Job, pictures, pictures_of_steps
from benchmarks.measuring import MEBI, Figure, Goal, compared, number
from benchmarks.ours import Folders, run_once, running
from benchmarks.peer_runs import PeerRun, build_sd_cpp, run_peer
from benchmarks.plan import Plan

PEER_2, PEER_3 = "diffusers_loop", "stable_diffusion_cpp"
SD_CPP_TYPES = ("f32", "f16", "q8_0")
WARM_UP_SEED = 90_000


def folder_row(plan: Plan) -> list[Figure]:
    """Many demo pictures through the folder against peer 2's loop, without and with start-up."""
    job = Job(DEMO, plan.size, pictures(plan.pictures, plan.steps), plan.device)
    made = len(job.pictures)
    seen: list[PeerRun] = []
    folders: list[Folders] = []

    def warm() -> float:
        folders.append(Folders(plan.new_folder(), device=plan.device))
        with running(folders[-1]) as daemon:
            daemon.seconds_for(job, replace(job.pictures[0], seed=WARM_UP_SEED), prefix="w")
            return daemon.seconds_for(job, *job.pictures) / made

    def whole() -> float:
        own = Folders(plan.new_folder(), device=plan.device)
        own.drop(job, *job.pictures)
        return run_once(own) / made

    peers: list[Path] = []

    def peer() -> float:
        peers.append(plan.new_folder())
        seen.append(run_peer(PEER_2, job, peers[-1]))
        return seen[-1].each

    found = plan.in_turns(ours=warm, ours_whole=whole, peer=peer)
    whole_peer = [run.wall / made for run in seen]
    plan.section.note(_likeness(job, folders[-1], peers[-1]))
    plan.section.note(f"Those of picowatch: {folders[-1].how_made(job.pictures)}.")
    name = f"{made} demo pictures, {plan.steps} steps, through the folder, seconds each"
    return [
        compared(f"{name}, warm", found["ours"], found["peer"], PEER_2, Goal("at least", 2.6)),
        compared(
            f"{name}, start-up included",
            found["ours_whole"],
            whole_peer,
            PEER_2,
            Goal("at least", 1.6),
        ),
    ]


def _likeness(job: Job, ours: Folders, theirs: Path) -> str:
    """How far the pictures of both lie apart, in a sentence."""
    apart = [
        mean_difference(ours.picture(one.seed), theirs / f"{place:04}.png")
        for place, one in enumerate(job.pictures)
    ]
    return (
        f"Both made the same pictures: of {len(apart)} pairs the median differs by "
        f"{statistics.median(apart):.2g} of 255 a channel in the mean, the worst by "
        f"{max(apart):.2g}."
    )


def mean_difference(one: Path, other: Path) -> float:
    """Of two pictures' channels, each from 0 to 255."""
    return float(np.abs(_pixels(one) - _pixels(other)).mean())


def _pixels(file: Path) -> "np.ndarray":
    with Image.open(file) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


class _Steps:
    """What a step of the large checkpoint takes: the seconds that more steps take more."""

    def __init__(
        self, plan: Plan, checkpoint: Checkpoint, size: int, steps: tuple[int, int]
    ) -> None:
        few, many = steps
        self._plan, self._more = plan, many - few
        asked = pictures_of_steps(few, few, many)  # the first one is the warm-up
        self.job = Job(checkpoint, size, asked, plan.device)
        self.what = f"{checkpoint.words}, {size}x{size}"
        self.peaks: dict[str, list[float]] = {}  # in MiB
        self.how_made: set[str] = set()

    def ours(self) -> float:
        """Through the folder, one picture after the other."""
        folders = Folders(self._plan.new_folder(), self.job.checkpoint, device=self.job.device)
        with running(folders) as daemon:
            _, short, long = [daemon.seconds_for(self.job, one) for one in self.job.pictures]
            self.peaks.setdefault("ours", []).append(daemon.peak_bytes() / MEBI)
        self.how_made.add(folders.how_made(self.job.pictures))
        return (long - short) / self._more

    def peer(self, name: str, *arguments: str) -> float:
        run = run_peer(name, self.job, self._plan.new_folder(), *arguments)
        self.peaks.setdefault(name, []).append(run.peak_bytes / MEBI)
        _, short, long = run.pictures
        return (long - short) / self._more


def full_row(plan: Plan) -> list[Figure]:
    """A step of the full-size checkpoint with CFG against peer 2."""
    return _against_diffusers(plan, _large(plan), Goal("at least", 2))


def xl_row(plan: Plan) -> list[Figure]:
    """The same of Stable Diffusion XL."""
    return _against_diffusers(plan, _xl(plan))


def _large(plan: Plan) -> _Steps:
    return _Steps(plan, plan.large(1), plan.large_size, plan.large_steps)


def _xl(plan: Plan) -> _Steps:
    return _Steps(plan, plan.xl(), plan.xl_size, plan.xl_steps)


def _against_diffusers(plan: Plan, steps: _Steps, goal: Goal | None = None) -> list[Figure]:
    found = plan.in_turns(ours=steps.ours, peer=lambda: steps.peer(PEER_2))
    plan.section.note(f"{steps.what}, picowatch: {'; '.join(steps.how_made)}.")
    return [
        compared(f"{steps.what}, a step with CFG", found["ours"], found["peer"], PEER_2, goal),
        compared(
            f"{steps.what}, peak memory",
            steps.peaks["ours"],
            steps.peaks[PEER_2],
            PEER_2,
            unit="MiB",
            times_faster=False,
        ),
    ]


def cpp_row(plan: Plan) -> list[Figure]:
    """A step of the full-size checkpoint against peer 3, in the fastest of its types."""
    return _against_cpp(plan, _large(plan), SD_CPP_TYPES, Goal("at least", 4))


def xl_cpp_row(plan: Plan) -> list[Figure]:
    """The same of Stable Diffusion XL, in the type that was the fastest of Stable Diffusion 1.5."""
    return _against_cpp(plan, _xl(plan), SD_CPP_TYPES[-1:])


def _against_cpp(
    plan: Plan, steps: _Steps, kinds: Sequence[str], goal: Goal | None = None
) -> list[Figure]:
    if not steps.job.checkpoint.path.is_file():
        plan.section.note(f"{PEER_3} knows full-size checkpoints only, and was left out.")
        return []
    build_sd_cpp()
    fastest = _fastest(plan, steps, kinds) if len(kinds) > 1 else kinds[0]
    found = plan.in_turns(ours=steps.ours, peer=lambda: steps.peer(PEER_3, fastest))
    what, name = f"{steps.what}, a step with CFG", f"{PEER_3} {fastest}"
    return [compared(what, found["ours"], found["peer"], name, goal)]


def _fastest(plan: Plan, steps: _Steps, kinds: Sequence[str]) -> str:
    """The type of weights that peer 3 computes fastest with."""
    first = {kind: steps.peer(PEER_3, kind) for kind in kinds}
    told = ", ".join(f"{kind} {number(seconds)} s" for kind, seconds in first.items())
    plan.section.note(f"A first look at {PEER_3}: {told}; the fastest is counted.")
    return min(first, key=lambda kind: first[kind])


def first_row(plan: Plan) -> list[Figure]:
    """The first picture after the start, files in the cache, against peer 2 start to finish."""
    demo = Job(DEMO, plan.size, pictures(1, plan.steps), plan.device)
    few, _ = plan.large_steps
    large = Job(plan.large(1), plan.large_size, pictures_of_steps(few), plan.device)
    jobs = [demo] if large.checkpoint == DEMO else [demo, large]
    return [_first_picture(plan, job) for job in jobs]


def _first_picture(plan: Plan, job: Job) -> Figure:
    """`picowatch run` with a recipe that waits; the outbox is used again, as a user's is."""
    folders = Folders(plan.new_folder(), job.checkpoint, device=plan.device)
    seeds = count(1)
    (asked,) = job.pictures

    def ours() -> float:
        fresh = replace(asked, seed=next(seeds))
        before = folders.made()
        folders.drop(job, fresh)
        return _seconds_to_picture(folders, before + 1)

    def peer() -> float:
        return run_peer(PEER_2, job, plan.new_folder()).wall

    ours(), peer()  # the files are in the cache then, and the checkpoint's hash is known
    found = plan.in_turns(ours=ours, peer=peer)
    return compared(
        f"first picture after the start: {job.checkpoint.words}, {job.size}x{job.size}, "
        f"{asked.steps} steps",
        found["ours"],
        found["peer"],
        f"{PEER_2}, start to finish",
        Goal("at most", 1),
        times_faster=False,
    )


def _seconds_to_picture(folders: Folders, made: int) -> float:
    began = time.monotonic()
    with running(folders) as daemon:
        daemon.wait_for_pictures(made)
        return time.monotonic() - began
