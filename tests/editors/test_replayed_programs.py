"""Programs that are replayed: one save is one run of the final bytes, however slow they are."""

import pytest

from tests.editors import replays
from tests.editors.desk import desk_of, recipe
from tests.editors.programs import Place
from tests.editors.replaying import replay
from tests.house import House

# These take the recipe away for a moment. Resting there for longer than the settle time, they
# cannot be told from somebody who deletes it; what they bring then is another save.
AWAY_FOR_A_MOMENT = {"jetbrains", "sublime_atomic_by_deletion", "textedit", "winscp"}
# A burst has no places to rest; a recipe that is there is all that this one can map.
NOT_BY_STEP = {"vs_code_autosave"}
NO_NEW_FILES = {"memory_map_of_a_closed_file"}


@pytest.mark.parametrize("name", replays.REPLAYS)
def test_each_save_of_a_replayed_program_is_one_run(house: House, name: str) -> None:
    """A new recipe, then two saves over it; the last text has the length of the one before."""
    path = house.inbox / "a.yaml"
    with desk_of(house) as desk, replay(name, Place(path, house.folder)) as save:
        if name in NO_NEW_FILES:
            path.write_text(recipe("a red circle"))
        else:
            save("a red circle")
        desk.expect_run("a.yaml", "a red circle")
        for prompt in ("a red square", "a red sphere"):
            save(prompt)
            desk.expect_run("a.yaml", prompt)
        desk.expect_nothing_more()


@pytest.mark.parametrize("name", sorted(replays.REPLAYS.keys() - NOT_BY_STEP))
def test_a_program_that_rests_after_each_step_makes_one_run_too(house: House, name: str) -> None:
    """At each rest another recipe is saved and made, so the settle time has passed."""
    path = house.inbox / "a.yaml"
    with desk_of(house) as desk:
        path.write_text(recipe("a red circle"))
        desk.expect_run("a.yaml", "a red circle")
        with replay(name, Place(path, house.folder), desk.make_another) as save:
            save("a red square")
        desk.expect_run("a.yaml", "a red square")
        desk.expect_nothing_more(deletions=name in AWAY_FOR_A_MOMENT)
