"""Sweeps and grids: every combination, and one contact sheet when all pictures are there."""

import json
from itertools import chain, repeat
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image

from picowatch.errors import RenderFailed
from picowatch.ledger import contact_sheets
from picowatch.outbox.encoding import SHEET_KEYWORD
from picowatch.outbox.sheets import GAP, LINES
from tests.house import House

SWEEP = "prompt: a corgi\nseed: 1\nsweep:\n  steps: [3, 4]\n  cfg_scale: 4..8 step 2\n"


def sheets(house: House) -> list[str]:
    return [picture for picture in house.pictures() if picture.endswith("-sheet.png")]


def told_by_its_sheet(house: House, text: str) -> dict[str, Any]:
    house.save("a.yaml", text)
    assert house.once(), house.error("a.yaml")
    (sheet,) = sheets(house)
    with Image.open(house.outbox / sheet) as picture:
        told: dict[str, Any] = json.loads(picture.info[SHEET_KEYWORD])
    return told


def test_a_sweep_renders_every_combination_and_one_sheet(house: House) -> None:
    """All have the same seed; the sheet's text names the sweep and its pictures."""
    told = told_by_its_sheet(house, SWEEP)
    requests = [house.request(file) for file in told["files"]]
    assert [(request.steps, request.cfg_scale) for request in requests] == [
        (3, 4), (3, 6), (3, 8), (4, 4), (4, 6), (4, 8),
    ]  # fmt: skip
    assert {request.seed for request in requests} == {1}
    assert told["axes"] == [
        {"label": "steps", "values": ["3", "4"]},
        {"label": "cfg_scale", "values": ["4", "6", "8"]},
    ]
    assert told["recipe"] == "a.yaml"
    assert house.once()
    assert len(sheets(house)) == 1, "starting again draws none"


STEPS = "sweep: {steps: [3, 4]}"
VARIED = f"variation_strength: 0.1\nvariation_seed: 3\n{STEPS}"
STRENGTHS = "variation_seed: 3\nsweep: {variation_strength: [0, 0.1]}"
HEARTS = "prompt: a {red|green} heart\nseed: 7"
TWO_HEARTS = f"prompt: '{{a|one}} {{red|green}} heart'\nseed: 7\ncount: 2\n{STEPS}"


@pytest.mark.parametrize(
    ("recipe", "axis", "labels"),
    [
        (f"seed: 7\ncount: 2\n{STEPS}", ["seed", "7", "8"], None),
        (f"seed: [5, 1]\n{VARIED}", ["seed", "5", "1"], None),
        (f"seed: 7\ncount: 2\n{VARIED}", ["variation", "3", "4"], None),
        (f"seed: 7\ncount: 2\n{STRENGTHS}", ["image", "1", "2"], None),
        ("seed: 7\ncount: 2\ngrid: true", None, ["seed 7", "seed 8"]),
        (f"{HEARTS}\ncount: 2\ngrid: true", None, ["seed 7, red", "seed 8, green"]),
        (TWO_HEARTS, ["seed", "7", "8"], ["a red", "a red", "one green", "one green"]),
        (f"{HEARTS}\n{STEPS}", ["steps", "3", "4"], ["", ""]),
        (f"{STEPS}\nseed: 7\ngrid_seconds: true", None, ["0.5 s", "0.5 s"]),
        ("seed: 7\ngrid_seconds: true", None, ["seed 7, 0.5 s"]),
    ],
)
def test_a_sheet_says_what_its_pictures_differ_in(
    house: House, recipe: str, axis: list[str] | None, labels: list[str] | None
) -> None:
    """Labels have the words drawn for a seed and, if wanted, the seconds without loading."""
    house.engine.timings = {"load": 9.0, "denoise": 0.4, "decode": 0.1}
    prompt = "" if "prompt" in recipe else "prompt: a corgi\n"
    told = told_by_its_sheet(house, f"{prompt}size: 64x64\n{recipe}\n")
    assert not axis or [told["axes"][0]["label"], *told["axes"][0]["values"]] == axis
    assert not labels or told["labels"] == labels


