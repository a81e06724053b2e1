"""Runs a replay as a process of its own, at once or step by step."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.editors import replays
from tests.editors.desk import recipe
from tests.editors.programs import Place, Program, Save


class Replay:
    """A replayed program at work on a recipe."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin
        assert process.stdout
        self._keyboard, self._screen = process.stdin, process.stdout

    def begin(self, prompt: str) -> bool:
        """Begin to save; return whether it rests after a step, or False once it has saved."""
        return self._tell(json.dumps(recipe(prompt)))

    def go_on(self) -> bool:
        """Do the next step; return the same as `begin`."""
        return self._tell("")

    def _tell(self, line: str) -> bool:
        self._keyboard.write(f"{line}\n")
        self._keyboard.flush()
        answer = self._screen.readline().strip()
        assert answer in ("step", "saved"), answer
        return answer == "step"


@contextmanager
def by_step(name: str, place: Place, *flags: str) -> Iterator[Replay]:
    """A replay that rests after each step."""
    flags = flags or ("--by-step",)
    with subprocess.Popen(
        [sys.executable, "-IS", replays.__file__, name, str(place.recipe), *flags],
        cwd=place.recipe.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Replay(process)
        process.communicate()
        assert process.returncode == 0


@contextmanager
def _at_once(name: str, place: Place) -> Iterator[Save]:
    with by_step(name, place, "--at-once") as replay:

        def save(prompt: str) -> None:
            assert not replay.begin(prompt)

        yield save


REPLAYED = [
    Program(name, partial(_at_once, name), makes_new_files=name not in replays.EDIT_ONLY)
    for name in replays.REPLAYS
]
