"""Files with other names: each keeps its queue, seeds and pictures, whatever had the name before.

They are told by their bytes and times, so a set of renames may come in any order.
"""

import hashlib
from collections.abc import Sequence
from functools import partial

import pytest

from tests.house import House, wait_for

Moves = Sequence[tuple[str, str]]
MOVES: dict[str, Moves] = {
    "to a name in use": [("b", "a")],
    "swapped": [("a", "spare"), ("b", "a"), ("spare", "b")],
    "renumbered": [("c", "d"), ("b", "c"), ("a", "b")],
    "one less": [("b", "a"), ("c", "b"), ("d", "c")],
    "in a circle": [("c", "spare"), ("a", "c"), ("b", "a"), ("spare", "b")],
}
TEMPLATE = "photos/_pictures.yaml"
KINDS = {"recipes": "{}.txt", "photos": "photos/{}.png"}


@pytest.fixture(autouse=True)
def template(house: House) -> None:
    house.save(TEMPLATE, "prompt: a star\nsize: 64x64\n")


def save(house: House, kind: str, names: str = "abcd") -> None:
    for number, name in enumerate(names):
        if kind.startswith("photos"):
            house.draw(kind.format(name), f"rgb({50 * number},0,0)")
        else:
            house.save(kind.format(name), f"prompt {name} --size 64x64")


def move(house: House, kind: str, moves: Moves) -> None:
    for old, new in moves:
        (house.inbox / kind.format(old)).rename(house.inbox / kind.format(new))


@pytest.mark.parametrize("moves", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_what_waits_is_rendered_once_under_new_names(house: House, kind: str, moves: Moves) -> None:
    house.answer("pause")
    save(house, kind)
    assert not house.once(), "it is paused"
    move(house, kind, moves)
    assert not house.once()
    house.answer("resume")
    left = sorted(path.stem for path in (house.inbox / kind).parent.glob("?.*"))
    assert [file.removeprefix("photos/")[0] for file in house.pictures()] == left, house.log()
    assert house.log().count("1 image queued") == 4, "no seed is drawn again"
    for name, request in zip(left, house.requests(), strict=True):
        content = (house.inbox / kind.format(name)).read_bytes()
        is_photo = request.image_hash == hashlib.sha256(content).hexdigest()
        assert is_photo or content.decode().startswith(f"{request.prompt} --size")


def test_make_tells_what_became_of_a_recipe_whose_name_another_got(house: House) -> None:
    """It is not told of the other name, which that recipe never had."""
    save(house, "{}.txt", "ab")
    house.answer("pause")
    path = house.tell("make", "a.txt")
    assert not house.once()
    move(house, "{}.txt", MOVES["to a name in use"])
    assert not house.once()
    answer = house.answer_to(path)
    assert (answer.done, answer.text, answer.parts) == (False, "1 image cancelled.", {})


def test_make_follows_a_recipe_that_is_renamed(house: House) -> None:
    """Before it was answered, and several times; once to a name that it had before."""
    save(house, "{}.txt", "a")

    def waits(recipe: str) -> bool:
        return dict(house.status()["waiting"]) == {recipe: 1}

    house.answer("pause")
    with house.running():
        path = house.tell("make", "a.txt")
        for old, new in ("aa", "ab", "ba", "ac"):
            move(house, "{}.txt", [(old, new)])
            wait_for(partial(waits, f"{new}.txt"), "its queue")
        house.tell("resume")
        answer = house.answer_to(path)
    assert answer.done
    assert [*answer.pictures] == house.pictures("c") != []


@pytest.mark.parametrize(
    ("one", "other", "pictures"),
    [("a.txt", "b.yaml", 4), (TEMPLATE, "others/_pictures.yaml", 4),
     ("photos/a.png", "others/a.png", 6), ("photos", "others", 6)],
)  # fmt: skip
def test_swapped_files_that_read_otherwise_are_saves(
    house: House, one: str, other: str, pictures: int
) -> None:
    """Neither waits for the other to be renamed. A text and YAML are errors then."""
    house.save("a.txt", "a star --size 64x64")
    house.save("b.yaml", "prompt: a star\nsize: 64x64\n")
    house.save("others/_pictures.yaml", "prompt: a moon\nsize: 64x64\n")
    house.draw("photos/a.png", "red")
    house.draw("others/a.png", "blue")
    assert house.once()
    move(house, "{}", [(one, "spare"), (other, one), ("spare", other)])
    assert house.once() is (one != "a.txt"), house.log()
    assert len(house.pictures()) == pictures, house.log()


@pytest.mark.parametrize("differs", [True, False])
def test_a_photo_in_another_folder_has_the_fields_of_that(house: House, differs: bool) -> None:
    """The templates have the same text, but perhaps not what they add to."""
    house.save("others/_pictures.yaml", (house.inbox / TEMPLATE).read_text())
    house.save("others/_defaults.yaml", f"steps: {3 if differs else 24}\n")
    house.draw("photos/a.png")
    assert house.once()
    (house.inbox / "photos/a.png").rename(house.inbox / "others/a.png")
    assert house.once()
    steps = {24: "photos/a.png"} | ({3: "others/a.png"} if differs else {})
    assert {house.request(file).steps: file for file in house.pictures()} == steps