def test_each_cell_of_a_sheet_names_its_file(house: House) -> None:
    """Below its picture, where values are those of axes, too."""
    told_by_its_sheet(house, "prompt: a\nseed: 7\nsize: 64x64\nsweep: {steps: [3, 4]}\n")
    with Image.open(house.outbox / sheets(house)[0]) as sheet:
        page = sheet.convert("L")
    label = LINES * (11 + 4)
    below = GAP + label
    assert page.height == 2 * label + 64 + 3 * GAP, "of the axis, and below the pictures"
    left = page.crop((0, page.height - below, page.width // 2, page.height))
    right = page.crop((page.width // 2, page.height - below, page.width, page.height))
    assert max(min(left.tobytes()), min(right.tobytes())) < 100, "ink"
    assert left.tobytes() != right.tobytes()


def test_a_sheet_that_an_earlier_save_requested_is_not_drawn_again(house: House) -> None:
    """Saving A, B and A again makes no new sheet; another order of the pictures does."""
    recipe = house.inbox / "a.yaml"
    for steps in ("[1, 2]", "[3]", "[1, 2]"):
        recipe.write_text(f"prompt: a star\nseed: 1\nsweep: {{steps: {steps}}}\n")
        assert house.once()
    assert sheets(house) == ["a/0003-sheet.png", "a/0005-sheet.png"]
    (house.outbox / "a/0003-sheet.png").unlink()
    for steps, number in (("[3]", 5), ("[1, 2]", 6), ("[2, 1]", 7), ("[1, 2]", 7)):
        recipe.write_text(f"prompt: a star\nseed: 1\nsweep: {{steps: {steps}}}\n")
        assert house.once()
        assert sheets(house)[-1] == f"a/000{number}-sheet.png"


def test_a_sweep_that_is_too_large_for_a_sheet_has_a_warning(house: House) -> None:
    """All of its pictures are there; the warning file says why there is no sheet."""
    house.save(
        "a.yaml", "prompt: a star\nseed: 1\nsize: 64x64\nsweep:\n  cfg_scale: 1..16 step 0.1\n"
    )
    assert house.once()
    assert len(house.pictures("a")) == 151
    assert not sheets(house)
    warning = (house.outbox / "a.yaml.warning.txt").read_text()
    assert "No contact sheet: 151 pictures are too many for one page." in warning
    assert house.once()
    assert house.log().count("No contact sheet") == 1


def test_a_sheet_is_drawn_when_the_failed_image_succeeds(house: House) -> None:
    """Not earlier, with one picture alone; a new draw of seeds has its own sheet."""
    failures = [RenderFailed("Sick.")] * 3  # of the batch, and of each image alone
    house.engine.before_batch = Mock(side_effect=chain(failures, repeat(None)))
    path = house.save("a.yaml", "prompt: a corgi\ncount: 2\ngrid: true\n")
    for count in (0, 1, 2):
        assert house.once() == bool(count)
        assert len(sheets(house)) == count
        path.touch()


def test_a_random_variation_is_drawn_again_beside_the_plain_picture(house: House) -> None:
    """The plain one does not depend on the draw and stays; saved again, the others are new."""
    path = house.save("a.yaml", "prompt: a\nseed: 7\nsweep: {variation_strength: [0, 0.2, 0.4]}\n")
    house.once()
    first = [house.request(file) for file in house.pictures("a")[:3]]
    assert [request.variation_strength for request in first] == [0, 0.2, 0.4]
    assert first[1].variation_seed == first[2].variation_seed
    names = [f"a/000{n}-7{'' if n == 1 else f'-{first[1].variation_seed}'}.png" for n in (1, 2, 3)]
    assert house.pictures("a")[:3] == names
    path.touch()
    house.once()
    drawn = {house.request(file).variation_seed for file in house.pictures("a")
             if not file.endswith("-sheet.png")}  # fmt: skip
    assert len(house.pictures("a")) == 3 + 1 + 2 + 1
    assert len(drawn) == 3, "None, and two draws"


def test_a_sheet_shows_new_pictures_with_the_names_of_deleted_ones(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former sheet was given up, as its pictures were deleted before it was drawn."""
    due = contact_sheets.sheets_due

    def deleted_before(*given: Any) -> Any:
        if found := due(*given):
            (house.outbox / "frames/1.png").unlink()
        return found

    house.save("frames/_pictures.yaml", "prompt: a star\ngrid: true\n")
    for colour, shown in (("red", []), ("blue", ["frames/1-sheet.png"])):
        house.draw("frames/1.png", colour)
        with monkeypatch.context() as patch:
            if not shown:
                patch.setattr(contact_sheets, "sheets_due", deleted_before)
            assert house.once()
        assert sheets(house) == shown
