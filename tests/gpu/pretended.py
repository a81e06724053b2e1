"""A pretended CUDA device, as a plugin: `pytest -p tests.gpu.pretended tests/engine/test_edits.py`.

Every renderer computes on it.
Its tensors say that they are on `cuda:0` and are computed on the CPU. An operation that mixes them
with others fails as it would on a card, so this finds what forgets to move a tensor. Waits and
starts of operations are counted, graphs are computed again in the same memory. It says nothing
about a card's arithmetic or speed.

It uses private functions of torch, as torch's own fake tensors do (torch/_subclasses), and works
without inference mode, in which a parameter cannot be such a tensor.
"""

import subprocess
import tempfile
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import torch
import torch._dynamo  # reads what is replaced below
from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, GGUFParameter
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from picowatch.engine.protocol import EngineOptions

CARD = torch.device("cuda", 0)
CPU = torch.device("cpu")
BYTES = int(80e9)
SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]
# Operations between devices; indices may be on the CPU.
MOVING = (
    *("aten::_to_copy", "aten::to", "aten::copy_", "aten::_local_scalar_dense"),
    *("aten::index", "aten::index_put", "aten::index_put_"),
)
# What the processor cannot know before the card has done all that is queued.
ASKING = (
    *("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"),
    *("aten::nonzero", "aten::masked_select"),
)
# What starts nothing, besides views.
EMPTY = ("aten::empty", "aten::empty_strided", "aten::empty_like", "aten::_unsafe_view")
REFUSED = {"waits": "default"}
COUNTS: Counter[str] = Counter()  # of "waits", and of operations that a card would compute
GUARD = """
#include <c10/core/impl/DeviceGuardImplInterface.h>
using Guard = c10::impl::NoOpDeviceGuardImpl<c10::DeviceType::CUDA>;
C10_REGISTER_GUARD_IMPL(CUDA, Guard)
"""


