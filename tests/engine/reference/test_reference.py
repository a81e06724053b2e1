"""The engine draws what it drew before: see `requests.py` for what, and how to draw it anew."""

import numpy as np
import pytest

from picowatch.engine.renderer import Renderer
from tests.engine.reference.models import Models
from tests.engine.reference.requests import CASES, PICTURES, drawn, stored
from tests.engine.requests import NUMPY_WARNINGS

pytestmark = NUMPY_WARNINGS
MOST = 2  # of 255


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("reference") / "models")


@pytest.fixture(scope="module")
def renderer(models: Models) -> Renderer:
    """In this process: it goes from case to case with what the ones before have left."""
    return Renderer(models.options)


@pytest.mark.parametrize("name", CASES)
def test_the_pictures_are_the_stored_ones(name: str, models: Models, renderer: Renderer) -> None:
    """But for rounding, which other kinds of processors do otherwise."""
    found, wanted = drawn(renderer, models, name), stored(name)
    assert found.shape == wanted.shape, name
    difference = np.abs(found - wanted)
    assert difference.max() <= MOST, (
        f"{name}: {difference.max()} of 255 at most, {difference.mean():.3f} in the mean"
    )


def test_each_stored_picture_belongs_to_a_case() -> None:
    """Renamed cases leave none behind."""
    assert {path.stem for path in PICTURES.glob("*.png")} == set(CASES)
