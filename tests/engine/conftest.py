"""The models of the stored pictures, for several modules."""

import os
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
