"""The models of the stored pictures, for tests on the pretended card, and its garbage collected."""

from tests.engine.conftest import models, pytest_runtest_protocol

__all__ = ["models", "pytest_runtest_protocol"]
