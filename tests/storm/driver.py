"""The storm: a user who edits sixty recipes while picowatch is killed again and again.

    python -m tests.storm.driver [--kills 200] [--seed N] [--folder DIR] [--engines N]

Half of the kills come within 300 ms after a new picture, half at any time; half of them hit the
daemon, half its engine. Meanwhile happens what tests/storm/disturbances.py lists. Then the storm
ends, picowatch does what is left, and everything is counted: nothing lost, nothing twice, seeds as
drawn. Exit code 1 and the findings otherwise. What saves, renames and commands mean is not tested
here, but by tests/meetings.
"""

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.house import House
from tests.outcome import faults, is_sheet
from tests.storm.disturbances import EXPECTED, Storm
from tests.storm.picowatch import Picowatch, engines_of, is_alive, wait_until
from tests.storm.user import RECIPES, Entry, User

PATIENCE = 300.0
AFTER_PICTURE_SECONDS = 0.3
ANY_TIME_SECONDS = 1.5
# What the log never says unless something is wrong, and how much of it is worth showing.
SUSPECT = ("Traceback", "nexpected error", "damaged", " failed", "error ")
TRACEBACK_LINES = 60


def storm(folder: Path, kills: int, dice: random.Random, engines: int = 1) -> list[str]:
    """The whole storm in a folder; gives what is wrong at its end."""
    house = House(folder)
    user = User(house, dice)
    for _ in range(RECIPES // 2):
        user.act()
    picowatch = Picowatch(folder, engines)
    world = Storm(user, picowatch, random.Random(dice.random()))
    raised: list[BaseException] = []
    with picowatch, _at_work(world.disturb, world, raised), _at_work(user.act, world, raised):
        done = _kill(world, kills, raised)
        if raised:
            raise raised[0]
    wait_until(lambda: house.status()["images"] is not None, PATIENCE)
    world.send("resume")
    print(f"{done} of daemons and engines, {user.saves} saves, {dict(world.happened)}")
    finished = wait_until(lambda: all_is_made(house, user), PATIENCE)
    processes = engines_of(picowatch.process.pid)
    code = picowatch.end()
    problems = [*findings(house, user), *picowatch.problems, *world.problems]
    if not finished:
        problems.append(f"not everything was made within {PATIENCE:.0f} s")
    if code:
        problems.append(f"picowatch ended with exit code {code}")
    problems += [f"engine {engine} lives on" for engine in processes if is_alive(engine)]
    print(f"{len(house.pictures())} pictures of {len(user.requested)} entries")
    return problems


def _kill(world: Storm, kills: int, raised: list[BaseException]) -> list[int]:
    """Kill daemons and engines so often; gives how many of each."""
    house, done = world.user.house, [0, 0]
    while sum(done) < kills and not raised:
        number = sum(done)
        if number % 2:
            made = len(house.listed())
            wait_until(lambda: len(house.listed()) > made, 5.0)  # noqa: B023
            world.wait(AFTER_PICTURE_SECONDS)
        else:
            world.wait(ANY_TIME_SECONDS)
        with world.no_kills:
            if number % 4 < 2:
                world.picowatch.restart(meanwhile=lambda: None)
                done[0] += 1
            else:
                done[1] += world.picowatch.kill_engine()
    return done


@contextmanager
def _at_work(act: Callable[[], None], world: Storm, raised: list[BaseException]) -> Iterator[None]:
    """It is done again and again, all the while; what it raises ends the storm."""
    over, dice = threading.Event(), random.Random(world.dice.random())

    def work() -> None:
        try:
            while not over.wait(dice.uniform(0.05, 0.8)):
                act()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def all_is_made(house: House, user: User) -> bool:
    """Whether the recipes' last saves are all done; looks often, so it looks at names only."""
    counts = house.status()["images"]
    if counts is None or counts["queued"] or counts["running"]:
        return False
    made = [line["prompt"] for line in house.listed()]
    return all(
        made.count(entry.prompt) >= entry.count
        for entries in user.recipes.values()
        for entry in entries
    )


def findings(house: House, user: User) -> Iterator[str]:
    """Everything that is not as it should be."""
    seeds = defaultdict(list)
    for picture in house.pictures():
        if not is_sheet(picture):
            chunk = house.chunk(picture)
            entry = user.requested[chunk.request.prompt]
            seeds[entry.prompt].append(chunk.request.seed)
            if chunk.recipe != entry.recipe:
                yield f"{entry.prompt!r} was made for {chunk.recipe}, not {entry.recipe}"
    for prompt, found in seeds.items():
        yield from wrong_seeds(user.requested[prompt], found)
    for name, entries in user.recipes.items():
        for entry in entries:
            made = len(seeds[entry.prompt])
            if not entry.count <= made <= entry.count * entry.draws:
                yield f"{name}: {made} of {entry.count} of {entry.prompt!r}"
    yield from faults(house.outbox)
    lines = (house.log() + (house.folder / "console.txt").read_text()).splitlines()
    for number, line in enumerate(lines):
        if any(words in line for words in SUSPECT) and not any(word in line for word in EXPECTED):
            after = lines[number + 1 : number + TRACEBACK_LINES] if "Traceback" in line else []
            yield "\n".join([f"in the log: {line}", *after])


def wrong_seeds(entry: Entry, found: list[int]) -> Iterator[str]:
    """An entry draws its seed once, and image i has seed+i."""
    if len(set(found)) != len(found):
        yield f"{entry.prompt!r} was made twice: seeds {sorted(found)}"
    if entry.seed is not None:
        wanted = {(entry.seed + image) % 2**32 for image in range(entry.count)}
        if set(found) - wanted:
            yield f"{entry.prompt!r} has other seeds than {sorted(wanted)}: {sorted(found)}"
    elif entry.draws == 1 and any(
        (seed - found[0] + entry.count) % 2**32 >= 2 * entry.count for seed in found
    ):
        yield f"{entry.prompt!r} of {entry.recipe} drew its seed more than once: {sorted(found)}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill picowatch at random, then count.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the storm's dice")
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept")
    parser.add_argument("--engines", type=int, default=1, help="at work at once")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"a storm of {options.kills} kills, seed {seed}", flush=True)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell has what runs behind it ignore that
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        problems = storm(folder, options.kills, random.Random(seed), options.engines)
    for problem in problems:
        print(problem)
    print(f"{'not ' if problems else ''}all is well after {time.monotonic() - started:.0f} s")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
