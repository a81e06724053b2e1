"""The storm: a user who edits sixty recipes while picowatch is killed again and again.

    python -m tests.storm.driver [--kills 200] [--seed N] [--folder DIR] [--engines N]

Half of the kills come within 300 ms after a new picture, half at any time; half of them hit the
daemon, half its engine. Meanwhile happens what tests/storm/disturbances.py lists. Then the storm
ends, picowatch does what is left, and everything is counted: nothing lost, nothing twice, seeds as
drawn. Exit code 1 and the findings otherwise.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.house import House
from tests.storm.disturbances import COMPUTER, EXPECTED, HANDS, Storm, command, disturb
from tests.storm.user import RECIPES, Entry, User, listed

PATIENCE = 300.0
AFTER_PICTURE_SECONDS = 0.3
ANY_TIME_SECONDS = 1.5
# What the log never says unless something is wrong, and how much of it is worth showing.
SUSPECT = ("Traceback", "nexpected error", "damaged", " failed", "error ")
TRACEBACK_LINES = 60


class Picowatch:
    """The daemon's process, started again whenever it was killed."""

    def __init__(self, folder: Path, engines: int = 1) -> None:
        self._folder = folder
        self._engines = engines
        self.problems: list[str] = []
        self._output = (folder / "console.txt").open("ab")
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.storm.daemon", str(self._folder)]
        return subprocess.Popen(
            [
                *command,
                "max_attempts=1000",
                f"executor=local:{self._engines}",
                # The user may be kept from going on between a picture's prompt and the picture.
                "settle_seconds=0.4",
            ],
            stdout=self._output,
            stderr=self._output,
        )

    def kill(self) -> None:
        self.restart(lambda: None)

    def restart(self, meanwhile: Callable[[], None]) -> None:
        """Kill it, and do something before it starts again."""
        self.process.kill()
        self.process.wait()
        meanwhile()
        self.process = self._start()

    def is_up(self) -> bool:
        """Whether it is past its start."""
        status = self._folder / "outbox/.picowatch/status.json"
        with suppress(OSError, ValueError):
            return bool(json.loads(status.read_text())["pid"] == self.process.pid)
        return False

    def end_by(self, number: int) -> None:
        """A signal that ends it in time, and with it all that it started."""
        started = children(self.process.pid)
        self.process.send_signal(number)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.problems.append(f"lives on 30 s after {signal.Signals(number).name}")
            self.process.kill()
            self.process.wait()
        wait_until(lambda: not any(map(is_alive, started)), 5.0)
        left = [child for child in started if is_alive(child)]
        self.problems += [f"child {child} lives on after signal {number}" for child in left]
        self.process = self._start()

    def kill_engine(self) -> bool:
        """All of them; false if there is none right now."""
        engines = engines_of(self.process.pid)
        for engine in engines:
            with suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)
        return bool(engines)

    def __enter__(self) -> None:
        """What raises within ends it."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> int:
        """As a service manager does; gives the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self._output.close()


def children(process: int) -> list[int]:
    """The processes that a process started."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def engines_of(daemon: int) -> list[int]:
    """The engines' processes of a daemon, without multiprocessing's own."""
    found = []
    for child in children(daemon):
        with suppress(OSError):
            if b"--multiprocessing-fork" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def storm(folder: Path, kills: int, dice: random.Random, engines: int = 1) -> list[str]:
    """The whole storm in a folder; gives what is wrong at its end."""
    (folder / "inbox").mkdir()
    house = House.__new__(House)
    house.folder, house.inbox = folder, folder / "inbox"
    house.outbox, house.models = folder / "outbox", folder / "models"
    house.models.mkdir()
    user = User(house, dice)
    pause = threading.Event()
    for _ in range(RECIPES // 2):
        user.act()
    picowatch = Picowatch(folder, engines)
    world = Storm(user, picowatch, random.Random(dice.random()))
    done = {"daemon": 0, "engine": 0}
    raised: list[BaseException] = []
    computer = at_work(lambda: disturb(world, COMPUTER), world.dice, raised)
    with picowatch, computer, at_work(hands(world), dice, raised):
        while sum(done.values()) < kills and not raised:
            number = sum(done.values())
            if number % 2:
                wait_until(lambda: new_picture(house), 5.0)
                pause.wait(dice.uniform(0, AFTER_PICTURE_SECONDS))
            else:
                pause.wait(dice.uniform(0, ANY_TIME_SECONDS))
            with world.no_kills:
                if number % 4 < 2:
                    picowatch.kill()
                    done["daemon"] += 1
                elif picowatch.kill_engine():
                    done["engine"] += 1
        if raised:
            raise raised[0]
    for put_right in user.at_the_end:
        put_right()
    wait_until(lambda: house.status()["images"] is not None, PATIENCE)
    command(world, "resume")
    print(f"{done['daemon']} daemons and {done['engine']} engines killed, {user.saves} saves")
    print(", ".join(f"{name} {times}" for name, times in sorted(world.happened.items())))
    finished = wait_until(lambda: all_is_made(house, user), PATIENCE)
    processes = engines_of(picowatch.process.pid)
    code = picowatch.end()
    problems = [*findings(house, user), *picowatch.problems, *world.problems]
    if not finished:
        problems.append(f"not everything was made within {PATIENCE:.0f} s")
    if code:
        problems.append(f"picowatch ended with exit code {code}")
    problems += [f"engine {engine} lives on" for engine in processes if is_alive(engine)]
    print(f"{len(house.pictures())} pictures of {len(user.asked)} entries")
    return problems


def hands(world: Storm) -> Callable[[], None]:
    """What the user's hands do each time: an edit, and perhaps more."""

    def act() -> None:
        world.user.act()
        disturb(world, HANDS)

    return act


