"""What the inbox reports: that a recipe was saved, perhaps under another name, or deleted."""

from collections.abc import Sequence
from dataclasses import dataclass

from picowatch.recipe import DefaultsFile, Dropped
from picowatch.save import Save


@dataclass(frozen=True, slots=True)
class Saved(Save):
    """A save, with all that is read together with it.

    `defaults` are the `_defaults.yaml` that hold for it. `unreadable` says why it, or one of these,
    cannot be read. `old` is the path of a recipe that was renamed. For a `dropped` picture
    `content` is empty; `damage` says why it is no picture. `is_again`: picture and the files beside
    it are those of the save before.
    """

    content: bytes = b""
    defaults: Sequence[DefaultsFile] = ()
    unreadable: str = ""
    old: str = ""
    dropped: Dropped | None = None
    damage: str = ""
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Deleted:
    """A recipe was deleted."""

    path: str


Change = Saved | Deleted
