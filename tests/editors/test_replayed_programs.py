"""Programs replayed step by step: however slow they are, one save is one run."""

from contextlib import ExitStack

import pytest

from picowatch.inbox.watch import Watch
from tests.editors import replays
from tests.editors.desk import desk_of, recipe
from tests.editors.programs import Place
from tests.editors.replaying import by_step
from tests.house import House

# These take the recipe away for a moment. Resting there for longer than the settle time, they
# cannot be told from somebody who deletes it; what they bring then is another save.
AWAY_FOR_A_MOMENT = ("jetbrains", "sublime_atomic_by_deletion", "textedit", "winscp")


@pytest.mark.parametrize("events", [True, pytest.param(False, marks=pytest.mark.heavy)])
def test_a_program_that_rests_after_each_step_makes_one_run(
    house: House, monkeypatch: pytest.MonkeyPatch, events: bool
) -> None:
    """At each pause another recipe is saved and rendered, so the settle time has passed."""
    if not events:
        monkeypatch.setattr(Watch, "start", lambda watch, root: None)
    places = {name: Place(house.inbox / name / "a.yaml", house.folder) for name in replays.REPLAYS}
    for place in places.values():
        place.recipe.parent.mkdir()
    with desk_of(house) as desk, ExitStack() as sessions:
        for place in places.values():
            place.recipe.write_text(recipe("a red circle"))
        for name in places:
            desk.expect_run(f"{name}/a.yaml", "a red circle")
        programs = [sessions.enter_context(by_step(name, place)) for name, place in places.items()]
        rest = [program for program in programs if program.begin("a red square")]
        while rest:
            desk.make_another()
            rest = [program for program in rest if program.go_on()]
        for name in places:
            desk.expect_run(f"{name}/a.yaml", "a red square")
        desk.expect_nothing_more(deletions=len(AWAY_FOR_A_MOMENT))
