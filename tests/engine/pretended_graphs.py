"""Pretended CUDA graphs: what ran inside is run again on the very tensors that it ran on.

As on a card, a replay reads nothing but the tensors that were there at the capture, and writes to
the addresses that it wrote to then. Graphs of one pool overwrite each other's results. Waiting for
the card, and copies to it from memory that is not pinned, cannot be captured.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from tests.engine.pretended_gpu import PretendedGpu


class PretendedGraph:
    """A torch.cuda.CUDAGraph; `captures` and `replays` count those of all."""

    made: ClassVar[list["PretendedGraph"]] = []
    replays: ClassVar[int] = 0

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self.pool: object = None
        self.made.append(self)

    def replay(self) -> None:
        assert self.operations, "was reset, or never captured"
        PretendedGraph.replays += 1
        for graph in self.made:
            if graph.pool is self.pool:
                graph._scribble()
        for func, args, kwargs, outputs in self.operations:
            found = func(*args, **kwargs)
            for old, new in zip(outputs, _tensors(found), strict=bool(outputs)):
                old.copy_(new)

    def reset(self) -> None:
        self.operations = []

    def _scribble(self) -> None:
        for *_, outputs in self.operations:
            for output in outputs:
                if output.is_floating_point():
                    output.fill_(float("nan"))


class _Recording(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, graph: PretendedGraph) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        before = {one.untyped_storage().data_ptr() for one in _tensors((args, kwargs))}
        outputs = [
            one for one in _tensors(result) if one.untyped_storage().data_ptr() not in before
        ]
        if outputs or func._schema.is_mutable:  # views see what is computed again by themselves
            self._graph.operations.append((func, args, kwargs, outputs))
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    return [one for one in tree_iter(values) if isinstance(one, torch.Tensor)]


@contextmanager
def pretended_graphs(gpu: PretendedGpu) -> Iterator[type[PretendedGraph]]:
    """What graphs.py takes from torch.cuda."""

    @contextmanager
    def capture(graph: PretendedGraph, pool: Any, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        graph.pool = pool
        before = len(gpu.waits), len(gpu.uploads)
        with _Recording(graph):
            yield
        if before != (len(gpu.waits), len(gpu.uploads)):
            raise RuntimeError("operation not permitted when stream is capturing")

    PretendedGraph.made, PretendedGraph.replays = [], 0
    with patch.multiple(
        torch.cuda,
        CUDAGraph=PretendedGraph,
        graph=capture,
        graph_pool_handle=object,
        current_stream=lambda *_: SimpleNamespace(wait_stream=lambda _: None),
        synchronize=lambda *_: None,
    ):
        yield PretendedGraph
