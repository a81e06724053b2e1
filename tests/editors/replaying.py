"""Runs a replay as a process of its own, at once or step by step."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.editors import replays
from tests.editors.desk import recipe
from tests.editors.programs import Place, Program, Save


@contextmanager
def replay(name: str, place: Place, rest: Callable[[], None] | None = None) -> Iterator[Save]:
    """A session of a replayed program, which calls `rest` after each of its system calls."""
    by_step = ["--by-step"] if rest else []
    command = [sys.executable, "-IS", replays.__file__, name, str(place.recipe), *by_step]
    with subprocess.Popen(
        command,
        cwd=Path(place.recipe.parent),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        keyboard, screen = process.stdin, process.stdout

        def tell(line: str) -> str:
            keyboard.write(f"{line}\n")
            keyboard.flush()
            return screen.readline().strip()

        def save(prompt: str) -> None:
            answer = tell(json.dumps(recipe(prompt)))
            while answer == "step" and rest:
                rest()
                answer = tell("")
            assert answer == "saved", answer

        yield save
        keyboard.close()
        assert process.wait() == 0


REPLAYED = [
    Program(name, partial(replay, name), makes_new_files=name != "memory_map_of_a_closed_file")
    for name in replays.REPLAYS
]
