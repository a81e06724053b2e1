"""The rows that need no peer: what picowatch costs beside its pictures."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from itertools import count, pairwise
from pathlib import Path

from benchmarks import accepting
from benchmarks.filling import fill
from benchmarks.jobs import DEMO, Checkpoint, Job, Picture
from benchmarks.measuring import MEBI, Figure, Goal, compared, measured, percentile, wait_until
from benchmarks.ours import Daemon, Folders, running, seconds_of
from benchmarks.plan import Plan
from tests.house import House
from tests.load.live_daemon import live_daemon
from tests.load.recipes import text_of

PUBLISHED_BEFORE = 100
READ_BLOCK = 16 * MEBI
LIGHT_COMMANDS = {
    "check": ("check", "inbox/r00001.yaml"),
    "status": ("status",),
    "--help": ("--help",),
}
SMALL_SIDE = 64


def waiting_row(plan: Plan) -> list[Figure]:
    """Ten thousand recipes: accepting them, their memory, and a save while they wait."""
    house = House(plan.new_folder())
    with accepting.daemon_for(house) as daemon:
        accepted = accepting.accept(house, daemon, plan.recipes)
        held = daemon.mebibytes()
        daemon.release()
        saves = accepting.lateness_of_saves(house, daemon, plan.saves)
    milliseconds = [seconds * 1000 for seconds in saves.late]
    save = f"save to first step while {plan.recipes:,} recipes wait, {saves.waiting:,} at the end"
    return [
        measured(
            f"{plan.recipes:,} recipes accepted, durable, copying and settle time included",
            [plan.recipes / accepted.seconds],
            "a second",
            Goal("at least", 500),
        ),
        measured(
            f"daemon's memory at most, {plan.recipes:,} recipes waiting",
            [held],
            "MiB",
            Goal("at most", 150),
        ),
        measured(
            f"{save}, beyond settle time and batch in progress, 99 % of {len(milliseconds)}",
            [percentile(milliseconds, 0.99)],
            "ms",
            Goal("at most", 50),
        ),
        measured("… the same, median", [statistics.median(milliseconds)], "ms"),
    ]


def flat_row(plan: Plan) -> list[Figure]:
    """What a picture costs at the beginning of an outbox, and after a hundred thousand."""
    few, many = House(plan.new_folder()), House(plan.new_folder())
    numbers = count()
    _publish(few, PUBLISHED_BEFORE, numbers)
    fill(many, plan.published)
    costs: dict[str, list[tuple[float, float]]] = {"few": [], "many": []}

    def cost(name: str, house: House) -> Callable[[], float]:
        def publish() -> float:
            costs[name].append(_publish(house, 2 * PUBLISHED_BEFORE, numbers))
            return costs[name][-1][0]

        return publish

    plan.in_turns(few=cost("few", few), many=cost("many", many))
    return [
        compared(
            f"a picture's {what} for ledger, list, gallery, log and status, digest engine: "
            f"after {plan.published:,} pictures against the first hundreds",
            [one[place] * 1000 for one in costs["many"]],
            [one[place] * 1000 for one in costs["few"]],
            "first hundreds",
            Goal("at most", 1.2),
            unit="ms",
            times_faster=False,
        )
        for place, what in enumerate(("time", "processor time"))
    ]


def _publish(house: House, pictures: int, numbers: "count[int]") -> tuple[float, float]:
    """Publish more pictures; gives the median time between two, and processor time of each."""
    seed = 10_000_000 + next(numbers) * 10_000
    house.outbox.joinpath(".picowatch/status.json").unlink(missing_ok=True)  # of the last daemon
    with live_daemon(house, batch_size=1, settle_seconds=0.05) as daemon:
        before = daemon.made() + 1
        house.save(f"first{seed}.yaml", text_of(seed))
        daemon.wait_until_made(before)  # the start is over then
        cpu = daemon.cpu_seconds()
        house.save(f"more{seed}.yaml", f"{text_of(seed)}count: {pictures}\n")
        daemon.wait_until_made(before + pictures)
        cpu = daemon.cpu_seconds() - cpu
    written = sorted(
        path.stat().st_mtime_ns for path in (house.outbox / f"more{seed}").glob("*.png")
    )
    between = [later - earlier for earlier, later in pairwise(written)]
    return statistics.median(between) / 1e9, cpu / pictures


def idle_row(plan: Plan) -> list[Figure]:
    """A daemon with nothing to do, and the commands that answer at once."""
    folders = Folders(plan.new_folder(), device=plan.device)
    job = Job(DEMO, SMALL_SIDE, (Picture("a corgi", 1, 1),))
    with running(folders) as daemon:
        wait_until((folders.outbox / "now.txt").exists, "the daemon", 60)
        accepting.rest(accepting.CALM_SECONDS)
        before = daemon.cpu_seconds()
        accepting.rest(plan.idle_seconds)
        share = (daemon.cpu_seconds() - before) / plan.idle_seconds * 100
        held = daemon.resident_bytes() / MEBI
    folders.drop(job, *job.pictures)
    return [
        measured("idle daemon, no engine", [share], "% of a core", Goal("at most", 0.1)),
        measured("idle daemon, no engine: resident", [held], "MiB", Goal("at most", 60)),
        *(_light(plan, folders, name, words) for name, words in LIGHT_COMMANDS.items()),
    ]


def _light(plan: Plan, folders: Folders, name: str, words: Sequence[str]) -> Figure:
    seconds_of(folders, *words)
    seconds = [seconds_of(folders, *words) for _ in range(2 * plan.rounds + 1)]
    return measured(f"`picowatch {name}`", seconds, "s", Goal("at most", 0.3))


def switching_row(plan: Plan) -> list[Figure]:
    """Another checkpoint for the next picture: what it takes more, against reading the file."""
    one, other = plan.large(1), plan.large(2)
    folders = Folders(plan.new_folder(), one, other, device=plan.device)
    seeds = count(1)
    _pictures_of(folders, plan, (one, other), seeds)  # hashes are known, files are cached
    read, there, back = [], [], []
    for turn in range(plan.rounds):
        first, second = (one, other) if turn % 2 == 0 else (other, one)
        read.append(read_seconds(second.path))
        took = _pictures_of(folders, plan, (first, first, first, second, second, first), seeds)
        same = min(took[1], took[2], took[4])
        there.append(took[3] - same)
        back.append(took[5] - same)
        print(f"  round {turn + 1}: {there[-1]:.2f} s, back {back[-1]:.2f} s", flush=True)
    told = "the file read once from the page cache"
    figures = [
        compared(
            f"switching to another checkpoint, {one.words}: what the picture takes more",
            there, read, told, Goal("at most", 1.3), times_faster=False,
        ),
        compared(
            "… and back to one that was in use: is it kept?",
            [max(0.0, seconds) for seconds in back], read, told,
            Goal("at most", 0.2), times_faster=False,
        ),
    ]  # fmt: skip
    if one.path.is_file() and drop_caches():
        figures.append(_from_disk(plan, folders, one, other, seeds))
    return figures


def _from_disk(
    plan: Plan, folders: Folders, one: Checkpoint, other: Checkpoint, seeds: "count[int]"
) -> Figure:
    """The same, where nothing of the other file is in memory yet."""
    read, there = [], []
    for _ in range(plan.rounds):
        drop_caches()
        read.append(_read_once(other.path))
        with running(folders) as daemon:
            same = min(_seconds(daemon, plan, one, seeds) for _ in range(3))
            drop_caches()
            there.append(_seconds(daemon, plan, other, seeds) - same)
        print(f"  from the disk: {there[-1]:.2f} s, read {read[-1]:.2f} s", flush=True)
    return compared(
        "… to one that the page cache does not hold",
        there,
        read,
        "the file read once from the disk",
        Goal("at most", 1.3),
        times_faster=False,
    )


def drop_caches() -> bool:
    """Empty the page cache; false where one may not (only root may)."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def _pictures_of(
    folders: Folders, plan: Plan, checkpoints: Sequence[Checkpoint], seeds: "count[int]"
) -> list[float]:
    """A small picture of each checkpoint in turn, one after the other; the seconds of each."""
    with running(folders) as daemon:
        return [_seconds(daemon, plan, checkpoint, seeds) for checkpoint in checkpoints]


def _seconds(daemon: Daemon, plan: Plan, checkpoint: Checkpoint, seeds: "count[int]") -> float:
    """What a small picture of one step takes."""
    job = Job(checkpoint, SMALL_SIDE, (), plan.device)
    return daemon.seconds_for(job, Picture("a corgi", next(seeds), 1))


def read_seconds(path: Path) -> float:
    """Reading a checkpoint's bytes once, from the page cache: it is read before, unmeasured."""
    _read_once(path)
    return _read_once(path)


def _read_once(path: Path) -> float:
    began = time.monotonic()
    block = bytearray(READ_BLOCK)
    for file in [path] if path.is_file() else sorted(path.rglob("*.*")):
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(block):
                pass
    return time.monotonic() - began
