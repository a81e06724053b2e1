"""A pretended GPU: tensors with real values that say they are on a card; it counts what is slow.

Their values are the CPU's, so pictures come out as on the CPU. What a real card refuses (tensors of
both sides in one operation, a CPU's generator for a card's noise) is collected in `mixed`; what
makes the CPU wait for a card is collected in `waits`, and copies to the card that wait for what is
queued there in `uploads`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from traceback import extract_stack
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

DEVICE = torch.device("cuda:0")
CPU = torch.device("cpu")


class OnCard(torch.Tensor):
    """A tensor whose values are in the computer's memory, and which says it is on a card."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    @property
    def is_cpu(self) -> bool:  # type: ignore[override]
        return False


Tensor = torch.Tensor
# What gives Python a value, and so waits until the card has computed it.
_READS = {
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__float__, Tensor.__int__,
    Tensor.__index__, Tensor.__array__, Tensor.nonzero, torch.nonzero, torch.equal, Tensor.equal,
    torch.allclose, torch.linalg.solve, torch.masked_select, Tensor.__array_wrap__, Tensor.unique,
    torch.unique, Tensor.__contains__,
}  # fmt: skip
_MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
_WRITES = {Tensor.copy_, Tensor.set_, Tensor.type_as, Tensor.__setitem__}


class PretendedGpu(TorchFunctionMode):
    """While it is entered, torch has one card; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.uploads: list[str] = []
        self.mixed: list[str] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [each for each in tree_iter((args, kwargs)) if isinstance(each, Tensor)]
        there = any(isinstance(each, OnCard) for each in tensors)
        if func is Tensor.pin_memory:  # needs a real card
            return args[0]
        if func in _MOVES:
            return self._moved(func, args, kwargs, there)
        if there and func in _READS:
            self.waits.append(_where(func))
            return func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = CPU
            there = torch.device(wanted).type == "cuda"
            if (there and func is torch.tensor) or func is torch.as_tensor:
                self.uploads.append(_where(func))
            generator = kwargs.get("generator")
            if there and generator is not None and generator.device.type == "cpu":
                self.mixed.append(_where(func))
        elif there and func not in _WRITES and any(map(_is_here, tensors)):
            self.mixed.append(_where(func))
        result = func(*tree_map(_plain, args), **tree_map(_plain, kwargs))
        return tree_map(_on_card, result) if there else result

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any], there: bool) -> Any:
        """`to`, `cpu` or `cuda` of a tensor."""
        if func is Tensor.to:
            wanted = _device_in(args[1:], kwargs)
        else:
            wanted = CPU if func is Tensor.cpu else DEVICE
        goes = there if wanted is None else wanted.type == "cuda"
        if there and not goes:
            self.waits.append(_where(func))
        if goes and not there and not kwargs.get("non_blocking"):
            self.uploads.append(_where(func))
        if func is Tensor.to:
            rest = tree_map(_as_cpu, args[1:])
            result = Tensor.to(_plain(args[0]), *rest, **tree_map(_as_cpu, kwargs))
        else:
            result = _plain(args[0])
        return _on_card(result) if goes else result


def _device_in(args: Any, kwargs: dict[str, Any]) -> torch.device | None:
    """The device that arguments of `to` name."""
    for each in (*args, *kwargs.values()):
        if isinstance(each, Tensor):
            return each.device
        if isinstance(each, torch.device | str):
            return torch.device(each)
    return None


def _as_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _plain(value)
    return CPU if isinstance(value, torch.device | str) else value


def _is_here(tensor: Tensor) -> bool:
    """Whether a card refuses it: single numbers are passed to it with the operation."""
    return not isinstance(tensor, OnCard) and bool(tensor.ndim)


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, OnCard) else value


def _on_card(value: Any) -> Any:
    return value.as_subclass(OnCard) if isinstance(value, Tensor) else value


def _where(func: Any) -> str:
    """The operation, and the line of picowatch or of a library that called it."""
    skipped = ("/tests/", "/torch/")
    last = [call for call in extract_stack() if not any(s in call.filename for s in skipped)][-1]
    file = last.filename.split("site-packages/")[-1]
    return f"{getattr(func, '__name__', func)} in {file}:{last.lineno}"


_CARD: dict[str, Any] = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "get_device_name": lambda *_: "Pretended",
    "get_device_capability": lambda *_: (9, 0),
    "get_arch_list": lambda: ["sm_90"],
    "get_device_properties": lambda *_: SimpleNamespace(total_memory=24 * 2**30),
    "mem_get_info": lambda *_: (24 * 2**30, 24 * 2**30),
    "memory_reserved": lambda *_: 0,
    "memory_allocated": lambda *_: 0,
    "max_memory_allocated": lambda *_: 0,
    "reset_peak_memory_stats": lambda *_: None,
    "empty_cache": lambda: None,
    "set_device": lambda *_: None,
}


_READERS = "picowatch.engine.models.weights.ThreadPoolExecutor"


class _InThisThread:
    """A pool without threads: what torch is told of functions belongs to a thread."""

    def __enter__(self) -> "_InThisThread":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """One card, as far as picowatch can see."""
    gpu = PretendedGpu()
    convert = torch.__future__.get_overwrite_module_params_on_conversion()
    # Otherwise a module keeps its parameters' objects, which say where they are.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with (
            patch.multiple(torch.cuda, **_CARD),
            patch(_READERS, _InThisThread),
            patch.dict("picowatch.engine.unet.denoise._EVENTS", cuda=Mock),
            gpu,
        ):
            yield gpu
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(convert)
