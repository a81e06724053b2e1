"""A plugin that has renderers compute on the card: `make test-gpu`."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.protocol import EngineOptions

# Tests of what happens on a CPU alone, or without a card.
ON_CPU = (
    "test_compile.py",
    "test_each_engine_addresses_its_own_card_everywhere",
    "test_it_ends_between_two_tiles",
    "test_a_picture_says_how_it_was_rendered",
    "test_a_failure_in_one_part_fails_the_batch",
    "test_shrink_to_fit_renders_it_smaller_and_says_so",
)
_init = Renderer.__init__


def _init_on_card(self: Renderer, options: EngineOptions, *more: Any, **named: Any) -> None:
    _init(self, replace(options, device="cuda", graphs=True), *more, **named)


Renderer.__init__ = _init_on_card  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out tests of the CPU."""
    left_out = [item for item in items if any(one in item.nodeid for one in ON_CPU)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
