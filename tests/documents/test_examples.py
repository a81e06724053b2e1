"""The recipes in examples/ are what a user may copy without a thought."""

import shutil

from tests.commands.picowatch import picowatch
from tests.house import House
from tests.test_docs import PROJECT

EXAMPLES = PROJECT / "examples"
RECIPES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".txt"))


def test_there_are_thirteen_without_a_mistake(house: House) -> None:
    """Each says in its first line what it shows; with nothing installed all are valid.

    The daemon makes their pictures, start images and contact sheets included.
    """
    assert len(RECIPES) == 13
    for recipe in RECIPES:
        first = recipe.read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), recipe.name
    shutil.copytree(EXAMPLES, house.inbox, dirs_exist_ok=True)
    recipes = [f"inbox/{recipe.name}" for recipe in RECIPES]
    checked = picowatch(house.folder, "check", *recipes)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [line.split(":")[0] for line in checked.stdout.splitlines() if line[0] != " "] == recipes
    assert house.once()
    assert not [*house.outbox.rglob("*.error.txt"), *house.outbox.rglob("*.warning.txt")]
    for recipe in RECIPES:
        assert house.pictures(recipe.stem), recipe.name
    sheets = [picture.split("/")[0] for picture in house.pictures() if "-sheet" in picture]
    assert [name[:2] for name in sheets] == ["02", "03", "04", "05", "08", "13"]
