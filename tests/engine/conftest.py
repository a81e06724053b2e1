"""The models of the stored pictures, for several modules; garbage is collected as in the engine."""

import gc
import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine.reference.models import Models

# Before torch is imported here: threads that spin only for a moment, as in the engine process.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> "Models":
    from tests.engine.reference.models import Models

    return Models(tmp_path_factory.mktemp("reference") / "models")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Collect no garbage in modules that a test was the first to import, as in the engine process.

    What moves a model collects garbage, and would each time search all of torch and diffusers.
    """
    known = len(sys.modules)
    try:
        return (yield)
    finally:
        if len(sys.modules) > known:
            gc.collect()
            gc.freeze()
