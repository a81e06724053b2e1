"""Models that come to the device in turn, from weights that never leave the computer's memory.

Weights do not change while they compute (LoRAs act beside them), so nothing is copied back: what
was on the device is dropped. accelerate's hooks copy it back each time, to memory that is not
pinned, from which the next copy is slower.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module  # type: ignore[import-untyped]
from accelerate.utils import send_to_device  # type: ignore[import-untyped]

# torch's allocator rounds pinned blocks up to powers of two.
_BLOCK_BYTES = 256 * 2**20
_ALIGNMENT = 64


def bring_in_turn(turns: Iterable[Sequence[Any]], device: torch.device) -> None:
    """Each model comes to the device when it computes, and those of other turns leave.

    Those of one turn compute one after the other in each step, so they stay together.
    """
    there: list[_InTurn] = []
    for models in turns:
        companions: list[_InTurn] = []
        for model in models:
            companions.append(_InTurn(model, device, there, companions))
            add_hook_to_module(model, companions[-1])


def send_back(model: Any) -> None:
    """Leave the device at once, a model of `bring_in_turn`."""
    model._hf_hook.leave()


class _InTurn(ModelHook):  # type: ignore[misc]
    """Brings a model to the device before it computes.

    `execution_device` tells diffusers' pipelines where that is. `there` has those of all turns that
    are on the device, `companions` those of its own turn.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        there: "list[_InTurn]",
        companions: "list[_InTurn]",
    ) -> None:
        self.execution_device = device
        self._there = there
        self._companions = companions
        self._weights = [*model.parameters(), *model.buffers()]
        self._kept = list(_kept([weight.data for weight in self._weights], device))
        self.leave()

    def pre_forward(self, module: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        if self not in self._there:
            self._come()
        device = self.execution_device
        return send_to_device(args, device), send_to_device(kwargs, device)

    def _come(self) -> None:
        for other in [one for one in self._there if one not in self._companions]:
            other.leave()
        self._there.append(self)
        for weight, kept in zip(self._weights, self._kept, strict=True):
            weight.data = kept.to(self.execution_device, non_blocking=True)

    def leave(self) -> None:
        """Drop what is on the device."""
        for weight, kept in zip(self._weights, self._kept, strict=True):
            weight.data = kept
        if self in self._there:
            self._there.remove(self)


def _kept(tensors: list[torch.Tensor], device: torch.device) -> Iterator[torch.Tensor]:
    """The tensors in the computer's memory, for CUDA in pinned blocks, in their own layouts."""
    if device.type != "cuda":
        yield from (tensor.to("cpu") for tensor in tensors)
        return
    for block in _blocks(tensors):
        pinned = torch.empty(sum(map(_room, block)), dtype=torch.uint8, pin_memory=True)
        begin = 0
        for tensor in block:
            part = pinned[begin : begin + tensor.nbytes].view(tensor.dtype)
            begin += _room(tensor)
            yield part.as_strided(tensor.size(), tensor.stride()).copy_(tensor)


def _blocks(tensors: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The tensors in their order, as many together as a block holds."""
    block: list[torch.Tensor] = []
    for tensor in tensors:
        if block and sum(map(_room, block)) + _room(tensor) > _BLOCK_BYTES:
            yield block
            block = []
        block.append(tensor)
    if block:
        yield block


def _room(tensor: torch.Tensor) -> int:
    """The bytes that a tensor takes in a block."""
    return -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
