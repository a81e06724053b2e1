"""A save: one saved version of a recipe, as the inbox finds it and the ledger remembers it."""

import time
from dataclasses import dataclass, field
from typing import NamedTuple


class SizeAndTime(NamedTuple):
    """Identifies one version of a file without reading it.

    Compared for inequality only: clocks jump. `sidecars` identifies the versions of the files
    that belong to a dropped picture (prompt, fields, mask); 0 if it has none.
    """

    size: int
    mtime_ns: int
    inode: int
    sidecars: int = 0

    def written_since(self, other: "SizeAndTime") -> bool:
        """Whether it is another version; inodes are not stable everywhere.

        That what lay beside a picture is gone makes no other version of it.
        """
        sidecars = self.sidecars or other.sidecars
        found = self.size, self.mtime_ns, sidecars
        return found != (other.size, other.mtime_ns, other.sidecars)

    def to_be_read_again(self) -> "SizeAndTime":
        """Differs from the file, whatever it is; its size may still tell that it was renamed."""
        return SizeAndTime(self.size, 0, 0, self.sidecars)

    @property
    def is_to_be_read_again(self) -> bool:
        return not (self.mtime_ns or self.inode)

    def as_text(self) -> str:
        """Return the text for the ledger: times and inodes may be larger than SQLite's integers."""
        sidecars = f" {self.sidecars}" if self.sidecars else ""
        return f"{self.size} {self.mtime_ns} {self.inode}{sidecars}"

    @classmethod
    def from_text(cls, text: str) -> "SizeAndTime":
        """The inverse of `as_text`."""
        return cls(*map(int, text.split()))


@dataclass(frozen=True, slots=True)
class Save:
    """One saved version of a recipe.

    `path` is below the inbox, with forward slashes; `digest` the sha256 of the bytes, "" if they
    cannot be read; `saved_at` when it was noticed, in Unix seconds; `folder` identifies the inbox
    that it was seen in; `template` is the sha256 of a dropped picture's template.
    """

    path: str
    digest: str
    size_and_time: SizeAndTime
    folder: str = ""
    template: str = ""
    saved_at: float = field(default_factory=lambda: time.time())


NEVER_READ = SizeAndTime(0, 0, 0)  # differs from all files: the recipe is to be read again


class KnownRecipe(NamedTuple):
    """A recipe whose last save was taken, as the ledger has it."""

    size_and_time: SizeAndTime
    digest: str
    outcome: str = "accepted"
    folder: str = ""
    template: str = ""
    waits_for: str | None = None
    problem: str | None = None
