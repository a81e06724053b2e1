"""The models of the stored pictures, for tests on the pretended card."""

from tests.engine.conftest import models

__all__ = ["models"]
