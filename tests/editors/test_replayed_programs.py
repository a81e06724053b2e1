"""Programs replayed step by step: however slow they are, one save is one run."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from picowatch.inbox.watch import Watch
from tests.editors import replays
from tests.editors.desk import desk_of, recipe
from tests.house import House

# These take the recipe away for a moment. Resting there for longer than the settle time, they
# cannot be told from somebody who deletes it; what they bring then is another save.
AWAY_FOR_A_MOMENT = ("jetbrains", "sublime_atomic_by_deletion", "textedit", "winscp")


class Replay:
    """A replayed program at work on a recipe."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin
        assert process.stdout
        self._keyboard, self._screen = process.stdin, process.stdout

    def tell(self, line: str) -> bool:
        """Give a text to save, or let it go on; return whether it rests or has saved."""
        self._keyboard.write(f"{line}\n")
        self._keyboard.flush()
        answer = self._screen.readline().strip()
        assert answer in ("step", "saved"), answer
        return answer == "step"


@contextmanager
def replay_of(name: str, recipe: Path) -> Iterator[Replay]:
    """A replay in a process of its own, which rests after each step."""
    with subprocess.Popen(
        [sys.executable, "-IS", replays.__file__, name, str(recipe)],
        cwd=recipe.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Replay(process)
        process.communicate()
        assert process.returncode == 0


@pytest.mark.parametrize("events", [True, pytest.param(False, marks=pytest.mark.heavy)])
def test_a_program_that_rests_after_each_step_makes_one_run(
    house: House, monkeypatch: pytest.MonkeyPatch, events: bool
) -> None:
    """At each pause another recipe is saved and rendered, so the settle time has passed."""
    if not events:
        monkeypatch.setattr(Watch, "start", lambda watch, root: None)
    with desk_of(house) as desk, ExitStack() as sessions:
        paths = {
            name: house.save(f"{name}/a.yaml", recipe("a red circle")) for name in replays.REPLAYS
        }
        for name in paths:
            desk.expect_run(f"{name}/a.yaml", "a red circle")
        programs = [sessions.enter_context(replay_of(*one)) for one in paths.items()]
        rest = [program for program in programs if program.tell(json.dumps(recipe("a red square")))]
        while rest:
            desk.make_another()
            rest = [program for program in rest if program.tell("")]
        for name in paths:
            desk.expect_run(f"{name}/a.yaml", "a red square")
        desk.expect_nothing_more(deletions=len(AWAY_FOR_A_MOMENT))
