"""Every writer in the design's table: one save is one run of the final bytes."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.editors.desk import desk_of, recipe
from tests.editors.programs import PROGRAMS, READERS, Place, Program, run_script
from tests.house import House


def test_each_save_of_a_program_is_one_run(house: House) -> None:
    """All save a new recipe, then twice more, at the same time; an open editor has a rest, too."""
    both = [
        (program, place_at(house, f"{number}/{program.file}"))
        for number, program in enumerate(PROGRAMS)
        if shutil.which(program.needs)
    ]
    names = [place.recipe.relative_to(house.inbox).as_posix() for _, place in both]
    with desk_of(house) as desk, ExitStack() as sessions:
        for program, place in both:
            _save_first(program, place)
        for name in names:
            desk.expect_run(name, "a red circle")
        saves = [sessions.enter_context(program.session(place)) for program, place in both]
        desk.make_another()
        for prompt in ("a red square", "a red sphere"):
            with ThreadPoolExecutor() as hands:
                list(hands.map(lambda save, prompt=prompt: save(prompt), saves))
            for name in names:
                desk.expect_run(name, prompt)
        sessions.close()
        desk.expect_nothing_more()
    skip_if_missing({program.needs for program in PROGRAMS})


def test_reading_a_recipe_makes_nothing(house: House) -> None:
    """Viewers, backups, and changes of the inode are not saves."""
    places = {name: place_at(house, f"{name}/a.yaml") for name in READERS}
    with desk_of(house) as desk:
        for place in places.values():
            place.recipe.write_text(recipe("a red circle"))
        for name in places:
            desk.expect_run(f"{name}/a.yaml", "a red circle")
        for name, place in places.items():
            if shutil.which(name.split()[0]):
                run_script(READERS[name], place, ELSEWHERE=str(place.elsewhere))
        desk.expect_nothing_more()
    skip_if_missing({name.split()[0] for name in READERS})


def place_at(house: House, name: str) -> Place:
    """A recipe's place, with folders around it."""
    recipe = house.inbox / name
    elsewhere = house.folder / f"elsewhere-{recipe.parent.name}"
    for folder in (recipe.parent, elsewhere):
        folder.mkdir()
    return Place(recipe, elsewhere)


def skip_if_missing(programs: set[str]) -> None:
    if missing := sorted(program for program in programs if not shutil.which(program)):
        pytest.skip(f"all others are right; not installed: {', '.join(missing)}")


def _save_first(program: Program, place: Place) -> None:
    if program.makes_new_files:
        with program.session(place) as save:
            save("a red circle")
    else:
        place.recipe.write_text(recipe("a red circle"))
