"""A plugin that has renderers compute on the card, by graphs: `make test-gpu`."""

from dataclasses import replace
from typing import Any

import pytest

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.protocol import EngineOptions

# Tests of what happens on a CPU alone, without a card, or in a step that no graph computes.
LEFT_OUT = (
    "test_compile.py",
    "test_each_engine_addresses_its_own_card_everywhere",
    "test_it_ends_between_two_tiles",
    "test_a_picture_says_how_it_was_rendered",
    "test_a_failure_in_one_part_fails_the_batch",
    "test_shrink_to_fit_renders_it_smaller_and_says_so",
    "test_the_position_in_a_batch_changes_no_pixel",
    "test_a_single_large_picture_is_drawn_by_all_cores",
    "test_an_interruption_takes_effect_within_a_step",
    "test_the_next_rungs_are_tried_when_memory_runs_out",
    "test_a_drawn_picture_is_decoded_in_tiles_when_memory_runs_out",
    "test_other_checkpoints_go_before_a_rung_does",
    "test_three_of_eight_steps_reuse_blocks",
)
_init = Renderer.__init__


def _init_on_card(self: Renderer, options: EngineOptions, *more: Any, **named: Any) -> None:
    _init(self, replace(options, device="cuda", graphs=True), *more, **named)


Renderer.__init__ = _init_on_card  # type: ignore[method-assign]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if any(name in item.nodeid for name in LEFT_OUT)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
