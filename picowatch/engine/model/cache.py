"""Keeps what was read from files, or computed from texts, while memory has room for it."""

import gc
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from picowatch.engine.model.memory import WORKING_BYTES

Key = tuple[Hashable, ...]  # begins with a word for the kind of its value

TEXT_BYTES = 2**28  # each text takes up to ten megabytes


class Entry(NamedTuple):
    """A value, and the bytes that it takes on the device and in main memory."""

    value: Any
    device: int
    main: int


@dataclass(eq=False)
class Cache:
    """Values by key. What was used longest ago leaves first when something needs its memory."""

    _free: Callable[[], tuple[int, int]]  # bytes on the device and in main memory
    _give_back: Callable[[], None]  # returns what was released to the device
    is_shared: bool = False  # the device computes in main memory
    _entries: OrderedDict[Key, Entry] = field(default_factory=OrderedDict)  # the last used last
    _pinned: set[Key] = field(default_factory=set)

    def get(self, key: Key) -> Any:
        """Return a value, which is used now, or None."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key].value

    def put(self, key: Key, value: Any, device: int = 0, main: int = 0) -> None:
        """Keep a value of so many bytes; `make_room` comes before it is read."""
        self._entries[key] = Entry(value, device, main)
        self._entries.move_to_end(key)

    def encoded(self, key: Key, encode: Callable[[], Any]) -> Any:
        """Return what a text was encoded to, or encode it; the last TEXT_BYTES of texts stay."""
        value = self.get(key)
        if value is None:
            value = encode()
            tensors = [*_tensors_in(value)]
            main = sum(tensor.nbytes for tensor in tensors if tensor.device.type == "cpu")
            self.put(key, value, sum(tensor.nbytes for tensor in tensors) - main, main)
            room = TEXT_BYTES
            for text in reversed(self.keys("text")):
                room -= sum(self._entries[text][1:])
                if room < 0:
                    del self._entries[text]
        return value

    def drop(self, key: Key) -> Any:
        """Forget a value and return it, None if there is none."""
        entry = self._entries.pop(key, None)
        return entry and entry.value

    def keys(self, kind: str) -> list[Key]:
        """Return the keys that begin with this word, the last used last."""
        return [key for key in self._entries if key[0] == kind]

    def values(self, kind: str) -> list[Any]:
        """Return the values whose keys begin with this word, the last used last."""
        return [entry.value for key, entry in self._entries.items() if key[0] == kind]

    @contextmanager
    def pinned(self, key: Key) -> Iterator[None]:
        """Keep a value meanwhile, whatever needs its memory: it is in use."""
        self._pinned.add(key)
        try:
            yield
        finally:
            self._pinned.discard(key)

    def keep_only(self, keep: Collection[Key]) -> bool:
        """Forget whatever is on the device, but for these; return whether that makes much room."""
        keep = {*keep, *self._pinned}
        others = [key for key, entry in self._entries.items() if entry.device and key not in keep]
        for key in others:
            del self._entries[key]
        if others:
            self.give_back()
        return any(key[0] != "text" for key in others)

    def make_room(self, device: int = 0, main: int = 0, keep: Collection[Key] = ()) -> None:
        """Forget values until so many bytes are free, or none is left but for `keep`."""
        keep = {*keep, *self._pinned}
        while True:
            on_device, in_main = self._free()
            short = on_device < device, in_main < main + WORKING_BYTES * bool(main)
            if self.is_shared:
                short = (any(short),) * 2
            leaving = [
                key
                for key, entry in self._entries.items()
                if key not in keep and ((short[0] and entry.device) or (short[1] and entry.main))
            ]
            if not leaving:
                return
            del self._entries[leaving[0]]
            self.give_back()

    def give_back(self) -> None:
        """Return the memory of what was forgotten to the device."""
        gc.collect()  # modules refer to each other
        self._give_back()


def _tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in tuples, lists and mappings.

    torch's own walk takes subclasses that it does not know, as BatchFeature, for values.
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors_in(part)
