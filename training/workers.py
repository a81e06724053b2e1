"""Several processes that train one network together, each on its part of every batch.

On a CPU that others use too this is much faster than threads: processes wait for one another
once a step, threads after every operation.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing
from torch import nn


def run_workers(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Runs the function in `count` processes, in this one when it is just one."""
    if count == 1:
        work(*arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting_point = (Path(folder) / "workers").as_uri()
        torch.multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
            _joined, (count, meeting_point, work, arguments), nprocs=count
        )


def _joined(
    number: int, count: int, meeting_point: str, work: Callable[..., None], arguments: Any
) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=meeting_point, rank=number, world_size=count
    )
    work(*arguments)
    torch.distributed.destroy_process_group()


def worker_count() -> int:
    """How many processes train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def worker_number() -> int:
    """Which of them this is; number 0 writes the files."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Gives every process the mean of all processes' gradients."""
    if worker_count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    torch.distributed.all_reduce(flat)
    flat /= worker_count()
    sizes = [gradient.numel() for gradient in gradients]
    parts = flat.split(sizes)  # type: ignore[no-untyped-call]
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view(gradient.shape))
