"""Every writer in the design's table: one save is one run of the final bytes."""

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.editors.desk import Desk, desk_of, recipe
from tests.editors.programs import PROGRAMS, Place, Program
from tests.editors.replaying import REPLAYED
from tests.house import House


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_save_of_a_program_is_one_run(house: House, program: Program) -> None:
    """A new recipe, then two saves of it in one session."""
    program.skip_if_missing()
    place = _place(house, program, house.inbox)
    with desk_of(house) as desk:
        _first_save(desk, program, place)
        with program.session(place) as save:
            inodes = [place.recipe.stat().st_ino]
            for prompt in ("a red square", "a red sphere"):
                save(prompt)
                desk.expect_run(program.file, prompt)
                inodes.append(place.recipe.stat().st_ino)
        desk.expect_nothing_more()
    replaced = (inodes[0] != inodes[1], inodes[1] != inodes[2])
    assert all(said in (None, seen) for said, seen in zip(program.new_inode, replaced, strict=True))


@pytest.mark.parametrize("watch", ["events", "polling"])
def test_programs_that_save_at_the_same_time_make_one_run_each(house: House, watch: str) -> None:
    """Every program, real and replayed, beside all others; then a scan finds nothing more."""
    programs = [program for program in (*PROGRAMS, *REPLAYED) if _is_there(program)]
    places = [
        _place(house, program, house.inbox / f"{number}") for number, program in enumerate(programs)
    ]
    names = [place.recipe.relative_to(house.inbox).as_posix() for place in places]
    with desk_of(house, watch=watch) as desk, ExitStack() as sessions:
        for program, place in zip(programs, places, strict=True):
            _save_first(program, place)
        for name in names:
            desk.expect_run(name, "a red circle")
        saves = [
            sessions.enter_context(program.session(place))
            for program, place in zip(programs, places, strict=True)
        ]
        for prompt in ("a red square", "a red sphere"):
            for save in saves:
                save(prompt)
            for name in names:
                desk.expect_run(name, prompt)
        sessions.close()
        desk.pass_time()
        desk.expect_nothing_more()


def _place(house: House, program: Program, folder: Path) -> Place:
    folder.mkdir(exist_ok=True)
    elsewhere = house.folder / f"elsewhere-{folder.name}"
    elsewhere.mkdir()
    return Place(folder / program.file, elsewhere)


def _first_save(desk: Desk, program: Program, place: Place) -> None:
    _save_first(program, place)
    desk.expect_run(program.file, "a red circle")


def _save_first(program: Program, place: Place) -> None:
    if program.makes_new_files:
        with program.session(place) as save:
            save("a red circle")
    else:
        place.recipe.write_text(recipe("a red circle"))


def _is_there(program: Program) -> bool:
    try:
        program.skip_if_missing()
    except pytest.skip.Exception:
        return False
    return True
