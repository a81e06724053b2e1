"""A pretended GPU: tensors with real values that say they are on a card; it counts what is slow.

Their values are the CPU's, so pictures come out as on the CPU. What a real card refuses (tensors of
both sides in one operation, a CPU's generator for a card's noise) is collected in `mixed`; what
makes the CPU wait for a card is collected in `waits`, copies to the card that wait for what is
queued there in `uploads`, and copies from it that do not in `downloads`: their bytes are there once
an event that was recorded after them has happened, and not before. `loads` counts how often what is
at an address went there.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

DEVICE = torch.device("cuda:0")
CPU = torch.device("cpu")


class OnCard(torch.Tensor):
    """A tensor whose values are in the computer's memory, and which says it is on a card."""

    def __new__(cls, data: torch.Tensor, requires_grad: bool = False) -> Any:
        """As accelerate recreates weights, by the class of those that were there.

        On a real card that is a parameter's, wherever it is.
        """
        return data if _is_there(data) else torch.nn.Parameter(data, requires_grad)

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
_SET_DATA: Any = vars(torch._C.TensorBase)["data"].__set__
_GET_DEVICE: Any = vars(torch._C.TensorBase)["device"].__get__
# What gives Python a value, and so waits until the card has computed it.
_READS = {
    Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__bool__, Tensor.__float__, Tensor.__int__,
    Tensor.__index__, Tensor.__array__, Tensor.nonzero, torch.nonzero, torch.equal, Tensor.equal,
    torch.allclose, torch.linalg.solve, torch.masked_select, Tensor.__array_wrap__, Tensor.unique,
    torch.unique, Tensor.__contains__,
}  # fmt: skip
_ASKS = {torch._has_compatible_shallow_copy_type}
_MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}
_WRITES = {Tensor.copy_, Tensor.set_, Tensor.type_as, Tensor.__setitem__}


class PretendedGpu(TorchFunctionMode):
    """While it is entered, torch has one card; see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.uploads: list[str] = []
        self.downloads: list[str] = []
        self.mixed: list[str] = []
        self.loads: Counter[int] = Counter()
        self.happens_after = 0  # how often an event is asked before it has happened
        self._on_their_way: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [*_tensors_in(args), *_tensors_in(tuple(kwargs.values()))]
        there = any(map(_is_there, tensors))
        if func is Tensor.pin_memory:  # needs a real card
            return args[0]
        kwargs.pop("pin_memory", None)
        if func == _SET_DATA:
            return _move_in_place(*args)
        if func == _GET_DEVICE and there:
            return DEVICE
        if func is Tensor.copy_ and there and not _is_there(args[0]):
            return self._copied_here(*args[:2], **kwargs)
        if func in _MOVES:
            return self._moved(func, args, kwargs, there)
        if there and func in _READS:
            self.waits.append(_where(func))
            return func(*_map(_plain, args), **_map(_plain, kwargs))
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = _as_cpu(wanted)
            there = torch.device(wanted).type == "cuda"
            if (there and func is torch.tensor) or func is torch.as_tensor:
                self.uploads.append(_where(func))
            generator = kwargs.get("generator")
            if there and generator is not None and generator.device.type == "cpu":
                self.mixed.append(_where(func))
        elif there and func not in (*_WRITES, *_ASKS) and any(map(_is_here, tensors)):
            self.mixed.append(_where(func))
        result = func(*_map(_plain, args), **_map(_plain, kwargs))
        return _map(_on_card, result) if there else result

    def _copied_here(self, here: Tensor, there: Tensor, non_blocking: bool = False) -> Tensor:
        """A copy to the computer's memory."""
        value = _plain(there).clone()
        if not non_blocking:
            self.waits.append(_where(Tensor.copy_))
            return Tensor.copy_(here, value)
        self.downloads.append(_where(Tensor.copy_))
        self._on_their_way.append((here, value))
        return here

    def take_copies(self) -> list[tuple[Tensor, Tensor]]:
        """The copies since the last call."""
        taken, self._on_their_way = self._on_their_way, []
        return taken

    def _moved(self, func: Any, args: Any, kwargs: dict[str, Any], there: bool) -> Any:
        """`to`, `cpu` or `cuda` of a tensor."""
        if func is Tensor.to:
            wanted = _device_in(args[1:], kwargs)
        else:
            wanted = CPU if func is Tensor.cpu else DEVICE
        goes = there if wanted is None else wanted.type == "cuda"
        if there and not goes:
            self.waits.append(_where(func))
        if goes and not there:
            self.loads[args[0].data_ptr()] += 1
            if not kwargs.get("non_blocking"):
                self.uploads.append(_where(func))
        if func is Tensor.to:
            rest = _map(_as_cpu, args[1:])
            result = Tensor.to(_plain(args[0]), *rest, **_map(_as_cpu, kwargs))
        else:
            result = _plain(args[0])
        return _on_card(result) if goes else result


