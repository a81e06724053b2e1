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
AWAY_FOR_A_MOMENT = ("jetbrains", "textedit", "winscp")


@contextmanager
def replay_of(name: str, recipe: Path) -> Iterator["subprocess.Popen[str]"]:
    """A replay in a process of its own, which rests after each step."""
    with subprocess.Popen(
        [sys.executable, "-IS", replays.__file__, name, str(recipe)],
        cwd=recipe.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.communicate()
        assert process.returncode == 0


def rests_after(line: str, replay: "subprocess.Popen[str]") -> bool:
    """Give it a text to save, or let it go on; return whether it rests or has saved."""
    assert replay.stdin and replay.stdout
    replay.stdin.write(f"{line}\n")
    replay.stdin.flush()
    answer = replay.stdout.readline().strip()
    assert answer in ("step", "saved"), answer
    return answer == "step"


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
        line = json.dumps(recipe("a red square"))
        rest = [sessions.enter_context(replay_of(*item)) for item in paths.items()]
        while rest := [replay for replay in rest if rests_after(line, replay)]:
            desk.make_another()
            line = ""
        for name in paths:
            desk.expect_run(f"{name}/a.yaml", "a red square")
        desk.expect_nothing_more(deletions=len(AWAY_FOR_A_MOMENT))
