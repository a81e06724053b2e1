"""`picowatch show`: a picture's recipe for the inbox."""

import shutil
from pathlib import Path

import pytest

from picowatch.commands.show import show
from tests.house import House

STYLES = Path(__file__).parents[1] / "styles"


def test_show_names_embeddings(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """A recipe names none: elsewhere its prompt would be plain words, and another picture."""
    (house.models / "embeddings").mkdir()
    shutil.copy(STYLES / "mascot.safetensors", house.models / "embeddings")
    house.save("a.txt", "a mascot --seed 7\na cat --seed 8\n")
    assert house.once()
    show([house.outbox / file for file in house.pictures()], as_json=False)
    shown = capsys.readouterr().out
    one, other = shown.split("---\n")
    assert one.startswith("# The prompts use the embedding 'mascot'. Where models/embeddings lacks")
    assert "#" not in other
    house.save("b.yaml", one)
    assert house.once()
    first, _, again = (house.chunk(picture).request for picture in house.pictures())
    assert again == first
