"""The recipes in examples/ are what a user may copy without a thought."""

import shutil
from pathlib import Path

from tests.commands.picowatch import picowatch
from tests.house import House
from tests.test_docs import PROJECT

EXAMPLES = PROJECT / "examples"
RECIPES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".txt"))
# With the demo model; the others draw more of the same.
DRAWN = ["01-one-picture.yaml", "06-every-morning.txt", "09-change-a-part.yaml"]
DRAWN += ["10-larger.yaml", "11-from-a1111.txt"]


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


def test_the_demo_model_draws_them(tmp_path: Path) -> None:
    """By one command that prints each picture's path."""
    ignored = shutil.ignore_patterns("*.yaml", "*.txt")
    shutil.copytree(EXAMPLES, tmp_path / "inbox", ignore=ignored)
    for name in DRAWN:
        shutil.copy(EXAMPLES / name, tmp_path / "inbox")
    made = picowatch(tmp_path, "make", *(f"inbox/{name}" for name in DRAWN))
    assert (made.returncode, made.stderr) == (0, "")
    paths = made.stdout.splitlines()
    assert {path.split("/")[1] for path in paths} == {name.partition(".")[0] for name in DRAWN}
    assert all((tmp_path / path).exists() for path in paths)
