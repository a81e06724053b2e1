"""What many recipes cost: accepted a second, the daemon's memory, and how soon a save is begun.

    python -m benchmarks.accepting [--recipes 10000] [--saves 150] [--watch events] [--folder DIR]

The daemon runs on the digest engine, in a process of its own. DIR decides which disk is
measured; without it a temporary folder is taken.
"""

import argparse
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from tests.house import House
from tests.load.live_daemon import LiveDaemon, live_daemon
from tests.load.recipes import text_of, write_recipes

SETTLE_SECONDS = 0.5
IDLE_SECONDS = 60.0  # in which the inbox is compared once
BATCH_SECONDS = 0.03
BETWEEN_SAVES = 0.67  # seconds; no multiple of anything the daemon waits for
FIRST_LIVE_SEED = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipes", type=int, default=10_000)
    parser.add_argument("--saves", type=int, default=150)
    parser.add_argument("--watch", default="events")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        house = House(Path(folder))
        with live_daemon(
            house,
            held=True,
            watch=arguments.watch,
            settle_seconds=SETTLE_SECONDS,
            batch_size=1,
            batch_seconds=BATCH_SECONDS,
        ) as daemon:
            measure(house, daemon, arguments.recipes, arguments.saves)


def measure(house: House, daemon: LiveDaemon, recipes: int, saves: int) -> None:
    tell_idle(daemon, "an empty inbox")
    tell_accepting(house, daemon, recipes)
    tell_idle(daemon, f"{recipes:,} waiting recipes, the engine held")
    daemon.release()
    tell_latency(house, daemon, saves)
    print(f"memory at most: {daemon.mebibytes():.0f} MiB")


def tell_idle(daemon: LiveDaemon, what: str) -> None:
    rest(2 * BETWEEN_SAVES)
    before = daemon.cpu_seconds()
    rest(IDLE_SECONDS)
    share = (daemon.cpu_seconds() - before) / IDLE_SECONDS
    print(f"idle with {what}: {share:.2%} of a core, {daemon.mebibytes('VmRSS'):.0f} MiB")


def tell_accepting(house: House, daemon: LiveDaemon, recipes: int) -> None:
    write_recipes(house.folder / "source", recipes)
    cpu, started = daemon.cpu_seconds(), time.monotonic()
    subprocess.run(["cp", "-r", f"{house.folder}/source/.", house.inbox], check=True)
    copied = time.monotonic() - started
    daemon.wait_until_asked(recipes)
    seconds, cpu = time.monotonic() - started, daemon.cpu_seconds() - cpu
    print(
        f"{recipes:,} recipes, copied in {copied:.1f} s, wait after {seconds:.1f} s: "
        f"{recipes / seconds:.0f} a second with the settle time, "
        f"{cpu / recipes * 1000:.2f} ms of processor each"
    )


def tell_latency(house: House, daemon: LiveDaemon, saves: int) -> None:
    """From a save's last byte to the first step, beyond settle time and the batch in work."""
    saved: dict[int, float] = {}
    cpu, made = daemon.cpu_seconds(), daemon.made()
    for seed in range(FIRST_LIVE_SEED, FIRST_LIVE_SEED + saves):
        house.save(f"live/{seed}.yaml", text_of(seed) + "priority: 10\n")
        saved[seed] = time.time()
        rest(BETWEEN_SAVES)
    daemon.wait_for(lambda: seed in {first for first, *_ in daemon.batches()}, "the last save")
    cpu, made = daemon.cpu_seconds() - cpu, daemon.made() - made
    waiting = daemon.images()["queued"]
    batches = daemon.batches()
    late = sorted(
        lateness(batches, when + SETTLE_SECONDS, begin)
        for seed, begin, _ in batches
        if (when := saved.get(seed))
    )
    p99 = late[min(saves - 1, int(saves * 0.99))]
    print(
        f"{saves} saves while {waiting:,} and more wait, first step later than settle time and "
        f"batch in work: median {statistics.median(late) * 1000:.0f} ms, 99 % {p99 * 1000:.0f} ms, "
        f"worst {late[-1] * 1000:.0f} ms"
    )
    print(f"{made:,} pictures meanwhile, {cpu / made * 1000:.2f} ms of processor each")


def lateness(batches: list[tuple[int, float, float]], settled: float, begin: float) -> float:
    in_work = [end for _, began, end in batches if began <= settled < end]
    return begin - max([settled, *in_work])


def rest(seconds: float) -> None:
    threading.Event().wait(seconds)


if __name__ == "__main__":
    main()
