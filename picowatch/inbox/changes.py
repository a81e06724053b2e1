"""What the inbox reports: that a recipe was saved, deleted or renamed, or cannot be read."""

from collections.abc import Sequence
from dataclasses import dataclass

from picowatch.recipe import DefaultsFile, Dropped
from picowatch.save import SizeAndTime


@dataclass(frozen=True, slots=True)
class Saved:
    """A recipe was saved: its path below the inbox, its bytes, and their sha256, size and time.

    `defaults` are the `_defaults.yaml` that hold for it; `defaults_unreadable` says in a sentence
    why one of them cannot be read, where a recipe was renamed. For a `dropped` picture `content` is
    empty; `unreadable` says why it is no picture, and `template` is the sha256 of its template.
    `is_again`: picture and the files beside it are those of the save before.
    """

    path: str
    content: bytes
    digest: str
    size_and_time: SizeAndTime
    defaults: Sequence[DefaultsFile] = ()
    defaults_unreadable: str = ""
    dropped: Dropped | None = None
    template: str = ""
    unreadable: str = ""
    is_again: bool = False


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A recipe or its defaults exist but cannot be read; `why` is a text for people."""

    path: str
    size_and_time: SizeAndTime
    why: str


@dataclass(frozen=True, slots=True)
class Deleted:
    """A recipe was deleted."""

    path: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A recipe's file is at another path now; `saved` is what it holds: the same bytes."""

    old: str
    saved: Saved

    @property
    def path(self) -> str:
        """Where it is now."""
        return self.saved.path

    @property
    def size_and_time(self) -> SizeAndTime:
        """Size and time of the file where it is now."""
        return self.saved.size_and_time


Change = Saved | Unreadable | Deleted | Renamed