@contextmanager
def at_work(
    act: Callable[[], None], dice: random.Random, raised: list[BaseException]
) -> Iterator[None]:
    """It is done again and again, all the while; what it raises ends the storm."""
    over = threading.Event()

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


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition came to hold in time."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.02)
    return True


_sizes: dict[Path, int] = {}


def new_picture(house: House) -> bool:
    """Whether a picture was enlisted since the last look."""
    path = house.outbox / "images.jsonl"
    size = path.stat().st_size if path.exists() else 0
    before, _sizes[path] = _sizes.get(path, size), size
    return size > before


def all_is_made(house: House, user: User) -> bool:
    """Whether the recipes' last saves are all answered; looks often, so it looks at names only."""
    counts = house.status()["images"]
    if counts is None or counts["queued"] or counts["running"]:
        return False
    made = made_by_prompt(house)
    return all(
        len(made.get(entry.prompt, ())) >= entry.count or not entry.wanted
        for entries in user.recipes.values()
        for entry in entries
    )


def made_by_prompt(house: House) -> dict[str, list[int]]:
    """The seeds of the pictures that the list names, by prompt."""
    made = defaultdict(list)
    for line in listed(house):
        made[str(line["prompt"])].append(int(str(line["seed"])))
    return made


def findings(house: House, user: User) -> Iterator[str]:
    """Everything that is not as it should be."""
    seeds = defaultdict(list)
    recipes = {}
    pictures = [picture for picture in house.pictures() if not picture.endswith("-sheet.png")]
    for picture in pictures:
        chunk = house.chunk(picture)
        seeds[chunk.request.prompt].append(chunk.request.seed)
        recipes[chunk.request.prompt] = chunk.recipe
    for prompt, found in seeds.items():
        yield from wrong_seeds(user.asked[prompt], found)
    for name, entries in user.recipes.items():
        for entry in entries:
            made = len(seeds[entry.prompt])
            least = entry.count if entry.wanted else 0
            if not least <= made <= entry.count * entry.draws:
                yield f"{name}: {made} of {entry.count} of {entry.prompt!r}"
            elif made and recipes[entry.prompt] not in entry.names:
                yield f"{entry.prompt!r} was made for {recipes[entry.prompt]}, not {name}"
    in_list = sorted(line["file"] for line in house.listed())
    if in_list != pictures:
        yield f"the list names {len(in_list)} pictures, there are {len(pictures)}"
    for left in house.outbox.rglob(".picowatch-*"):
        yield f"left over: {left}"
    lines = (house.log() + (house.folder / "console.txt").read_text()).splitlines()
    for number, line in enumerate(lines):
        if any(words in line for words in SUSPECT) and not any(word in line for word in EXPECTED):
            after = lines[number + 1 : number + TRACEBACK_LINES] if "Traceback" in line else []
            yield "\n".join([f"in the log: {line}", *after])


def wrong_seeds(entry: Entry, found: list[int]) -> Iterator[str]:
    """An entry draws its seed once, and image i has seed+i."""
    if len(set(found)) != len(found) and not entry.twice:
        yield f"{entry.prompt!r} was made twice: seeds {sorted(found)}"
    if entry.seed is not None:
        wanted = {(entry.seed + image) % 2**32 for image in range(entry.count)}
        if set(found) - wanted:
            yield f"{entry.prompt!r} has other seeds than {sorted(wanted)}: {sorted(found)}"
    elif entry.draws == 1 and any(
        (seed - found[0] + entry.count) % 2**32 >= 2 * entry.count for seed in found
    ):
        names = ", ".join(sorted(entry.names))
        yield f"{entry.prompt!r} of {names} drew its seed more than once: {sorted(found)}"


def is_alive(process: int) -> bool:
    return Path(f"/proc/{process}").exists()


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill picowatch at random, then count.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the storm's dice")
    parser.add_argument("--folder", type=Path, help="an empty folder that is kept")
    parser.add_argument("--engines", type=int, default=1, help="at work at once")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"a storm of {options.kills} kills, seed {seed}", flush=True)
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
