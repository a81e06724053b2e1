"""A compiled UNet or a graph: whichever takes less time here, measured once."""

from types import SimpleNamespace
from typing import Any

import pytest

from picowatch.engine.compiled import choice
from picowatch.engine.compiled.choice import BatchUnets, OtherUnets
from picowatch.engine.unet.denoise import Shape

SHAPE = Shape(2, 8, 8, 77)


class Card:
    """A checkpoint on a card with both kinds of UNet, and how often they were measured."""

    def __init__(self, compiled_seconds: float, graph_seconds: float) -> None:
        self.compiled = SimpleNamespace(beats_graphs=False, seconds=compiled_seconds)
        self.graph = SimpleNamespace(seconds=graph_seconds)
        self.declined = False
        self.loaded: Any = SimpleNamespace(
            can_be_compiled=True, family="sd1", unet=None, compiled={}, graphs={SHAPE: self.graph}
        )
        self.measured = 0
        self.others = OtherUnets(
            SimpleNamespace(find=self._find_compiled),  # type: ignore[arg-type]
            SimpleNamespace(find=self._find_graph, drop=self._drop),  # type: ignore[arg-type]
        )

    def _find_compiled(self, loaded: Any, shape: Shape) -> Any:
        loaded.compiled[shape] = self.compiled
        return self.compiled

    def _find_graph(self, loaded: Any, shape: Shape, steps: float) -> Any:
        return None if self.declined else self.graph

    def _drop(self, loaded: Any, shape: Shape, *, decline: bool) -> None:
        self.declined = decline
        del loaded.graphs[shape]

    def seconds_of(self, unet: Any, example: Any) -> float:
        self.measured += 1
        return float(unet.seconds)

    def unets_of_batches(self, count: int) -> list[Any]:
        return [
            BatchUnets(self.others, self.loaded, 9, eager=False)(SHAPE, 20) for _ in range(count)
        ]


@pytest.mark.parametrize(("compiled", "graph"), [(0.5, 1.0), (1.0, 0.5)])
def test_the_slower_one_gives_its_memory_back(
    compiled: float, graph: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And neither is measured again."""
    card = Card(compiled, graph)
    monkeypatch.setattr(choice, "seconds_of", card.seconds_of)
    monkeypatch.setattr(choice, "example_of", lambda unet, shape: None)
    faster = card.compiled if compiled < graph else card.graph
    assert all(unet is faster for unet in card.unets_of_batches(3))
    assert card.measured == 2
    kept = [*card.loaded.compiled.values(), *card.loaded.graphs.values()]
    assert kept == [faster]
