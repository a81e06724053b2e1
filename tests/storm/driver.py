"""The storm: a user who edits sixty recipes while picowatch is killed again and again.

    python -m tests.storm.driver [--kills 200] [--seed N] [--folder DIR] [--engines N]

Half of the kills come within 300 ms after a new picture, half at any time; half of them hit the
daemon, half its engine. Then the storm ends, picowatch does what is left, and everything is
counted: nothing lost, nothing twice, seeds as drawn. Exit code 1 and the findings otherwise.
"""

import argparse
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
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.house import House

RECIPES = 60
PATIENCE = 300.0
AFTER_PICTURE_SECONDS = 0.3
ANY_TIME_SECONDS = 1.5
SIZE = 64


@dataclass
class Entry:
    """One entry of a recipe; its prompt is used once in the whole storm."""

    prompt: str
    count: int
    seed: int | None
    priority: int

    def as_yaml(self) -> dict[str, object]:
        fixed = {} if self.seed is None else {"seed": self.seed}
        return {
            "prompt": self.prompt,
            "count": self.count,
            "priority": self.priority,
            "steps": 3,
            "size": f"{SIZE}x{SIZE}",
            **fixed,
        }


@dataclass
class User:
    """Saves, edits and deletes recipes, and remembers what was asked."""

    inbox: Path
    dice: random.Random
    recipes: dict[str, list[Entry]] = field(default_factory=dict)
    asked: dict[str, Entry] = field(default_factory=dict)  # every entry ever, by its prompt
    saves: int = 0

    def act(self) -> None:
        """One thing that users do; never the same bytes twice, that would be 'again'."""
        name = f"{self.dice.choice(('', 'pets/', 'a/b/'))}{self.dice.randrange(RECIPES):02}.yaml"
        if name in self.recipes and self.dice.random() < 0.15:
            del self.recipes[name]
            (self.inbox / name).unlink()
            return
        entries = [e for e in self.recipes.get(name, []) if self.dice.random() < 0.7]
        for entry in entries:
            if self.dice.random() < 0.2:
                entry.priority = self.dice.randrange(3)
        entries += [self._new_entry() for _ in range(self.dice.randint(1, 3))]
        self.dice.shuffle(entries)
        self.recipes[name] = entries
        self._save(name)

    def _new_entry(self) -> Entry:
        entry = Entry(
            f"picture {len(self.asked)}",
            self.dice.randint(1, 6),
            self.dice.choice((None, self.dice.randrange(2**32))),
            self.dice.choice((0, 0, 0, 5)),
        )
        self.asked[entry.prompt] = entry
        return entry

    def _save(self, name: str) -> None:
        """In place, or by rename, as editors do."""
        self.saves += 1
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        entries = [entry.as_yaml() for entry in self.recipes[name]]
        text = yaml.safe_dump(entries) + f"# save {self.saves}\n"
        if self.dice.random() < 0.5:
            path.write_text(text)
        else:
            temporary = path.with_name(f".{path.name}.tmp")
            temporary.write_text(text)
            temporary.replace(path)


class Picowatch:
    """The daemon's process, started again whenever it was killed."""

    def __init__(self, folder: Path, engines: int = 1) -> None:
        self._folder = folder
        self._engines = engines
        self._output = (folder / "console.txt").open("ab")
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "tests.storm.daemon", str(self._folder)]
        return subprocess.Popen(
            [*command, "max_attempts=1000", f"executor=local:{self._engines}"],
            stdout=self._output,
            stderr=self._output,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def kill_engine(self) -> bool:
        """All of them; false if there is none right now."""
        engines = children(self.process.pid)
        for engine in engines:
            with suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)
        return bool(engines)

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


