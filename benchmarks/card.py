"""Ten minutes on a card: its parts in turn, the cheapest first, each in a process of its own.

    python -m benchmarks.gpu --minutes 10 --out DIR [--device cuda] [--rows versions,demo]

Each part writes DIR/PART.json as it goes: a run that is cut off, or a part that crashes, tells all
that was found before. At the end DIR/goals.txt has a line for each goal: goal, measured, met or
missed. On a CPU (`--device cpu`) the parts take small models and prove that they
work.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import card_goals

PROJECT = Path(__file__).parents[1]
GOALS = "goals.txt"
_LAST_LINES = 12
_PATIENCE_ON_CPU = 4


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the run, and how many seconds it may take."""

    name: str
    seconds: float


PARTS = (
    Part("versions", 40),
    Part("failures", 60),
    Part("demo", 120),
    Part("unet", 150),
    Part("trace", 60),
    Part("vae", 60),
    Part("overlap", 40),
    Part("pictures", 120),
    Part("folder", 150),
    Part("sdxl", 90),
)


class Findings:
    """What a part has found so far, as a file that is complete at any moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {}
        self._began = time.perf_counter()
        self.add("finished", False)

    def add(self, name: str, value: object) -> None:
        """Note one more thing; a name with slashes is put into mappings."""
        *folders, last = name.split("/")
        place = self._found
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
        self._found["seconds"] = round(time.perf_counter() - self._began, 1)
        temporary = self._path.with_suffix(".part")
        temporary.write_text(json.dumps(self._found, indent=1, default=str) + "\n")
        temporary.replace(self._path)


def run_parts(names: Sequence[str], minutes: float, device: str, out: Path) -> int:
    """Run the parts while there is time; 1 if one of them failed or there was none for it."""
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + minutes * 60
    patience = 1 if device.startswith("cuda") else _PATIENCE_ON_CPU
    failed = False
    for part in PARTS:
        if names and part.name not in names:
            continue
        left = min(part.seconds * patience, end - time.monotonic())
        words = _run(part, left, device, out / f"{part.name}.json") if left > 0 else "no time left"
        failed |= bool(words)
        print(f"{part.name:9} {words or 'finished'}", flush=True)
    found = card_goals.rows(out, on_card=device.startswith("cuda"))
    (out / GOALS).write_text(
        "".join(f"{row.goal} | {row.measured} | {row.reached}\n" for row in found)
    )
    print((out / GOALS).read_text(), end="", flush=True)
    return 1 if failed else 0


def _run(part: Part, seconds: float, device: str, path: Path) -> str:
    """Why the part did not finish, "" if it did; also noted in its file."""
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.card_parts", part.name, device, str(path)]
    try:
        result = subprocess.run(
            command, cwd=PROJECT, timeout=seconds, capture_output=True, text=True, errors="replace"
        )
    except subprocess.TimeoutExpired:
        words, lines = f"cut off after {seconds:.0f} s", []
    else:
        words = f"ended with {result.returncode}" if result.returncode else ""
        lines = result.stderr.splitlines()[-_LAST_LINES:]
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | {"ended": words, "said": lines}, indent=1) + "\n")
    return words
