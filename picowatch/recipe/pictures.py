"""The pictures that a recipe names, as the recipe may ask for them: it never opens files itself."""

from collections.abc import Mapping

from picowatch.errors import PictureUnreadable


def as_written(path: str) -> str:
    """A path as a recipe can write it, where a space before a name is not part of the name."""
    return f"./{path}" if path.startswith(" ") else path


class Pictures:
    """Answers questions about the pictures of one recipe, named as the recipe names them.

    What looks at files raises PictureUnreadable if it cannot. These here cannot be looked at.
    `most_pixels` is the limit of `size: picture`: larger pictures are reduced.
    """

    most_pixels = 2_000_000

    def check(self, path: str) -> None:
        """Make sure that a picture can be used; of these, nothing is known to be wrong."""

    def size(self, path: str) -> tuple[int, int]:
        """Width and height of a picture, upright."""
        raise _unreadable()

    def texts(self, path: str) -> Mapping[str, str]:
        """The texts in a picture's metadata, by keyword."""
        raise _unreadable()

    def inside(self, path: str) -> str | None:
        """An absolute path as `inbox/…` or `outbox/…`, None if it leads elsewhere."""
        return None

    def called_here(self, path: str, digest: str, folder: str) -> str:
        """Return the recipe's name of the picture that one in another folder calls by this path.

        It is recognised by its sha256; without a match, the path stays as it is.
        """
        return path


def _unreadable() -> PictureUnreadable:
    return PictureUnreadable("pictures cannot be read here.")


NO_PICTURES = Pictures()
