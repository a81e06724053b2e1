"""Access to the pictures that a recipe names: reading a recipe never opens files itself."""

from collections.abc import Mapping
from datetime import datetime

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import MAX_PHOTO_PIXELS


def as_written(path: str) -> str:
    """Return a path as a recipe can write it, where a leading space is not part of the path."""
    return f"./{path}" if path.startswith(" ") else path


class Pictures:
    """The pictures of one recipe, by the paths that it gives. This class knows no files.

    Subclasses that read files raise PictureUnreadable where they cannot.
    """

    most_pixels = 2_000_000  # of `size: picture`: larger pictures are reduced
    most_photo_pixels = MAX_PHOTO_PIXELS  # of any picture or result

    def check(self, path: str) -> None:
        """Raise PictureUnreadable if a picture cannot be used."""

    def size(self, path: str) -> tuple[int, int]:
        """Width and height of a picture, upright."""
        raise _unreadable()

    def is_transparent(self, path: str) -> bool:
        """Whether anything in a picture is transparent."""
        raise _unreadable()

    def is_photo(self, path: str) -> bool:
        """Whether a picture was taken by a camera, as far as one can tell."""
        return False

    def taken(self, path: str) -> datetime:
        """When a picture was taken, or else when its file was changed last."""
        raise _unreadable()

    def texts(self, path: str) -> Mapping[str, str]:
        """The texts in a picture's metadata, by keyword."""
        raise _unreadable()

    def inside(self, path: str) -> str | None:
        """Return an absolute path as `inbox/…` or `outbox/…`, None if it leads elsewhere."""
        return None

    def beside(self, file: str, path: str) -> str:
        """Return the path of a picture that a file names, which may lie above the recipe."""
        return path

    def called_here(self, path: str, digest: str, folder: str) -> str:
        """Return this recipe's path to the picture that a recipe in `folder` calls `path`.

        The picture is recognised by its sha256; without a match, the path stays as it is.
        """
        return path


def _unreadable() -> PictureUnreadable:
    return PictureUnreadable("pictures cannot be read here.")


NO_PICTURES = Pictures()
