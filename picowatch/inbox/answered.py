"""The recipes whose last save was answered, as the ledger has them and as the inbox saw them."""

import json
from collections.abc import KeysView, Mapping, Set

from picowatch.save import KnownRecipe, Stamp


class AnsweredRecipes:
    """By path and by digest.

    `seen_here` are those that were seen in the very folder that is the inbox now. Only their
    absence means deletion. Elsewhere the inbox may just not be mounted.
    """

    def __init__(self, known: Mapping[str, KnownRecipe]) -> None:
        self._known: dict[str, KnownRecipe] = {}
        self._paths_by_digest: dict[str, set[str]] = {}
        self._in_any_case: dict[str, str] = {}
        for path, one in known.items():
            self._put(path, one)
        self.seen_here: set[str] = set()

    def __contains__(self, path: str) -> bool:
        return path in self._known

    def get(self, path: str) -> KnownRecipe | None:
        """How a recipe was answered, if it was."""
        return self._known.get(path)

    def paths(self) -> KeysView[str]:
        """All of them."""
        return self._known.keys()

    def with_digest(self, digest: str) -> list[str]:
        """Those that have these bytes, and may be renamed."""
        return sorted(self._paths_by_digest.get(digest, ()))

    def spelled_otherwise(self, path: str) -> str | None:
        """The known path that differs from this unknown one in case alone, if any."""
        return None if path in self._known else self._in_any_case.get(path.casefold())

    def remember(self, path: str, stamp: Stamp, digest: str) -> None:
        """This version of it, which is here, is answered. The digest of an unreadable one is ""."""
        self._put(path, KnownRecipe(stamp, digest))
        self.seen_here.add(path)

    def hold(self, path: str) -> None:
        """It was not answered after all: any version of it is a new one."""
        self._put(path, KnownRecipe(Stamp(0, 0, 0), ""))

    def forget(self, path: str) -> None:
        """It is gone from the inbox."""
        self._drop(path)
        self.seen_here.discard(path)

    def follow_no_rename(self, path: str) -> None:
        """Its bytes under another name are another recipe, unless it is answered again."""
        known = self._known.get(path)
        if known is not None:
            self._forget_bytes(path, known)

    def see(self, found: Set[str]) -> None:
        """These files are in the folder that is the inbox now."""
        self.seen_here.update(self._known.keys() & found)

    def see_as_before(self, last_seen: str, inode: int | None) -> None:
        """What was seen before the last end, if the folder is the same; `last_seen` says it."""
        inode_then, elsewhere = json.loads(last_seen)
        if inode_then == inode:
            self.seen_here = self._known.keys() - elsewhere

    def last_seen(self, inode: int, unchecked: Set[str]) -> str:
        """For the next start: JSON of the folder's inode and the recipes not seen in it."""
        all_here = len(self.seen_here) == len(self._known)
        missing = set() if all_here else self._known.keys() - self.seen_here
        return json.dumps([inode, sorted(missing | unchecked)])

    def differs(self, path: str, stamp: Stamp) -> bool:
        """Whether a scan may take the file for a version that was not answered."""
        known = self._known.get(path)
        return known is None or not known.digest or stamp.written_since(known.stamp)

    def is_new(self, path: str, stamp: Stamp, digest: str, *, by_event: bool) -> bool:
        """Whether this shows a write that was not answered yet.

        Inodes count only beside an event: they are not stable across mounts everywhere.
        """
        known = self._known.get(path)
        if known is None:
            return True
        replaced = by_event and stamp.inode != known.stamp.inode
        return digest != known.digest or stamp.written_since(known.stamp) or replaced

    def _put(self, path: str, known: KnownRecipe) -> None:
        self._drop(path)
        self._known[path] = known
        self._in_any_case[path.casefold()] = path
        self._paths_by_digest.setdefault(known.digest, set()).add(path)

    def _drop(self, path: str) -> None:
        known = self._known.pop(path, None)
        if known is not None:
            if self._in_any_case.get(path.casefold()) == path:
                del self._in_any_case[path.casefold()]
            self._forget_bytes(path, known)

    def _forget_bytes(self, path: str, known: KnownRecipe) -> None:
        paths = self._paths_by_digest.get(known.digest, set())
        paths.discard(path)
        if not paths:
            self._paths_by_digest.pop(known.digest, None)
