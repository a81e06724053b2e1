"""Every writer in the design's table: one save is one run of the final bytes."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.editors.desk import desk_of, recipe
from tests.editors.programs import PROGRAMS, Place, Program
from tests.editors.replaying import REPLAYED
from tests.house import House


def test_each_save_of_a_program_is_one_run(house: House, other_file_system: Path | None) -> None:
    """All programs, real and replayed, save a new recipe and then twice more, at the same time."""
    both = [
        (program, _place(house, program, house.inbox / f"{number}", other_file_system))
        for number, program in enumerate((*PROGRAMS, *REPLAYED))
    ]
    missing = [f"{program.name}: {why}" for program, at in both if (why := program.why_not(at))]
    both = [(program, place) for program, place in both if not program.why_not(place)]
    names = [place.recipe.relative_to(house.inbox).as_posix() for _, place in both]
    with desk_of(house) as desk, ExitStack() as sessions:
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
        desk.expect_nothing_more()
    if missing:
        pytest.skip(f"all others are right; not possible here: {', '.join(missing)}")


def _place(house: House, program: Program, folder: Path, abroad: Path | None) -> Place:
    folder.mkdir(exist_ok=True)
    elsewhere = house.folder / f"elsewhere-{folder.name}"
    elsewhere.mkdir()
    return Place(folder / program.file, elsewhere, abroad)


def _save_first(program: Program, place: Place) -> None:
    if program.makes_new_files:
        with program.session(place) as save:
            save("a red circle")
    else:
        place.recipe.write_text(recipe("a red circle"))
