"""Bytes that a GPU is still computing, on their way to the computer's memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def beside(stream: Any) -> Iterator[None]:
    """What is queued meanwhile goes beside what is queued later; without a stream, before it.

    What it reads must stay where it is until it has come: the allocator knows of one stream only.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams
    """
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        yield


class Arriving:
    """A tensor that comes to pinned memory after the work that is queued, in one copy.

    From ordinary memory's side the copy would wait for the GPU, and everything else with it:
    https://docs.pytorch.org/docs/stable/notes/cuda.html#use-pinned-memory-buffers
    """

    def __init__(self, computed: torch.Tensor, began: Any = None) -> None:
        """`began` is the event after which it was computed, see `mark`."""
        self._began, self._event = began, None
        if computed.device.type != "cuda":
            self._here = computed.cpu()
            return
        self._here = torch.empty(computed.shape, dtype=computed.dtype, pin_memory=True)
        self._here.copy_(computed, non_blocking=True)
        self._event = mark(computed.device)

    def has_come(self) -> bool:
        """Whether `tensor` would not wait."""
        return self._event is None or bool(self._event.query())

    def tensor(self) -> torch.Tensor:
        """It, as soon as it is there."""
        if self._event is not None:
            self._event.synchronize()
        return self._here

    def seconds(self) -> float:
        """How long it took from `began`, as the GPU's clock has it; 0 without one."""
        if self._event is None or self._began is None:
            return 0.0
        return float(self._began.elapsed_time(self._event)) / 1000


def mark(device: torch.device) -> Any:
    """A mark in the queue of a GPU, which knows its time; None on other devices."""
    if device.type != "cuda":
        return None
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event
