"""Denoisers whose kernels are recorded once for each shape, then started together: `graphs: true`.

A card that computes faster than the processor starts kernels waits for it. The recorded kernels are
the same, and compute the same bits.
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from time import perf_counter
from typing import Any, NamedTuple

import torch

from picowatch.engine.private import TreeSpec, tree_flatten, tree_map_only, tree_unflatten

# A denoiser that starts its kernels in less than this share of its time does not wait for the
# processor: a graph would only take memory.
_START_BOUND = 0.7
_KEPT = 8  # they share their memory


class Graphed:
    """A denoiser on a card; `replayed`, which others may reset, says whether a graph computed.

    It is called as the module is, with `return_dict=False`. A graph has the addresses of the
    weights: `forget` it when they change.
    """

    def __init__(self, denoiser: Any, device: torch.device) -> None:
        self._denoiser = denoiser
        self._device = device
        self._graphs: dict[str, _Graph | None] = {}  # by call, the last used last
        self._pool: Any = None
        self._can_be_recorded = True
        self.replayed = False

    def forget(self) -> None:
        """Release the memory of all graphs."""
        self._graphs.clear()
        self._pool = None

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Return the output; the module computes what cannot be recorded, or is not worth it."""
        leaves, tree = tree_flatten((given, named))
        shapes = [(leaf.shape, leaf.dtype) if torch.is_tensor(leaf) else leaf for leaf in leaves]
        call = repr((tree, shapes))
        if call not in self._graphs:
            if len(self._graphs) == _KEPT:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[call] = self._recorded(leaves, tree)
        self._graphs[call] = graph = self._graphs.pop(call)
        if graph is None:
            return self._denoiser(*given, **named)
        self.replayed = True
        return graph.replay(leaves)

    def _recorded(self, leaves: Sequence[Any], tree: TreeSpec) -> "_Graph | None":
        if not self._can_be_recorded:
            return None
        device = self._device
        own = [leaf.to(device, copy=True) if torch.is_tensor(leaf) else leaf for leaf in leaves]
        given, named = tree_unflatten(own, tree)
        call = partial(self._denoiser, *given, **named)
        graph = torch.cuda.CUDAGraph()
        try:
            if not self._waits_for_processor(call):
                return None
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            how: Any = {"stream": _side(self._device), "capture_error_mode": "thread_local"}
            with torch.cuda.graph(graph, pool=self._pool, **how):
                output = call()
        except torch.OutOfMemoryError:  # the module itself needs less
            return None
        except RuntimeError:
            self._can_be_recorded = False
            return None
        return _Graph(graph, own, output)

    def _waits_for_processor(self, call: partial[Any]) -> bool:
        """Measure a call. Raises RuntimeError if it needs a number from the card."""
        side = _side(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            call()  # sets up what libraries need once
            side.synchronize()
            with _refusing_waits():
                began = perf_counter()
                call()
                started = perf_counter() - began
            side.synchronize()
        return started >= _START_BOUND * (perf_counter() - began)


@contextmanager
def _refusing_waits() -> Iterator[None]:
    """Let torch raise RuntimeError where the processor waits for the card, without a warning."""
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@cache
def _side(device: torch.device) -> torch.cuda.Stream:
    """Return the stream for recordings: cuBLAS keeps 32 MB for each stream that it computed on."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Graph(NamedTuple):
    """A graph, the inputs that it reads, and the output that it writes."""

    graph: Any
    inputs: Sequence[Any]
    output: Any

    def replay(self, leaves: Sequence[Any]) -> Any:
        for own, leaf in zip(self.inputs, leaves, strict=True):
            if torch.is_tensor(own):
                own.copy_(leaf, non_blocking=True)
        self.graph.replay()
        return tree_map_only(torch.Tensor, torch.clone, self.output)
