"""The templates for dropped pictures: which of them may be used, and which pictures need them."""

from collections.abc import Set
from pathlib import Path

from picowatch.inbox.dropped import template_above
from picowatch.inbox.names import PICTURES_NAME, is_dropped


class Templates:
    """All that were seen, those that are refused, and the pictures without a request.

    `released` are folders in which one is right again, until somebody has looked at them.
    """

    def __init__(self, digests: dict[str, str]) -> None:
        """The digests of those that were answered, by path."""
        self._digests = digests
        self._refused: set[str] = set()
        self.released: set[str] = set()
        self._without_request: dict[str, set[str]] = {}  # pictures, by template

    def remember(self, template: str, digest: str) -> None:
        """This version of it was seen."""
        self._digests[template] = digest

    def refuse(self, template: str) -> None:
        """Nothing under it is answered until it is released."""
        self._refused.add(template)

    def release(self, template: str) -> Set[str]:
        """It is right; the pictures that had no request under it."""
        self._refused.discard(template)
        self.released.add(template.rpartition("/")[0])
        return self._without_request.pop(template, set())

    def has_no_request(self, picture: str, template: str) -> None:
        """There will be one when the template is saved."""
        self._without_request.setdefault(template, set()).add(picture)

    def has_request(self, picture: str) -> None:
        """It is answered."""
        for pictures in self._without_request.values():
            pictures.discard(picture)

    def refuses(self, root: Path, path: str) -> bool:
        """Whether it is a picture under a refused template."""
        return (
            bool(self._refused) and is_dropped(path) and template_above(root, path) in self._refused
        )

    def digest_above(self, path: str) -> str | None:
        """Of the nearest one above a path, as far as any was seen."""
        folder = path.rpartition("/")[0]
        while folder:
            digest = self._digests.get(f"{folder}/{PICTURES_NAME}")
            if digest is not None:
                return digest
            folder = folder.rpartition("/")[0]
        return None
