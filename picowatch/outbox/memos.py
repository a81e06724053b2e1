"""User requests that no picture records, kept beside the ledger: a line of JSON for each.

Only a rebuilt ledger reads them: pictures name their recipes as these were called when the
pictures were rendered, and nothing else records a pause or what was cancelled.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from picowatch.outbox.listing import JsonLines
from picowatch.save import Stamp


@dataclass
class Recalled:
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

    def apply(self, memo: dict[str, Any]) -> None:
        """Take the next memo into account."""
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
        self._lines = JsonLines(path)

    def note_pause(self, paused: bool) -> None:
        """Rendering is paused, or was resumed."""
        self._lines.append({"paused": paused})

    def note_cancellation(self, stamps: Mapping[str, Stamp]) -> None:
        """The queued images of these recipes' last saves were cancelled."""
        cancelled = [
            {"cancelled": name, "stamp": stamp.as_text()} for name, stamp in stamps.items()
        ]
        self._lines.append(*cancelled)

    def note_rename(self, old: str, new: str, saves: Sequence[str]) -> None:
        """The pictures of these saves belong to the recipe's new name. May be repeated.

        Not durable: it matters only if the ledger is lost in the same power cut.
        """
        if saves:
            self._lines.append({"renamed": old, "to": new, "saves": list(saves)}, durable=False)

    def recall(self) -> Recalled:
        """All of them together."""
        recalled = Recalled()
        for memo in self._lines.all():
            recalled.apply(memo)
        return recalled
