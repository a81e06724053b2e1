"""`picowatch show`: pictures' recipes for the inbox."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.picowatch import picowatch_here
from tests.house import House

STYLES = Path(__file__).parents[1] / "styles"


def test_show_names_embeddings(house: House) -> None:
    """A recipe names none: elsewhere its prompt would be plain words, and another picture."""
    (house.models / "embeddings").mkdir()
    shutil.copy(STYLES / "mascot.safetensors", house.models / "embeddings")
    house.save("a.txt", "a mascot --seed 7\na cat --seed 8\n")
    assert house.once()
    shown = picowatch_here(house.folder, "show", *house.pictures()).stdout
    recipe, other = shown.split("---\n")
    assert "\n# The prompts use the embeddings 'mascot'. Any that" in recipe
    assert "embedding" not in other
    house.save("b.yaml", recipe)
    assert house.once()
    first, _, again = (house.chunk(picture).request for picture in house.pictures())
    assert again == first


def test_show_tells_the_notes_of_a_table(house: House) -> None:
    """As comments, since they are no fields; another note makes no other picture."""
    house.save("a.csv", "_id,prompt,seed\n7,a star,1\n")
    assert house.once()
    house.save("a.csv", "_id,prompt,seed\n8,a star,1\n")
    assert house.once()
    (picture,) = house.pictures()
    assert house.listed()[0]["notes"] == {"_id": "7"}
    shown = picowatch_here(house.folder, "show", picture).stdout
    assert "\n# _id: 7\nprompt: a star\n" in shown
    house.save("b.yaml", shown)
    assert house.once()
    assert len({house.chunk(file).request.digest for file in house.pictures()}) == 1


DRAWN = "# trainedAlgorithmicMedia"  # the mark
SHORT = {
    "prompt: a star\nsteps: 2\n":
        [DRAWN, "prompt", "checkpoint", "steps", "cfg_scale", "size", "seed"],
    "image: photo.png\ncutout: true\nformat: same\n": ["image", "cutout", "format"],
}  # fmt: skip


@pytest.mark.parametrize(("recipe", "fields"), SHORT.items())
def test_show_leaves_out_what_is_a_default(house: House, recipe: str, fields: list[str]) -> None:
    """A recipe of two lines is one of few again; `--all` has every field, `--json` the chunk."""
    house.draw("photo.png", "red")
    house.save("a.yaml", recipe)
    assert house.once(), house.error("a.yaml")
    (picture,) = house.pictures()
    short, chunk, whole = (
        picowatch_here(house.folder, "show", *flags, picture).stdout
        for flags in ([], ["--json"], ["--all"])
    )
    assert json.loads(chunk)["request"].keys() >= {fields[1]}
    assert [line.partition(":")[0] for line in short.splitlines()] == fields
    assert set(short.splitlines()) < set(whole.splitlines())
    house.save("b.yaml", short)
    house.save("c.yaml", whole)
    assert house.once()
    assert len({house.chunk(file).request.digest for file in house.pictures()}) == 1


def test_show_gives_a_recipe_whatever_a_template_says_alone(house: House) -> None:
    """What it prints passes `check`, and asks for the same picture."""
    alone = ("prompt: a star", "detail: face", "cutout: true", "upscale: 2", "resize_to: 32",
             "format: same", "format: png", "quality: auto", "quality: 80")  # fmt: skip
    for number, line in enumerate(alone):
        house.draw(f"p{number}/photo.png", "red")
        house.save(f"p{number}/_pictures.yaml", f"{line}\n")
    assert house.once()
    saved, first = [], house.pictures()
    for picture, flags in product(first, ([], ["--all"])):
        shown = picowatch_here(house.folder, "show", *flags, picture).stdout
        name = f"again/{picture.partition('/')[0]}"
        saved.append(house.save(f"{name}{''.join(flags)}.yaml", shown))
        saved.append(house.save(f"{name}-from.yaml", f"from: outbox/{picture}"))
    checked = picowatch_here(house.folder, "check", *saved)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert house.once()
    again = {house.request(picture).digest for picture in house.pictures("again")}
    assert again == {house.request(picture).digest for picture in first}


@pytest.mark.parametrize("place", ["set/s.png", "s.png"])
def test_show_names_a_start_image_as_seen_from_the_inbox_itself(house: House, place: str) -> None:
    """It lies beside its recipe, or has been moved since."""
    house.draw("set/s.png")
    house.save("set/a.yaml", "prompt: a cat\nseed: 1\nimage: s.png\n")
    assert house.once()
    (house.inbox / "set/s.png").rename(house.inbox / place)
    house.save("b.yaml", picowatch_here(house.folder, "show", *house.pictures()).stdout)
    assert house.once(), house.error("b.yaml")


def test_show_goes_on_after_a_picture_without_a_recipe(house: House) -> None:
    """Whatever it is; `picowatch show outbox/a/*.png` names contact sheets, too."""
    plain, none = house.folder / "plain.png", house.folder / "none.png"
    Image.new("RGB", (8, 8)).save(plain)
    for path in (plain, house.save("b.txt", "a cat\n"), none):
        refused = picowatch_here(house.folder, "show", path)
        assert (refused.returncode, str(path) in refused.stderr) == (1, True)
    house.save("a.yaml", "prompt: a star\nseed: 7\nsweep: {steps: [1, 2]}\n")
    assert house.once()
    sheet = next(house.outbox.glob("a/*sheet*"))
    first, second, _ = house.pictures("a")
    printed = picowatch_here(house.folder, "show", first, sheet, second)
    lines = printed.stdout.splitlines()
    assert [line for line in lines if line.startswith(("---", "steps"))] == [
        "steps: 1", "---", "steps: 2",
    ]  # fmt: skip
    said = f"picowatch: {sheet}: It is a contact sheet. Show one of its pictures.\n"
    assert (printed.returncode, printed.stderr) == (1, said)
