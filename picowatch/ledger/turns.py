"""Turns: the order of the inbox's folders, so that none of them waits for all images of another.

A folder's next batch has a start in a time of its own, which a batch moves on by 1, or by less for
a folder with a larger share. The folder with the earliest start is next. Who comes back after a
rest starts now, so that nobody saves turns up. This is start-time fair queueing (Goyal, Vin and
Cheng 1996). Only memory has it: after a start of picowatch all folders are equal.
"""

from collections.abc import Mapping
from math import ceil, floor
from types import MappingProxyType


class Turns:
    """Whose turn it is among folders at the inbox's first level; the inbox itself is ""."""

    def __init__(self, shares: Mapping[str, float] = MappingProxyType({})) -> None:
        self._shares = shares
        self._starts: dict[str, float] = {}
        self._now = 0.0

    def start(self, folder: str) -> float:
        """Return when the folder's next batch starts; the earliest is next."""
        return max(self._now, self._starts.get(folder, 0.0))

    def take(self, folder: str, next_one: str) -> None:
        """Record a batch of a folder, when another may have been the next one."""
        self._now = self.start(next_one)
        starts = {**self._starts, folder: self.start(folder) + 1 / self.share(folder)}
        self._starts = {name: start for name, start in starts.items() if start > self._now}

    def share(self, folder: str) -> float:
        return self._shares.get(folder, 1.0)

    def before(self, folder: str, place: int, other: str, *, is_next: bool) -> int:
        """Return how many images of another folder come before a folder's image at a place.

        Places count from 0. `is_next`: the other folder comes first where both are equal.
        """
        turns = place / self.share(folder) * self.share(other)
        return floor(turns) + 1 if is_next else ceil(turns)
