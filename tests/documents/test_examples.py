"""The recipes in examples/ are what a user may copy without a thought."""

import shutil
from pathlib import Path

import pytest

from tests.commands.picowatch import picowatch
from tests.house import House
from tests.test_docs import PROJECT

EXAMPLES = PROJECT / "examples"
RECIPES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in (".yaml", ".txt"))
# With the demo model; the others draw more of the same.
DRAWN = ["01-one-picture.yaml", "06-every-morning.txt", "09-change-a-part.yaml"]
DRAWN += ["10-larger.yaml", "11-from-a1111.txt"]


def test_there_are_thirteen_and_each_says_what_it_shows() -> None:
    """In its first line."""
    assert len(RECIPES) == 13
    for recipe in RECIPES:
        first = recipe.read_text().splitlines()[0]
        assert first.startswith("# ") and first.endswith("."), recipe.name


def test_those_that_init_writes_say_what_they_show_in_plain_words(tmp_path: Path) -> None:
    """ "Behind" is a place, and pictures are rendered, not made."""
    assert picowatch(tmp_path, "init").returncode == 0
    written = sorted(path for path in (tmp_path / "inbox").iterdir() if path.is_file())
    assert [path.name for path in written] == ["corgi.yaml", "party.yaml", "scenes.txt"]
    for path in written:
        comments = " ".join(line for line in path.read_text().splitlines() if line[0] == "#")
        assert comments, path.name
        assert not {"behind", "made", "divided"} & {*comments.replace(",", " ").split()}, path.name


def test_check_finds_nothing_wrong_with_them(tmp_path: Path) -> None:
    """Copied into an inbox, with nothing installed."""
    shutil.copytree(EXAMPLES, tmp_path / "inbox")
    recipes = [f"inbox/{recipe.name}" for recipe in RECIPES]
    checked = picowatch(tmp_path, "check", *recipes)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [line.split(":")[0] for line in checked.stdout.splitlines() if line[0] != " "] == recipes


def test_all_of_them_make_their_pictures(house: House) -> None:
    """As the daemon takes them, start images and contact sheets included."""
    shutil.copytree(EXAMPLES, house.inbox, dirs_exist_ok=True)
    assert house.once()
    assert not list(house.outbox.rglob("*.error.txt"))
    assert not list(house.outbox.rglob("*.warning.txt"))
    for recipe in RECIPES:
        assert house.pictures(recipe.stem), recipe.name
    sheets = [picture.split("/")[0] for picture in house.pictures() if "-sheet" in picture]
    assert [name[:2] for name in sheets] == ["02", "03", "04", "05", "08", "13"]


def test_pictures_may_be_copied_after_the_recipes_that_name_them(house: House) -> None:
    """They are refused first, and made when the pictures are there."""
    names = [recipe.name for recipe in RECIPES if "image: " in recipe.read_text()]
    assert [name[:2] for name in names] == ["08", "09"]
    for name in names:
        shutil.copy(EXAMPLES / name, house.inbox)
    assert not house.once()
    for picture in EXAMPLES.glob("*.png"):
        shutil.copy(picture, house.inbox)
    assert house.once()
    assert not list(house.outbox.rglob("*.error.txt"))
    assert len(house.pictures()) == 7


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of somebody who copied them, and made them by one command."""
    folder = tmp_path_factory.mktemp("drawn")
    shutil.copytree(EXAMPLES, folder / "inbox", ignore=shutil.ignore_patterns("*.yaml", "*.txt"))
    for name in DRAWN:
        shutil.copy(EXAMPLES / name, folder / "inbox")
    made = picowatch(folder, "make", *(f"inbox/{name}" for name in DRAWN))
    assert (made.returncode, made.stderr) == (0, "")
    (folder / "made.txt").write_text(made.stdout)
    return folder


@pytest.mark.parametrize("name", DRAWN)
def test_the_demo_model_draws_them(drawn: Path, name: str) -> None:
    """Each prints its pictures' paths."""
    recipe = name.partition(".")[0]
    paths = (drawn / "made.txt").read_text().splitlines()
    own = [path for path in paths if path.startswith(f"outbox/{recipe}/")]
    assert own
    for path in own:
        assert (drawn / path).exists()
