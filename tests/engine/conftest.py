"""A renderer of the demo model for all tests, and its folders."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from picowatch.engine.renderer import Renderer
    from tests.engine.reference.models import Models

# Before torch is imported here: threads that spin only for a moment, as in the engine process.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> "Models":
    """Return the models of the stored pictures, and requests for them."""
    from tests.engine.reference.models import Models

    return Models(tmp_path_factory.mktemp("reference") / "models")


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of start images and masks."""
    return tmp_path_factory.mktemp("start-images")


@pytest.fixture(scope="session")
def renderer(kept: Path) -> "Renderer":
    """Return a renderer in this process."""
    from picowatch.engine.renderer import Renderer
    from tests.engine.requests import plain_options

    return Renderer(plain_options(Path("nowhere"), kept))