class Memory:
    """`used` counts the bytes of all tensors, `most` those at once, `refused` what had no room."""

    def __init__(self) -> None:
        self.size, self.used, self.most, self.refused = BYTES, 0, 0, 0
        self._held: dict[int, int] = {}

    def hold(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held:
            return
        if self.used + size > self.size:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory: it is pretended.")
        self._held[key] = size
        self.used += size
        self.most = max(self.most, self.used)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.used -= self._held.pop(key)


MEMORY = Memory()


class OnCard(torch.Tensor):
    """A tensor on the card; `held` is what it is computed with."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnCard":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=CARD,
        )
        made.held = held
        MEMORY.hold(held.untyped_storage())
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return computed(operation, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(self.held)

    def __format__(self, how: str) -> str:
        return format(self.held, how)

    def tolist(self) -> Any:
        waits_for_card("tolist")
        return self.held.tolist()

    def item(self) -> Any:
        waits_for_card("item")
        return self.held.item()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy.")

    __array__ = numpy


class PackedOnCard(OnCard, GGUFParameter):  # type: ignore[misc]
    """A matrix of a GGUF file on the card, whose class keeps how it is quantised."""

    @staticmethod
    def __new__(cls, held: torch.Tensor, quant_type: Any) -> Any:
        made: Any = OnCard.__new__(cls, held)
        sizes = GGML_QUANT_SIZES[quant_type]
        made.quant_type = quant_type
        made.quant_shape = (*held.shape[:-1], held.shape[-1] // sizes[1] * sizes[0])
        return made

    def as_tensor(self) -> torch.Tensor:
        return OnCard(self.held)

    @classmethod
    def __torch_function__(cls, called: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            found = called(*args, **(kwargs or {}))
        kind = next(arg.quant_type for arg in args if isinstance(arg, GGUFParameter))
        return GGUFParameter(found, quant_type=kind) if isinstance(found, torch.Tensor) else found


def computed(operation: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """The operation's result, on the device on which a card's would be."""
    name = operation._schema.name
    leaves = tree_leaves((args, kwargs))
    on = [leaf for leaf in leaves if isinstance(leaf, OnCard)]
    off = [
        leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and not isinstance(leaf, OnCard)
    ]
    if on and name not in MOVING and any(tensor.dim() for tensor in off):
        tensors = (leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        found = ", ".join(f"{type(tensor).__name__} {tuple(tensor.shape)}" for tensor in tensors)
        raise RuntimeError(f"Expected all tensors to be on the same device: {name}, {found}")
    devices = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    is_on = devices[0].type == "cuda" if devices else bool(on)
    if name == "aten::copy_":
        is_on = isinstance(args[0], OnCard)
    generator = kwargs.get("generator")
    if is_on and generator is not None and generator.device != CARD:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu': {name}")

    def inner(leaf: Any) -> Any:
        if isinstance(leaf, torch.device):
            return CPU if leaf.type == "cuda" else leaf
        return leaf.held if isinstance(leaf, OnCard) else leaf

    def outer(leaf: Any) -> Any:
        if not is_on or not isinstance(leaf, torch.Tensor):
            return leaf
        for each in on:  # in place
            if each.held is leaf:
                return each
        return OnCard(leaf)

    found = tree_map(outer, operation(*tree_map(inner, args), **tree_map(inner, kwargs)))
    if (name in ASKING and on) or _copies(name, args, kwargs, found) or _by_mask(name, args):
        waits_for_card(name)
    elif is_on and not operation.is_view and name not in EMPTY:
        COUNTS["launches"] += 1
    if Graph.recording and (on or is_on):
        Graph.recording.record(operation, args, kwargs, found)
    return found


def waits_for_card(what: str) -> None:
    """Count that the processor waits until the card has done all that is queued."""
    COUNTS["waits"] += 1
    if Graph.recording or REFUSED["waits"] == "error":
        raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing: {what}")


class Graph:
    """Operations that were recorded, and are computed again in the same memory."""

    recording: "Graph | None" = None
    replayed: "Graph | None" = None

    def __init__(self) -> None:
        self._recorded: list[tuple[Any, Any, Any, list[torch.Tensor]]] = []
        self._pool: object = None

    @classmethod
    @contextmanager
    def record_into(
        cls, graph: "Graph", pool: object, stream: object, capture_error_mode: str
    ) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        graph._pool, cls.recording = pool, graph
        try:
            yield
        finally:
            cls.recording = None

    def record(self, operation: Any, args: Any, kwargs: Any, found: Any) -> None:
        """Keep an operation with its tensors; one in main memory is copied, as it is then."""

        def held(leaf: Any) -> Any:
            if isinstance(leaf, torch.device):
                return CPU if leaf.type == "cuda" else leaf
            if isinstance(leaf, OnCard):
                return leaf.held
            return leaf.clone() if isinstance(leaf, torch.Tensor) else leaf

        given = tree_map(held, (args, kwargs))
        read = {tensor.untyped_storage().data_ptr() for tensor in _tensors(given)}
        written = _tensors(tree_map(held, found))
        if operation._schema.is_mutable:
            written = []
        elif any(tensor.untyped_storage().data_ptr() in read for tensor in written):
            return  # a view
        self._recorded.append((operation, *given, written))

    def replay(self) -> None:
        """Compute it again, in memory that graphs of one pool share."""
        assert self._recorded
        COUNTS["launches"] += 1
        before, Graph.replayed = Graph.replayed, self
        if before and before._pool is self._pool and before is not self:
            for tensor in (tensor for *_, written in before._recorded for tensor in written):
                if tensor.is_floating_point():
                    tensor.fill_(torch.nan)
        for operation, args, kwargs, written in self._recorded:
            again = _tensors(operation(*args, **kwargs))
            for old, new in zip(written, again, strict=bool(written)):
                old.copy_(new)


def _tensors(found: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]


def _copies(name: str, args: Sequence[Any], kwargs: dict[str, Any], found: Any) -> bool:
    """Whether it copies between card and main memory, and waits for it."""
    if name not in ("aten::_to_copy", "aten::to", "aten::copy_"):
        return False
    source, target = (args[1], args[0]) if name == "aten::copy_" else (args[0], found)
    waits = not (kwargs.get("non_blocking") or (name == "aten::copy_" and args[2:] == (True,)))
    return waits and isinstance(source, OnCard) is not isinstance(target, OnCard)


def _by_mask(name: str, args: Sequence[Any]) -> bool:
    """Whether the size of the result depends on what is in a mask."""
    return name == "aten::index" and any(
        isinstance(index, OnCard) and index.dtype is torch.bool for index in args[1]
    )


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Also what makes tensors out of none goes through `computed`."""

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return computed(operation, args, kwargs or {})


class Below(TorchFunctionMode):
    """What torch does below operations: numbers in lists for `torch.tensor`, and `x.data = …`."""

    def __torch_function__(
        self, called: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if called is torch.tensor:
            args = tree_map(lambda leaf: leaf.tolist() if isinstance(leaf, OnCard) else leaf, args)
        if called == SET_DATA:
            tensor, data = args
            new = torch.nn.Parameter(data, requires_grad=False)
            swapped = new if isinstance(tensor, torch.nn.Parameter) else data
            torch.utils.swap_tensors(tensor, swapped)  # type: ignore[no-untyped-call]
            return None
        return called(*args, **(kwargs or {}))


class Done:
    """A stream or an event: everything is done at once."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def on_card(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function, where the card is there."""

    def called(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as stack:
            for mode in (Below(), Operations()):  # type: ignore[no-untyped-call]
                stack.enter_context(mode)
            return call(*args, **kwargs)

    return called


def packed(cls: Any, data: Any, requires_grad: bool = False, quant_type: Any = None) -> Any:
    if isinstance(data, OnCard):
        return PackedOnCard(data.held, quant_type)
    return _packed(cls, data, requires_grad, quant_type)


_packed = GGUFParameter.__new__


def refuse_waits(mode: str) -> None:
    REFUSED.update(waits=mode)
    if mode != "default":
        warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=2)


def install() -> None:
    with tempfile.TemporaryDirectory() as folder:
        torch_folder, library = Path(torch.__file__).parent, f"{folder}/guard.so"
        where = [f"-I{torch_folder}/include", f"-L{torch_folder}/lib"]
        compiler = ["g++", "-shared", "-fPIC", "-std=c++20", "-x", "c++", "-", *where, "-lc10"]
        subprocess.run([*compiler, "-o", library], input=GUARD, text=True, check=True)
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    torch._C._set_only_lift_cpu_tensors(True)
    torch.inference_mode = lambda *_: torch.no_grad()  # type: ignore[assignment,misc]
    torch.Tensor.pin_memory = lambda self, *_: self  # type: ignore[method-assign]
    torch.Tensor.record_stream = lambda *_: None  # type: ignore[method-assign]
    cuda: Any = torch.cuda
    values = {
        "is_available": True,
        "is_initialized": False,
        "is_bf16_supported": True,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "a pretended card",
        "get_device_properties": SimpleNamespace(total_memory=BYTES),
        "current_stream": MagicMock(),
        "stream": nullcontext(),
        **dict.fromkeys(("_lazy_init", "set_device", "empty_cache", "synchronize")),
    }
    for name, value in values.items():
        setattr(cuda, name, lambda *_, value=value, **__: value)
    cuda.mem_get_info = lambda *_: (MEMORY.size - MEMORY.used, MEMORY.size)
    cuda.memory_reserved = cuda.memory_allocated = lambda *_: MEMORY.used
    cuda.max_memory_reserved = lambda *_: MEMORY.most
    cuda.set_sync_debug_mode = refuse_waits
    cuda.CUDAGraph, cuda.graph, cuda.graph_pool_handle = Graph, Graph.record_into, object
    cuda.Event = cuda.Stream = Done
    GGUFParameter.__new__ = packed
    pool: Any = ThreadPoolExecutor
    submit = pool.submit
    pool.submit = lambda self, call, *args, **kwargs: submit(self, on_card(call), *args, **kwargs)


install()

from picowatch.engine.drawing.renderer import Renderer  # noqa: E402  (made for the card that is there)

_init = Renderer.__init__


def _init_on_card(self: Renderer, options: EngineOptions, *more: Any) -> None:
    _init(self, replace(options, device="cuda"), *more)


def _render_all(self: Renderer, *given: Any) -> Iterator[Any]:
    """Render to the end: what is not asked for on the card would be computed elsewhere."""
    return iter([*_render(self, *given)])


_render = Renderer.render
Renderer.__init__ = on_card(_init_on_card)  # type: ignore[method-assign]
Renderer.render = on_card(_render_all)  # type: ignore[method-assign]
