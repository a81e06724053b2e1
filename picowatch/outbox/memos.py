"""User requests that no picture records, kept beside the ledger: a line of JSON for each.

Only a rebuilt ledger reads them: pictures name their recipes as these were called when
they were made, and nothing else records a pause or what was cancelled.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picowatch.files.atomic import append_durably
from picowatch.save import Stamp


@dataclass
class Asked:
    """The combined result of the memos.

    `cancelled` are recipes with the stamps, as text, of the saves whose rest was cancelled.
    """

    paused: bool = False
    cancelled: dict[str, str] = field(default_factory=dict)
    _renamed: dict[tuple[str, str], str] = field(default_factory=dict)  # recipe, save: new name
    _names: dict[str, str] = field(default_factory=dict)

    def name_now(self, recipe: str, save_digest: str) -> str:
        """What the recipe of a picture is called now."""
        return self._renamed.get((recipe, save_digest), recipe)

    def newest_name(self, recipe: str) -> str:
        """What a recipe of that name was called last."""
        return self._names.get(recipe, recipe)

    def take_in(self, memo: dict[str, Any]) -> None:
        """The next memo."""
        match memo:
            case {"paused": bool(paused)}:
                self.paused = paused
            case {"cancelled": str(recipe), "stamp": str(stamp)}:
                self.cancelled[recipe] = stamp
            case {"renamed": str(old), "to": str(new), "saves": list(saves)}:
                self._rename(old, new, {str(save) for save in saves})

    def _rename(self, old: str, new: str, saves: set[str]) -> None:
        self._renamed |= {
            key: new for key, name in self._renamed.items() if name == old and key[1] in saves
        }
        self._renamed |= {(old, save): new for save in saves}
        self._names |= {name: new for name, last in self._names.items() if last == old}
        self._names[old] = new
        self._names.pop(new, None)
        self.cancelled.pop(new, None)
        if stamp := self.cancelled.pop(old, None):
            self.cancelled[new] = stamp


class Memos:
    """Records requests, and reads them back for a rebuilt ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note_pause(self, paused: bool) -> None:
        """Rendering is paused, or was resumed."""
        self._note({"paused": paused})

    def note_cancellation(self, stamps: Mapping[str, Stamp]) -> None:
        """The queued images of these recipes' last saves were cancelled."""
        self._note(
            *({"cancelled": name, "stamp": stamp.as_text()} for name, stamp in stamps.items())
        )

    def note_rename(self, old: str, new: str, saves: Sequence[str]) -> None:
        """The pictures of these saves belong to the recipe's new name. May be repeated."""
        if saves:
            self._note({"renamed": old, "to": new, "saves": list(saves)}, durable=False)

    def recall(self) -> Asked:
        """All of it together."""
        asked = Asked()
        for memo in self._memos():
            asked.take_in(memo)
        return asked

    def _note(self, *memos: dict[str, Any], durable: bool = True) -> None:
        """Not `durable`: it matters only if the ledger is lost in the same power cut."""
        # The line's end goes first: what a crash left of a line ends there.
        content = "".join(f"\n{json.dumps(memo)}" for memo in memos).encode()
        if durable:
            append_durably(self._path, content)
        else:
            with self._path.open("ab", buffering=0) as file:
                file.write(content)

    def _memos(self) -> Iterator[dict[str, Any]]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                memo = json.loads(line)
            except (ValueError, RecursionError):
                continue  # empty, or torn by a crash
            if isinstance(memo, dict):
                yield memo
