"""How a whole table is measured: its rows, their order and how long they take."""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks.jobs import Checkpoint, full_size_xl
from benchmarks.measuring import Figure, Section
from benchmarks.ours import CACHE


@dataclass(frozen=True, slots=True)
class Plan:
    """What all rows are told. Everything lies below `folder`, which goes in the end.

    `steps`, `pictures` and `size` are of the demo model's pictures.
    `large` gives the checkpoint with a number for the full-size rows, `xl` the one of the rows for
    Stable Diffusion XL; `large_steps` and `xl_steps` are two numbers of steps whose difference
    tells what a step takes.
    """

    folder: Path
    rounds: int
    steps: int
    pictures: int
    device: str
    size: int
    large: Callable[[int], Checkpoint]
    large_size: int
    large_steps: tuple[int, int]
    recipes: int
    saves: int
    idle_seconds: float
    published: int
    section: Section
    xl: Callable[[], Checkpoint] = full_size_xl
    xl_size: int = 512
    xl_steps: tuple[int, int] = (1, 3)
    _numbers: Iterator[int] = field(default_factory=count)

    def new_folder(self) -> Path:
        """An empty folder of a user or a peer."""
        path = self.folder / f"{next(self._numbers):03}"
        path.mkdir()
        return path

    def in_turns(self, **measures: Callable[[], float]) -> dict[str, list[float]]:
        """See `in_turns`."""
        return in_turns(self.rounds, measures)


def in_turns(rounds: int, measures: dict[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Take each measure once a round, each round with another one first."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds):
        names = list(measures)
        begin = turn % len(names)
        for name in names[begin:] + names[:begin]:
            found[name].append(measures[name]())
            print(f"  round {turn + 1}: {name} {found[name][-1]:.3f} s", flush=True)
    return found


@dataclass(frozen=True, slots=True)
class Row:
    """Some lines of the table that are measured together."""

    name: str
    minutes: float  # on two cores, with three rounds
    measure: Callable[[Plan], Sequence[Figure]]


def choose(rows: Sequence[Row], names: str) -> list[Row]:
    """The rows of these names ("folder,first"), all for ""; argparse's error for others."""
    known = {row.name: row for row in rows}
    wanted = names.split(",") if names else list(known)
    for name in wanted:
        if name not in known:
            raise argparse.ArgumentTypeError(f"no row {name!r}; there are {', '.join(known)}")
    return [known[name] for name in wanted]


def measure_all(rows: Sequence[Row], plan: Plan) -> bool:
    """Measure row by row into the section; a row that fails is said there. True if none did."""
    minutes = sum(row.minutes for row in rows) * plan.rounds / 3
    print(f"{len(rows)} rows, about {minutes:.0f} minutes on two quiet cores", flush=True)
    well = True
    for row in rows:
        print(f"{row.name}, about {row.minutes * plan.rounds / 3:.0f} minutes", flush=True)
        began = time.monotonic()
        try:
            plan.section.add(row.measure(plan))
        # The other rows took long, too, and are worth keeping.
        except Exception as error:
            well = False
            words = " ".join(f"not measured: {type(error).__name__}: {error}".split())
            plan.section.add([Figure(row.name, words[:300])])
        print(f"  took {(time.monotonic() - began) / 60:.1f} minutes", flush=True)
    return well


@contextmanager
def temporary(folder: Path | None, cache: Path | None) -> Iterator[Path]:
    """A folder for all that is made, on the disk of `folder`.

    `cache` is where converted models are kept; without one there are none at first.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="picowatch-bench-") as made:
        if cache:
            cache.mkdir(parents=True, exist_ok=True)
            (Path(made) / CACHE).symlink_to(cache.resolve())
        yield Path(made)


def add_shared_flags(parser: argparse.ArgumentParser, rows: Sequence[Row]) -> None:
    """What the table can be told."""
    parser.add_argument("--rows", default="", help=", ".join(row.name for row in rows))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where everything is made")
    parser.add_argument("--cache", type=Path, help="where converted models are kept (nowhere)")
    parser.add_argument("--results", type=Path, help="where the section goes (RESULTS.md)")


def own_command(module: str) -> str:
    """The command that was given, as one can give it again."""
    return " ".join(["python", "-m", module, *sys.argv[1:]])
