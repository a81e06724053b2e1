"""What all benchmarks share: figures with their spread, the machine in words, dated sections."""

import gc
import json
import os
import platform
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "RESULTS.md"
LIBRARIES = ("torch", "diffusers", "transformers")
MEBI = 1 << 20
HEADER = (
    "| what | picowatch | against | ratio or share | goal | reached |\n|---|---|---|---|---|---|"
)

Bound = Literal["at least", "at most"]
Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of a table. `reached` is None where there is no goal, or nothing was measured."""

    what: str
    ours: str = ""
    against: str = ""
    ratio: str = ""
    goal: str = ""
    reached: bool | None = None

    def line(self) -> str:
        reached = {True: "yes", False: "no", None: ""}[self.reached]
        cells = (self.what, self.ours, self.against, self.ratio, self.goal, reached)
        return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is to reach."""

    bound: Bound
    value: float

    def reached(self, value: float) -> bool:
        return value >= self.value if self.bound == "at least" else value <= self.value


def compared(
    what: str,
    ours: Sequence[float],
    others: Sequence[float],
    other: str,
    goal: Goal | None = None,
    *,
    unit: str = "s",
    times_faster: bool = True,
) -> Figure:
    """Ours against another's, round by round: the ratio's median, with its lowest and highest.

    `times_faster`: other's seconds by ours, above 1 is better; else ours by the other's.
    """
    pairs = list(zip(ours, others, strict=True))
    ratios = [second / first if times_faster else first / second for first, second in pairs]
    ratio = statistics.median(ratios)
    return Figure(
        what,
        f"{number(statistics.median(ours))} {unit}",
        f"{number(statistics.median(others))} {unit} ({other})",
        spread(ratios),
        f"{goal.bound} {goal.value:g}" if goal else "",
        goal.reached(ratio) if goal else None,
    )


def measured(what: str, values: Sequence[float], unit: str, goal: Goal | None = None) -> Figure:
    """A figure that stands for itself: its median, with its lowest and highest."""
    return Figure(
        what,
        f"{spread(values)} {unit}".strip(),
        goal=f"{goal.bound} {goal.value:g} {unit}".strip() if goal else "",
        reached=goal.reached(statistics.median(values)) if goal else None,
    )


def spread(values: Sequence[float]) -> str:
    """ "2.31 (2.25 to 2.4)"; of one value that value."""
    middle = number(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# -- the machine


def machine() -> str:
    """Processor, cores, memory, versions, as far as they are known."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{cpu_name()}, {os.cpu_count()} cores, {memory:.0f} GiB", platform.platform()]
    parts.append(f"Python {platform.python_version()}")
    for library in LIBRARIES:
        try:
            parts.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            parts.append(f"{library} not installed")
    return ", ".join(parts)


def cpu_name() -> str:
    """The processor's model, and the instructions that decide how fast a model runs on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor() or platform.machine()
    values = dict(line.split(":", 1) for line in lines if ":" in line)
    keys = {key.strip(): value.strip() for key, value in values.items()}
    flags = set(keys.get("flags", "").split())
    known = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return " ".join([keys.get("model name", platform.machine()), *known])


def load() -> str:
    """How much else ran in the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


# -- telling


class Section:
    """A dated section of a results file, below its subject: written once, when all was measured."""

    def __init__(self, subject: str, command: str) -> None:
        self._subject, self._command = subject, command
        self._load_before = load()
        self._figures: list[Figure] = []
        self._notes: list[str] = []

    def add(self, figures: Sequence[Figure]) -> None:
        self._figures += figures
        for figure in figures:
            print(figure.line(), flush=True)

    def note(self, text: str) -> None:
        """A sentence below the table."""
        self._notes.append(text)
        print(text, flush=True)

    def text(self) -> str:
        parts = [
            f"### {date.today()}",
            f"{machine()}. Load {self._load_before} at the start, {load()} at the end.",
            f"```sh\n{self._command}\n```",
            "\n".join([HEADER, *(figure.line() for figure in self._figures)]),
            *self._notes,
        ]
        return "\n\n".join(parts) + "\n"

    def write(self, results: Path) -> None:
        """Put it first below its subject's heading; a new subject goes before all others."""
        before = results.read_text() if results.exists() else ""
        results.write_text(with_section(before, self._subject, self.text()))
        print(f"written to {results}", flush=True)


def with_section(results: str, subject: str, section: str) -> str:
    """The results with a section as the first one of its subject, so that the newest is on top."""
    lines, heading = results.splitlines(), f"## {subject}"
    known = heading in lines
    begin = lines.index(heading) + 1 if known else 0
    following = ("## ", "### ") if known else ("## ",)
    at = next(
        (at for at in range(begin, len(lines)) if lines[at].startswith(following)), len(lines)
    )
    parts = ["\n".join(lines[:at]), "" if known else heading, section, "\n".join(lines[at:])]
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


class Findings:
    """What was found so far, in a JSON file that is complete at any moment."""

    def __init__(self, path: Path, seconds: float) -> None:
        """`seconds` are those that finding may take."""
        self.failed = False
        self._path, self._allowed, self._began = path, seconds, time.monotonic()
        self._found: dict[str, Any] = {"finished": False, "seconds allowed": seconds, "skipped": {}}

    def add(self, name: str, value: object) -> None:
        """Write one more."""
        self._found |= {name: value, "seconds": round(time.monotonic() - self._began, 1)}
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps(self._found, indent=1, default=str) + "\n")
        temporary.replace(self._path)

    def skip(self, name: str, reason: str) -> None:
        """Say what is left out."""
        self.add("skipped", self._found["skipped"] | {name: reason})

    def left(self) -> float:
        """How many seconds there are left."""
        return self._began + self._allowed - time.monotonic()

    def measure(self, ways: Mapping[str, Callable[[], Found]], growth: float = 1) -> None:
        """Note what each finds, or its error, if there is time for `growth` times the last one."""
        took = 0.0
        for name, way in ways.items():
            if self.left() < took * growth:
                self.skip(name, "no time left")
                continue
            began = time.monotonic()
            try:
                self.add(name, way())
            # The others are worth knowing, too.
            except Exception as error:
                self.failed = True
                self.add(name, {"error": repr(error), "from": traceback.format_exc(limit=-3)})
            took = time.monotonic() - began
            gc.collect()
            if torch := sys.modules.get("torch"):
                torch.cuda.empty_cache()  # does nothing where there is no card


# -- waiting


def wait_until(
    condition: Callable[[], object], what: str, patience: float, look_seconds: float = 0.005
) -> None:
    """Look until the condition holds; TimeoutError if it does not."""
    pause, looks = threading.Event(), int(patience / look_seconds)
    for _ in range(looks):
        if condition():
            return
        pause.wait(look_seconds)
    raise TimeoutError(f"not within {patience:.0f} s: {what}")
