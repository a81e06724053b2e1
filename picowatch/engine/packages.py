"""Packages of AOTInductor, code without weights: opened by torch, or for several threads at once.

Weights are lent, so that all packages of a checkpoint compute with the same ones.
"""

import ctypes
import tempfile
import weakref
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch._C import _aoti


class Package(Protocol):
    """Compiled code; `weights` names the weights it computes with."""

    @property
    def weights(self) -> frozenset[str]: ...

    def lend(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Compute with these from now on; whoever lends them keeps them."""
        ...

    def run(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """What it computes from these inputs."""
        ...


class TorchPackage:
    """A package as torch opens it, for every device; it holds Python's lock while it runs."""

    def __init__(self, file: Path) -> None:
        # What torch._inductor.aoti_load_package wraps; to import that takes over a second.
        self._loader = _aoti.AOTIModelPackageLoader(str(file), "model", False, 1, -1)
        self.weights = frozenset(self._loader.get_constant_fqns())

    def lend(self, weights: Mapping[str, torch.Tensor]) -> None:
        """See `Package`."""
        views = {name: _without_owner(weight) for name, weight in weights.items()}
        self._loader.load_constants(
            views, use_inactive=False, check_full_update=False, user_managed=True
        )

    def run(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `Package`."""
        return self._loader.run(list(inputs))[0]


class ThreadedPackage:
    """A package for a CPU that so many threads may run at once.

    It calls what the package's library exports, and ctypes gives Python's lock away meanwhile.
    The functions are those of torch/csrc/inductor/aoti_runtime/interface.h. Raises AttributeError
    where torch is a version that lacks one of them.
    """

    def __init__(self, file: Path, threads: int) -> None:
        self._library = _library(file)
        self._container = ctypes.c_void_p()
        self._call("CreateWithDevice", ctypes.byref(self._container), threads, b"cpu", None)
        delete = self._library.AOTInductorModelContainerDelete
        weakref.finalize(self, delete, self._container).atexit = False
        self._names = self._names_inside()
        self.weights = frozenset(self._names)

    def lend(self, weights: Mapping[str, torch.Tensor]) -> None:
        """See `Package`."""
        views = [_without_owner(weight) for weight in weights.values()]
        entries = (_Entry * len(views))(
            *(
                _Entry(self._names[name], handle)
                for name, handle in zip(weights, _handles(views), strict=True)
            )
        )
        self._call(
            "UpdateUserManagedConstantBufferPairs",
            self._container,
            entries,
            len(entries),
            False,
            False,
        )
        for entry in entries:  # the package has handles of its own
            _tensor_of(entry.handle)

    def run(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """See `Package`."""
        given = (ctypes.c_void_p * len(inputs))(*_handles(inputs))  # `Run` takes them over
        result = (ctypes.c_void_p * 1)()
        self._call("Run", self._container, given, len(given), result, 1, None, None)
        return _tensor_of(result[0])

    def _names_inside(self) -> dict[str, bytes]:
        """What the package itself calls each weight, by the weight's name."""
        count, inside, name = ctypes.c_size_t(), ctypes.c_char_p(), ctypes.c_char_p()
        self._call("GetNumConstants", self._container, ctypes.byref(count))
        names = {}
        for place in range(count.value):
            self._call("GetConstantName", self._container, place, ctypes.byref(inside))
            self._call("GetConstantOriginalFQN", self._container, place, ctypes.byref(name))
            assert inside.value is not None and name.value is not None
            names[name.value.decode()] = inside.value
        return names

    def _call(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, f"AOTInductorModelContainer{name}")(*arguments):
            said = ctypes.c_char_p()
            self._library.AOTInductorGetLastError(ctypes.byref(said))
            words = (said.value or b"").decode(errors="replace")
            raise RuntimeError(f"the compiled UNet failed: {words or name}")


class _Entry(ctypes.Structure):
    """AOTInductorConstantMapEntry."""

    _fields_ = (("name", ctypes.c_char_p), ("handle", ctypes.c_void_p))


_CONTAINER, _HANDLES, _SIZE = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t
_TEXT = ctypes.POINTER(ctypes.c_char_p)
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "AOTInductorGetLastError": (_TEXT,),
    "AOTInductorModelContainerCreateWithDevice": (
        _HANDLES,
        _SIZE,
        ctypes.c_char_p,
        ctypes.c_char_p,
    ),
    "AOTInductorModelContainerDelete": (_CONTAINER,),
    "AOTInductorModelContainerGetNumConstants": (_CONTAINER, ctypes.POINTER(_SIZE)),
    "AOTInductorModelContainerGetConstantName": (_CONTAINER, _SIZE, _TEXT),
    "AOTInductorModelContainerGetConstantOriginalFQN": (_CONTAINER, _SIZE, _TEXT),
    "AOTInductorModelContainerUpdateUserManagedConstantBufferPairs": (
        _CONTAINER,
        ctypes.POINTER(_Entry),
        _SIZE,
        ctypes.c_bool,
        ctypes.c_bool,
    ),
    "AOTInductorModelContainerRun": (
        _CONTAINER,
        _HANDLES,
        _SIZE,
        _HANDLES,
        _SIZE,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ),
}


@cache
def _library(file: Path) -> ctypes.CDLL:
    """The package's library; it stays open, for what ran in it may have left threads there."""
    with (
        tempfile.TemporaryDirectory(dir=file.parent, prefix="work-") as folder,
        zipfile.ZipFile(file) as packed,
    ):
        [member] = (name for name in packed.namelist() if name.endswith(".so"))
        library = ctypes.CDLL(packed.extract(member, folder))
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, ctypes.c_int32
    return library


def _without_owner(weight: torch.Tensor) -> torch.Tensor:
    """The same weight in the same memory, which it does not keep alive.

    A package never lets go of the tensors that it was lent: of torch 2.13,
    MaybeOwningAtenTensorHandle makes a handle in aoti_runtime/utils.h that nobody deletes.
    """
    storage = weight.untyped_storage()
    view: Any = torch._C._construct_storage_from_data_pointer(
        storage.data_ptr(), weight.device, storage.nbytes()
    )
    empty = torch.empty(0, dtype=weight.dtype, device=weight.device)
    return empty.set_(view, weight.storage_offset(), weight.shape, weight.stride())


_pointer_in: Any = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype, _pointer_in.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
_capsule_of: Any = ctypes.pythonapi.PyCapsule_New
_capsule_of.restype = ctypes.py_object
_capsule_of.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


def _handles(tensors: Sequence[torch.Tensor]) -> list[int]:
    """An AtenTensorHandle for each, which belongs to the caller."""
    capsules = _aoti.unsafe_alloc_void_ptrs_from_tensors(list(tensors))
    return [_pointer_in(capsule, None) for capsule in capsules]


def _tensor_of(handle: int | None) -> torch.Tensor:
    """The tensor of an AtenTensorHandle, which is taken over."""
    return _aoti.alloc_tensor_by_stealing_from_void_ptr(_capsule_of(handle, None, None))
