"""The bytes that computing takes at once, counted on torch's meta device: storages alive."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Alive(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._sizes: dict[int, int] = {}

    def _gone(self, storage: int, size: int) -> None:
        self.now -= size
        self._sizes.pop(storage, None)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = function(*args, **(kwargs or {}))
        known = {memory._cdata for memory in _storages((args, kwargs))}
        for storage in _storages(made):
            key = storage._cdata
            if key not in known and key not in self._sizes:
                size = self._sizes[key] = storage.nbytes()
                self.now += size
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self._gone, key, size)
        return made


def _storages(tree: Any) -> list[Any]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def most_bytes(compute: Callable[[], object]) -> int:
    with torch.no_grad(), torch.device("meta"), _Alive() as alive:
        compute()
    return int(alive.most)
