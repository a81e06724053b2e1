"""Every writer in the design's table: one save is one run of the final bytes."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.editors.desk import BY_EVENTS_ALONE, Desk, desk_of, recipe
from tests.editors.programs import PROGRAMS, Place, Program
from tests.editors.replaying import REPLAYED
from tests.house import House


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_each_save_of_a_program_is_one_run(
    house: House, other_file_system: Path | None, program: Program
) -> None:
    """A new recipe, then two saves of it in one session; no scan helps."""
    place = _place(house, program, house.inbox, other_file_system)
    if reason := program.why_not(place):
        pytest.skip(reason)
    with desk_of(house, **BY_EVENTS_ALONE) as desk:
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


@pytest.mark.parametrize("watch", ["events", pytest.param("polling", marks=pytest.mark.heavy)])
def test_programs_that_save_at_the_same_time_make_one_run_each(
    house: House, other_file_system: Path | None, watch: str
) -> None:
    """Every program, real and replayed, beside all others; then a scan finds nothing more."""
    both = [
        (program, _place(house, program, house.inbox / f"{number}", other_file_system))
        for number, program in enumerate((*PROGRAMS, *REPLAYED))
    ]
    both = [(program, place) for program, place in both if not program.why_not(place)]
    names = [place.recipe.relative_to(house.inbox).as_posix() for _, place in both]
    with desk_of(house, watch=watch) as desk, ExitStack() as sessions:
        for program, place in both:
            _save_first(program, place)
        for name in names:
            desk.expect_run(name, "a red circle")
        saves = [sessions.enter_context(program.session(place)) for program, place in both]
        for prompt in ("a red square", "a red sphere"):
            with ThreadPoolExecutor() as hands:
                list(hands.map(lambda save, prompt=prompt: save(prompt), saves))
            for name in names:
                desk.expect_run(name, prompt)
        sessions.close()
        desk.pass_time()
        desk.expect_nothing_more()


def _place(house: House, program: Program, folder: Path, abroad: Path | None) -> Place:
    folder.mkdir(exist_ok=True)
    elsewhere = house.folder / f"elsewhere-{folder.name}"
    elsewhere.mkdir()
    return Place(folder / program.file, elsewhere, abroad)


def _first_save(desk: Desk, program: Program, place: Place) -> None:
    _save_first(program, place)
    desk.expect_run(program.file, "a red circle")


def _save_first(program: Program, place: Place) -> None:
    if program.makes_new_files:
        with program.session(place) as save:
            save("a red circle")
    else:
        place.recipe.write_text(recipe("a red circle"))
