"""What many recipes cost: accepted a second, the daemon's memory, and how soon a save is begun.

    python -m benchmarks.accepting [--recipes 10000] [--saves 150] [--folder DIR]

The daemon runs on the digest engine, in a process of its own. DIR decides which disk is
measured; without it a temporary folder is taken.
"""

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import percentile
from tests.house import House
from tests.load.live_daemon import LiveDaemon, live_daemon
from tests.load.recipes import text_of, write_recipes

SETTLE_SECONDS = 0.5
IDLE_SECONDS = 60.0  # in which the inbox is compared once
BATCH_SECONDS = 0.03
BETWEEN_SAVES = 0.67  # seconds; no multiple of anything the daemon waits for
CALM_SECONDS = 1.5  # after which a start is over
FIRST_LIVE_SEED = 1_000_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """What it took until many recipes waited: seconds in all, for copying, of the processor."""

    seconds: float
    copying: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Saves:
    """Saves while others wait: how late each was begun, and what was made meanwhile."""

    late: list[float]
    waiting: int
    made: int
    cpu: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipes", type=int, default=10_000)
    parser.add_argument("--saves", type=int, default=150)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        house = House(Path(folder))
        with daemon_for(house) as daemon:
            tell_idle(daemon, "an empty inbox")
            tell_accepting(accept(house, daemon, arguments.recipes), arguments.recipes)
            tell_idle(daemon, f"{arguments.recipes:,} waiting recipes, the engine held")
            daemon.release()
            tell_latency(lateness_of_saves(house, daemon, arguments.saves))
            print(f"memory at most: {daemon.mebibytes():.0f} MiB")


def daemon_for(house: House) -> AbstractContextManager[LiveDaemon]:
    """A daemon whose engine is held until it is released."""
    return live_daemon(
        house,
        held=True,
        settle_seconds=SETTLE_SECONDS,
        batch_size=1,
        batch_seconds=BATCH_SECONDS,
    )


def tell_idle(daemon: LiveDaemon, what: str) -> None:
    rest(CALM_SECONDS)
    before = daemon.cpu_seconds()
    rest(IDLE_SECONDS)
    share = (daemon.cpu_seconds() - before) / IDLE_SECONDS
    print(f"idle with {what}: {share:.2%} of a core, {daemon.mebibytes('VmRSS'):.0f} MiB")


def accept(house: House, daemon: LiveDaemon, recipes: int) -> Accepted:
    """Copy recipes into the inbox, and wait until the log says of each that it is accepted."""
    write_recipes(house.folder / "source", recipes)
    log = house.outbox / "picowatch.log"
    cpu, started = daemon.cpu_seconds(), time.monotonic()
    subprocess.run(["cp", "-r", f"{house.folder}/source/.", house.inbox], check=True)
    copied = time.monotonic() - started
    daemon.wait_for(lambda: log.read_bytes().count(b": saved, ") >= recipes, "all recipes")
    seconds, cpu = time.monotonic() - started, daemon.cpu_seconds() - cpu
    daemon.wait_until_asked(recipes)
    return Accepted(seconds, copied, cpu)


def tell_accepting(accepted: Accepted, recipes: int) -> None:
    print(
        f"{recipes:,} recipes, copied in {accepted.copying:.1f} s, wait after "
        f"{accepted.seconds:.1f} s: {recipes / accepted.seconds:.0f} a second with the settle "
        f"time, {accepted.cpu / recipes * 1000:.2f} ms of processor each"
    )


def lateness_of_saves(house: House, daemon: LiveDaemon, saves: int) -> Saves:
    """From a save's last byte to the first step, beyond settle time and the batch in progress."""
    saved: dict[int, float] = {}
    cpu, made = daemon.cpu_seconds(), daemon.made()
    for seed in range(FIRST_LIVE_SEED, FIRST_LIVE_SEED + saves):
        house.save(f"live/{seed}.yaml", text_of(seed) + "priority: 10\n")
        saved[seed] = time.time()
        rest(BETWEEN_SAVES)
    daemon.wait_for(lambda: saved.keys() <= {first for first, *_ in daemon.batches()}, "all saves")
    cpu, made = daemon.cpu_seconds() - cpu, daemon.made() - made
    batches = daemon.batches()
    late = [
        lateness(batches, when + SETTLE_SECONDS, begin)
        for seed, begin, _ in batches
        if (when := saved.get(seed))
    ]
    return Saves(sorted(late), daemon.images()["queued"], made, cpu)


def tell_latency(saves: Saves) -> None:
    late = saves.late
    print(
        f"{len(late)} saves while {saves.waiting:,} and more wait, first step later than settle "
        f"time and batch in progress: median {statistics.median(late) * 1000:.0f} ms, 99 % "
        f"{percentile(late, 0.99) * 1000:.0f} ms, worst {late[-1] * 1000:.0f} ms"
    )
    print(f"{saves.made:,} pictures meanwhile, {saves.cpu / saves.made * 1000:.2f} ms each")


def lateness(batches: list[tuple[int, float, float]], settled: float, begin: float) -> float:
    in_progress = [end for _, began, end in batches if began <= settled < end]
    return begin - max([settled, *in_progress])


def rest(seconds: float) -> None:
    threading.Event().wait(seconds)


if __name__ == "__main__":
    main()
