"""Folders of recipes that come at once: each recipe is one run."""

from pathlib import Path

import pytest

from tests.editors.desk import desk_of, recipe
from tests.editors.programs import Place, is_installed, run_script
from tests.house import House

RECIPES = 12
# $FULL holds the recipes and a folder `deep` with more; the working folder is to hold them.
WAYS = {
    "mv": 'mv "$FULL" moved',
    "mv across file systems": 'mv "$FULL" moved',
    "cp": 'cp -r "$FULL" copied',
    "ln": 'cp -al "$FULL" linked',
    "rsync": 'rsync -a "$FULL/" synced/',
    "tar": 'tar cf "$FULL.tar" -C "$FULL" .; mkdir unpacked; tar xf "$FULL.tar" -C unpacked',
    "unzip": '(cd "$FULL"; "$PYTHON" -m zipfile -c ../t.zip *); unzip -q "$FULL/../t.zip"',
    "git": (
        'cd "$FULL"; git init -q; git add .; '
        "git -c user.name=x -c user.email=x@example.org -c core.hooksPath=/dev/null commit -qm x; "
        'cd "$OLDPWD"; git clone -q "$FULL" cloned'
    ),
    "gio": 'gio move "$FULL" moved',
}


def test_each_recipe_of_a_folder_is_one_run_however_it_comes(
    house: House, other_file_system: Path | None
) -> None:
    """It may be moved, copied, linked, synced, unpacked, or cloned."""
    ways = {name: script for name, script in WAYS.items() if is_installed(name)}
    if other_file_system is None:
        del ways["mv across file systems"]
    missing = WAYS.keys() - ways.keys()
    with desk_of(house) as desk:
        for name, script in ways.items():
            here = other_file_system if "across" in name else None
            place = Place(house.inbox / name / "a.yaml", (here or house.folder) / name)
            _fill(place.elsewhere / "full")
            place.recipe.parent.mkdir()
            run_script(script, place, FULL=str(place.elsewhere / "full"))
        for path in sorted(house.inbox.rglob("*.yaml")):
            if ".git" not in path.parts:
                desk.expect_run(path.relative_to(house.inbox).as_posix(), path.stem)
        assert len(house.pictures()) == len(ways) * RECIPES
        desk.expect_nothing_more()
    if missing:
        pytest.skip(f"all others are right; not possible here: {', '.join(sorted(missing))}")


def _fill(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    for number in range(RECIPES):
        path = folder / ("deep" if number % 2 else "") / f"circle {number}.yaml"
        path.write_text(recipe(path.stem))
