"""The pictures that a recipe names, as the recipe may ask for them: it never opens files itself."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from picowatch.errors import PictureUnreadable


def is_pattern(path: str) -> bool:
    """Whether a path may stand for several pictures."""
    return "*" in path or "?" in path


def as_written(path: str) -> str:
    """A path as a recipe can write it, where a space before a name is not part of the name."""
    return f"./{path}" if path.startswith(" ") else path


class Pictures(Protocol):
    """Answers questions about the pictures of one recipe, named as the recipe names them.

    What looks at files raises PictureUnreadable if it cannot.
    """

    def matches(self, pattern: str) -> Sequence[str]:
        """The pictures that a pattern like `frames/*.png` stands for, in natural order."""
        ...

    def check(self, path: str) -> None:
        """Make sure that a picture can be used."""
        ...

    def size(self, path: str) -> tuple[int, int]:
        """Width and height of a picture, upright."""
        ...

    def texts(self, path: str) -> Mapping[str, str]:
        """The texts in a picture's metadata, by keyword."""
        ...

    def inside(self, path: str) -> str | None:
        """An absolute path as `inbox/…` or `outbox/…`, None if it leads elsewhere."""
        ...

    def called_here(self, path: str, digest: str, folder: str) -> str:
        """What the recipe calls the picture that one in another folder calls by this path.

        It is recognised by its sha256; without a match, the path stays as it is.
        """
        ...

    @property
    def most_pixels(self) -> int:
        """The limit of `size: picture`: larger pictures are reduced."""
        ...


class NoPictures:
    """Where pictures cannot be looked at."""

    most_pixels = 2_000_000

    def matches(self, pattern: str) -> Sequence[str]:
        raise PictureUnreadable("pictures cannot be read here.")

    def check(self, path: str) -> None:
        """Nothing is known to be wrong with it."""

    def size(self, path: str) -> tuple[int, int]:
        raise PictureUnreadable("pictures cannot be read here.")

    def texts(self, path: str) -> Mapping[str, str]:
        raise PictureUnreadable("pictures cannot be read here.")

    def inside(self, path: str) -> str | None:
        return None

    def called_here(self, path: str, digest: str, folder: str) -> str:
        return path


NO_PICTURES = NoPictures()
