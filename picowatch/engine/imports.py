"""Imports diffusers and transformers without what no picture needs: half of the engine's start.

Many of their packages import everything in their folder, or look through it, as soon as one module
in it is imported. Here a package's `__init__` is postponed until somebody takes a name from it that
is not in a module's own name; its modules can be imported without. Nothing is left out: whoever
needs more, as the flow families do, has it imported then.

torch's compiler is not imported for the sake of decorators that only it reads: the engine's process
compiles nothing. It belongs to no group of processes, so
torch.distributed is called unavailable, whose tensors alone take half a second.
"""

import importlib.metadata
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# Each postponed package, and the module of each name that is taken from it in every start.
_POSTPONED: dict[str, dict[str, str]] = {
    "diffusers.models.autoencoders": {},
    "diffusers.models.transformers": {},
    "diffusers.models.unets": {},
    "transformers": {
        "AutoImageProcessor": "",
        "CLIPTextConfig": "transformers.models.clip.configuration_clip",
        "CLIPTextModel": "transformers.models.clip.modeling_clip",
        "CLIPTextModelWithProjection": "transformers.models.clip.modeling_clip",
        "CLIPTokenizer": "transformers.models.clip.tokenization_clip",
        "PreTrainedModel": "transformers.modeling_utils",
    },
    "transformers.models": {},
    "requests": {},
}
# What needs huggingface_hub's client of its website, which no engine does.
_ONLINE = {
    *("CommitOperationAdd", "Discussion", "HfApi", "ModelCard", "ModelCardData"),
    *("ResolvedRevision", "create_repo", "get_repo_discussions", "model_info"),
    *("resolve_revision", "snapshot_download", "upload_folder"),
}
# What decorates functions and classes while they are imported, for torch's compiler.
_DECORATORS = ("allow_in_graph", "assume_constant_result", "disable")
_COMPILER = "torch._dynamo"


@contextmanager
def postponed_packages() -> Iterator[None]:
    """Import diffusers and transformers in here, once, for what every start needs."""
    sys.meta_path.insert(0, _Finder())
    # Both walk through all that is installed.
    importlib.metadata.packages_distributions = cache(importlib.metadata.packages_distributions)
    # There are builds of torch without it, so every library asks first.
    torch.distributed.is_available = lambda: False
    compiler = ModuleType(_COMPILER)
    compiler.__path__ = [str(Path(torch.__file__).parent / "_dynamo")]  # for its modules
    for name in _DECORATORS:
        setattr(compiler, name, _undecorated)
    sys.modules.setdefault(_COMPILER, compiler)
    hub: Any = import_module("huggingface_hub")
    name_of_hub = hub.__getattr__
    hub.__getattr__ = lambda name: (
        _Later(partial(name_of_hub, name)) if name in _ONLINE else name_of_hub(name)
    )
    # It imports the whole package a second time, to know its names.
    utils: Any = import_module("transformers.utils")
    utils.direct_transformers_import = lambda path: sys.modules["transformers"]
    try:
        yield
    finally:
        hub.__getattr__ = name_of_hub
        if sys.modules[_COMPILER] is compiler:
            del sys.modules[_COMPILER]  # who asks for it from now on gets it


def _undecorated(decorated: Any = None, *_: Any, **__: Any) -> Any:
    """Stands for a decorator, with arguments or without."""
    return _undecorated if decorated is None else decorated


class _Finder(MetaPathFinder):
    """Finds postponed packages where they are, and lets them be loaded later."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        own = PathFinder.find_spec(fullname, path) if fullname in _POSTPONED else None
        if own is None:
            return None
        loader = _Postponed(own, _POSTPONED[fullname])
        spec = ModuleSpec(fullname, loader, origin=own.origin, is_package=True)
        spec.submodule_search_locations = own.submodule_search_locations
        spec.has_location = True
        return spec


class _Postponed(Loader):
    """Runs a package's `__init__` once a name is taken from it that has no known module."""

    def __init__(self, spec: ModuleSpec, modules: Mapping[str, str]) -> None:
        self._spec = spec
        self._modules = modules
        self._lock = threading.RLock()

    def exec_module(self, module: ModuleType) -> None:
        """Nothing but prepare for the first name."""
        module.__dict__["__getattr__"] = partial(self._attribute, module)

    def _attribute(self, package: ModuleType, name: str) -> Any:
        """What `from package import name` gives."""
        if name == "__version__":
            return importlib.metadata.version(package.__name__)
        if name.startswith("__"):
            raise AttributeError(name)
        if (place := self._modules.get(name)) is not None:
            if not place:
                return _Later(partial(self._from_init, package, name))
            return getattr(import_module(place), name)
        module = f"{package.__name__}.{name}"
        if PathFinder.find_spec(module, package.__path__):
            return import_module(module)
        return self._from_init(package, name)

    def _from_init(self, package: ModuleType, name: str) -> Any:
        with self._lock:
            if package.__spec__ is not self._spec:
                self._run(package)
        return getattr(sys.modules[package.__name__], name)

    def _run(self, package: ModuleType) -> None:
        del package.__dict__["__getattr__"]
        package.__spec__ = self._spec
        assert self._spec.loader is not None
        self._spec.loader.exec_module(package)
        now = sys.modules[package.__name__]
        if now is not package:  # some put another module in their own place
            package.__dict__["__getattr__"] = partial(getattr, now)


class _Later:
    """Stands for a class or function that is named in every start, and used in hardly any."""

    def __init__(self, get: Callable[[], Any]) -> None:
        self._get = get

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get(), name)

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self._get()(*positional, **named)

    def __or__(self, other: Any) -> Any:
        """In a type hint, which nobody reads."""
        return Any

    __ror__ = __or__
