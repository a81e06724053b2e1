"""A renderer of the demo model for all tests, and its folders."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from picowatch.catalog.parts import CONFIGS
from picowatch.engine.protocol import EngineOptions

if TYPE_CHECKING:
    from picowatch.engine.renderer import Renderer

# Before torch is imported here: threads that spin only for a moment, as in the engine process.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a models folder for this test only."""
    return tmp_path / "models"


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of start images and masks."""
    return tmp_path_factory.mktemp("start-images")


@pytest.fixture(scope="session")
def renderer(kept: Path) -> "Renderer":
    """Return a renderer in this process, on one thread: more would spin on a busy machine."""
    from picowatch.engine.renderer import Renderer

    return Renderer(
        EngineOptions(
            models=Path("nowhere"),
            device="cpu",
            precision="float32",
            threads=1,
            start_images=kept,
        )
    )


@pytest.fixture(scope="module", autouse=True)
def configs() -> Iterator[None]:
    """Forget a module's configs of single files at its end."""
    before = dict(CONFIGS)
    yield
    CONFIGS.clear()
    CONFIGS.update(before)
