"""One engine process with the demo model for all tests, and requests for it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from picowatch.engine.child import ChildEngine
from picowatch.engine.protocol import EngineOptions

if TYPE_CHECKING:
    from picowatch.engine.renderer import Renderer

# Before torch is imported here: threads that spin only for a moment, as in the engine process.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture(scope="session")
def options(tmp_path_factory: pytest.TempPathFactory) -> EngineOptions:
    """An engine for an empty models folder, on the CPU whatever the machine has."""
    return EngineOptions(models=tmp_path_factory.mktemp("models"), device="cpu", threads=2)


@pytest.fixture(scope="session")
def engine(options: EngineOptions) -> Iterator[ChildEngine]:
    """Yield the shared engine; if a test kills it, the next test starts it again."""
    engine = ChildEngine(options)
    yield engine
    engine.close()


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
    """Return a renderer in this process."""
    from picowatch.engine.renderer import Renderer
    from tests.engine.requests import plain_options

    return Renderer(plain_options(Path("nowhere"), kept))
