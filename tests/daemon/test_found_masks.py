"""Masks that words find, from a template or a recipe to the pictures and what they say."""

import pytest

from tests.house import House

TEMPLATE = "prompt: red\nseed: 1\nsize: 64x64\nmask: {find: the sky, preview: true}\n"


@pytest.fixture
def house(house: House) -> House:
    """Return a house with a folder of pictures of which two have nothing to find."""
    house.save("sky/_pictures.yaml", TEMPLATE)
    for number, name in enumerate(("1.png", "2.png", "bare-3.png", "bare-4.png")):
        house.draw(f"sky/{name}", f"rgb({number},0,0)")
    return house


def published(house: House) -> list[str]:
    """Return the pictures in the order in which they were made, without previews of masks."""
    return [line["file"] for line in house.listed()]


def test_a_folder_says_what_was_found_in_each_picture(house: House) -> None:
    assert house.once(batch_size=4), house.error("sky/_pictures.yaml")
    found = {name: house.chunk(name).rendered for name in published(house)}
    place = {"field": "mask", "score": 0.9, "box": [1, 2, 3, 4]}
    assert {name: (facts["found"], facts["places"]) for name, facts in found.items()} == {
        "sky/1.png": (1, [place]),
        "sky/2.png": (1, [place]),
        "sky/bare-3.png": (0, []),
        "sky/bare-4.png": (0, []),
    }
    assert [line["found"] for line in house.listed()] == [1, 1, 0, 0]
    assert (house.outbox / "sky/1.control.png").exists()
    assert house.request("sky/1.png").mask_finder_hash
    house.save("shown.yaml", "from: outbox/sky/1.png\n")
    assert house.once(), house.error("shown.yaml")
    assert house.request(published(house)[-1]).mask == house.request("sky/1.png").mask


@pytest.mark.parametrize("template", [TEMPLATE, "detail: the sky\ncheckpoint: demo\n"])
def test_that_nothing_was_found_is_told_once(house: House, template: str) -> None:
    """However many pictures have nothing; each says so in its metadata."""
    house.save("sky/_pictures.yaml", template)
    assert house.once(batch_size=2), house.error("sky/_pictures.yaml")
    assert [line["found"] for line in house.listed()] == [1, 1, 0, 0]
    assert house.log().count("Nothing was found.") == 1