def storm(folder: Path, kills: int, dice: random.Random, engines: int = 1) -> list[str]:
    """The whole storm in a folder; gives what is wrong at its end."""
    (folder / "inbox").mkdir()
    house = House.__new__(House)
    house.folder, house.inbox = folder, folder / "inbox"
    house.outbox, house.models = folder / "outbox", folder / "models"
    user = User(house.inbox, dice)
    pause = threading.Event()
    for _ in range(RECIPES // 2):
        user.act()
    picowatch = Picowatch(folder, engines)
    done = {"daemon": 0, "engine": 0}
    with editing(user):
        while sum(done.values()) < kills:
            number = sum(done.values())
            if number % 2:
                wait_until(lambda: new_picture(house), 5.0)
                pause.wait(dice.uniform(0, AFTER_PICTURE_SECONDS))
            else:
                pause.wait(dice.uniform(0, ANY_TIME_SECONDS))
            if number % 4 < 2:
                picowatch.kill()
                done["daemon"] += 1
            elif picowatch.kill_engine():
                done["engine"] += 1
    print(f"{done['daemon']} daemons and {done['engine']} engines killed, {user.saves} saves")
    finished = wait_until(lambda: all_is_made(house, user), PATIENCE)
    processes = children(picowatch.process.pid)
    code = picowatch.end()
    problems = list(findings(house, user))
    if not finished:
        problems.append(f"not everything was made within {PATIENCE:.0f} s")
    if code:
        problems.append(f"picowatch ended with exit code {code}")
    problems += [f"engine {engine} lives on" for engine in processes if is_alive(engine)]
    print(f"{len(house.pictures())} pictures of {len(user.asked)} entries")
    return problems


@contextmanager
def editing(user: User) -> Iterator[None]:
    """The user's hands, all the while."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(user.dice.uniform(0.05, 0.8)):
            user.act()

    hands = threading.Thread(target=work)
    hands.start()
    try:
        yield
    finally:
        over.set()
        hands.join()


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
        len(made.get(entry.prompt, ())) >= entry.count
        for entries in user.recipes.values()
        for entry in entries
    )


def made_by_prompt(house: House) -> dict[str, list[int]]:
    """The seeds of the pictures that the list names, by prompt."""
    made = defaultdict(list)
    if (house.outbox / "images.jsonl").exists():
        for line in house.listed():
            made[line["prompt"]].append(line["seed"])
    return made


def findings(house: House, user: User) -> Iterator[str]:
    """Everything that is not as it should be."""
    seeds = defaultdict(list)
    recipes = {}
    for picture in house.pictures():
        chunk = house.chunk(picture)
        seeds[chunk.request.prompt].append(chunk.request.seed)
        recipes[chunk.request.prompt] = chunk.recipe_path
    for prompt, found in seeds.items():
        yield from wrong_seeds(user.asked[prompt], found)
    for name, entries in user.recipes.items():
        for entry in entries:
            if len(seeds[entry.prompt]) != entry.count:
                yield f"{name}: {len(seeds[entry.prompt])} of {entry.count} of {entry.prompt!r}"
            elif recipes[entry.prompt] != name:
                yield f"{entry.prompt!r} was made for {recipes[entry.prompt]}, not {name}"
    listed = sorted(line["file"] for line in house.listed())
    if listed != house.pictures():
        yield f"the list names {len(listed)} pictures, there are {len(house.pictures())}"
    for left in house.outbox.rglob(".picowatch-*"):
        yield f"left over: {left}"
    for words in ("Traceback", "should not", "damaged", " failed", "error "):
        for line in (house.log() + (house.folder / "console.txt").read_text()).splitlines():
            if words in line and "tries again each minute" not in line:
                yield f"in the log: {line}"


def wrong_seeds(entry: Entry, found: list[int]) -> Iterator[str]:
    """An entry draws its seed once, and image i has seed+i."""
    if len(set(found)) != len(found):
        yield f"{entry.prompt!r} was made twice: seeds {sorted(found)}"
    if entry.seed is not None:
        wanted = {(entry.seed + image) % 2**32 for image in range(entry.count)}
        if set(found) - wanted:
            yield f"{entry.prompt!r} has other seeds than {sorted(wanted)}: {sorted(found)}"
    elif any((seed - found[0] + entry.count) % 2**32 >= 2 * entry.count for seed in found):
        yield f"{entry.prompt!r} drew its seed more than once: {sorted(found)}"


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