class _Event:
    """Happens when it is waited for, or asked often enough; what was copied before it is there."""

    gpu: ClassVar[PretendedGpu]

    def __init__(self, *_: Any, **__: Any) -> None:
        self._copies: list[tuple[Tensor, Tensor]] = []
        self._asked = 0

    def record(self, *_: Any) -> None:
        self._copies = self.gpu.take_copies()

    def synchronize(self) -> None:
        for here, value in self._copies:
            Tensor.copy_(here, value)
        self._copies = []

    def query(self) -> bool:
        self._asked += 1
        if self._asked <= self.gpu.happens_after:
            return False
        self.synchronize()
        return True

    def elapsed_time(self, _: "_Event") -> float:
        return 1.0


def _move_in_place(weight: Tensor, value: Tensor) -> None:
    """`weight.data = value`: the same object is on the other side from now on."""
    weight._is_on_card = _is_there(value)  # type: ignore[attr-defined]
    _SET_DATA(weight, _plain(value))


def _is_there(tensor: Tensor) -> bool:
    return getattr(tensor, "_is_on_card", isinstance(tensor, OnCard))


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
    if not isinstance(value, torch.device | str):
        return value
    return CPU if torch.device(value).type == "cuda" else value


def _is_here(tensor: Tensor) -> bool:
    """Whether a card refuses it: single numbers are passed to it with the operation."""
    return not _is_there(tensor) and bool(tensor.ndim)


def _tensors_in(values: Any) -> Iterator[Tensor]:
    for each in values:
        if isinstance(each, Tensor):
            yield each
        elif isinstance(each, tuple | list):
            yield from _tensors_in(each)


def _map(function: Callable[[Any], Any], value: Any) -> Any:
    """`function` of each value in tuples, lists and dicts, in less time than torch's tree_map."""
    if type(value) in (tuple, list):
        return type(value)([_map(function, each) for each in value])
    if type(value) is dict:
        return {key: _map(function, each) for key, each in value.items()}
    return tree_map(function, value) if isinstance(value, tuple) else function(value)


def _plain(value: Any) -> Any:
    return value.as_subclass(Tensor) if isinstance(value, OnCard) else value


def _on_card(value: Any) -> Any:
    return value.as_subclass(OnCard) if isinstance(value, Tensor) else value


def _where(func: Any) -> str:
    """The operation, and the line of picowatch or of a library that called it."""
    frame = sys._getframe(1)
    while any(skipped in frame.f_code.co_filename for skipped in ("/tests/", "/torch/")):
        assert frame.f_back
        frame = frame.f_back
    file = frame.f_code.co_filename.split("site-packages/")[-1]
    return f"{getattr(func, '__name__', func)} in {file}:{frame.f_lineno}"


_STREAM = SimpleNamespace(wait_stream=lambda _: None, synchronize=lambda: None)
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
    "Event": _Event,
    "Stream": lambda *_, **__: _STREAM,
    "stream": lambda _: nullcontext(),
    "current_stream": lambda *_: _STREAM,
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
            patch.dict("picowatch.engine.unet.denoise._EVENTS", cuda=_Event),
            patch.object(_Event, "gpu", gpu, create=True),
            gpu,
        ):
            yield gpu
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(convert)
