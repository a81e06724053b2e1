"""Start images and masks: found where a recipe may name them, checked, and copied.

A copy is stored under its sha256 when the save is accepted, so editing, moving or deleting the
picture afterwards does not change what was requested.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from picowatch.errors import PictureUnreadable
from picowatch.files import pictures, safe_paths
from picowatch.files.atomic import TEMPORARY_PREFIX, write_atomically
from picowatch.files.decoding import mask_warnings
from picowatch.files.looking import Question, look
from picowatch.files.names import MASK_MARK, is_picture_name, stem_of
from picowatch.metadata.embedded_text import PARAMETERS, fits_jpeg, texts_in
from picowatch.outbox.names import is_own_file
from picowatch.outbox.photo_metadata import PhotoMetadata, only_marked, photo_metadata
from picowatch.recipe.a1111.reader import holds_parameters
from picowatch.recipe.fields import ALPHA
from picowatch.recipe.files import Pictures
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.resolve.lookup import why_no_path

COPIES = ".picowatch/start-images"  # below the outbox
# Errors that mean that there is no such picture, or that it is not a regular file.
NOT_THERE = {
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV, errno.EINVAL,
}  # fmt: skip
# Errors that are not the picture's: it is opened again when this process or system has resources.
OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

# The sha256 of pictures and the versions of their copies, by the pictures' versions: thousands of
# photos may have a template that names the same one.
_copied: dict[safe_paths.Version, tuple[str, safe_paths.Version]] = {}
MOST_KNOWN = 64

T = TypeVar("T")
_USUAL_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG")


@dataclass(eq=False)
class NamedPictures(Pictures):
    """The pictures that one recipe names; methods that read a picture raise PictureUnreadable."""

    inbox: Path  # it and the outbox may be links: resolved at each use
    outbox: Path
    most_pixels: int
    most_photo_pixels: int
    recipe: str = ""
    opened: set[str] = field(default_factory=set)  # those of the inbox that were found
    has_refused: bool = False  # whether any could not be used
    _read: dict[tuple[object, str], Any] = field(default_factory=dict)
    _kept: dict[str, str] = field(default_factory=dict)

    def keep(self, path: str) -> str:
        """Keep a copy of the picture; return its sha256. Each picture is read once."""
        if path not in self._kept:
            self._kept[path] = self._keep(path)
        return self._kept[path]

    def _keep(self, path: str) -> str:
        folder = self.outbox / COPIES
        with self._opened(path) as file:
            version = safe_paths.version_of(os.fstat(file.fileno()))
            if known := _copied.get(version):
                with suppress(FileNotFoundError):  # another version may be damaged
                    if safe_paths.version_of((folder / known[0]).stat()) == known[1]:
                        return known[0]
            digest = safe_paths.sha256_of(file)
            target = folder / digest
            is_new = not target.is_file()
            if not is_new:  # it may be damaged
                with target.open("rb") as copy:
                    is_new = safe_paths.sha256_of(copy) != digest
            if is_new:
                self._look("check", file)
        if is_new:  # what the outbox's disk refuses is no fault of the picture
            write_atomically(target, self._blocks(path, digest))
        if len(_copied) == MOST_KNOWN:
            del _copied[next(iter(_copied))]
        _copied[version] = digest, safe_paths.version_of(target.stat())
        return digest

    def _blocks(self, path: str, digest: str) -> Iterator[bytes]:
        """Yield the blocks of a picture. Raises PictureUnreadable at the end if it changed."""
        found = hashlib.sha256()
        with self._opened(path) as file:
            for block in safe_paths.blocks_of(file):
                found.update(block)
                yield block
            if found.hexdigest() != digest:
                raise PictureUnreadable("It was changed while it was read.", "Save it again.")

    def digest(self, path: str) -> str:
        with self._opened(path) as file:
            return safe_paths.sha256_of(file)

    def check(self, path: str) -> None:
        with self._opened(path) as file:
            self._look("check", file)

    def mask_warnings(self, path: str, inverted: bool, is_alpha: bool) -> list[str]:
        """Return why a mask has no effect, or not the effect that was meant."""
        with self._opened(path) as file:
            greys = self._look("greys_of_alpha" if is_alpha else "greys_of_mask", file)
        return [*mask_warnings(f"{ALPHA} of {path}" if is_alpha else path, greys, inverted)]

    # Of each picture, these are read once.

    def texts(self, path: str) -> dict[str, str]:
        return self._once(texts_in, path)

    def size(self, path: str) -> tuple[int, int]:
        return self._once(self._size_in, path)

    def _size_in(self, file: IO[bytes]) -> tuple[int, int]:
        return pictures.picture_size(file, self.most_photo_pixels)

    def is_photo(self, path: str) -> bool:
        return self._once(pictures.is_photo, path)

    def taken(self, path: str) -> datetime:
        return self._once(pictures.taken, path)

    def is_transparent(self, path: str) -> bool:
        return self._once(self._is_transparent, path)

    def _is_transparent(self, file: IO[bytes]) -> bool:
        greys = self._look("greys_of_alpha", file) if pictures.may_be_transparent(file) else ()
        return any(greys[1:])

    def _look(self, question: Question, file: IO[bytes]) -> Any:
        return look(question, file, self.most_photo_pixels)

    def _once(self, read: Callable[[IO[bytes]], T], path: str) -> T:
        if (read, path) not in self._read:
            with self._opened(path) as file:
                self._read[read, path] = read(file)
        found: T = self._read[read, path]
        return found

    def called_here(self, path: str, digest: str, folder: str) -> str:
        beside = [f"inbox/{folder}/{path}"] if folder else []
        own = path.rpartition("/")[2]
        # If it was moved, it is looked for here, in the inbox and in the outbox.
        everywhere = (f"{root}{name}" for name in (path, own) for root in ("inbox/", "outbox/"))
        for name in (path, *beside, own, *everywhere):
            with suppress(PictureUnreadable, OSError):
                if why_no_path(name) is None:
                    with self._open(name) as file:
                        if safe_paths.sha256_of(file) == digest:
                            return name
        return path

    def beside(self, file: str, path: str) -> str:
        folder, own = file.rpartition("/")[0], self.recipe.rpartition("/")[0]
        place = f"{folder}/{path}" if folder else path
        if folder != own and why_no_path(path) is None and self._is_in_inbox(place):
            # Only the inbox's own pictures have two names: the short name may be beside the recipe.
            is_hidden = not folder and self._is_in_inbox(f"{own}/{path}")
            return f"inbox/{place}" if is_hidden else place
        return path

    def _is_in_inbox(self, path: str) -> bool:
        with suppress(OSError):
            safe_paths.open_below(self.inbox, path).close()
            return True
        return False

    def inside(self, path: str) -> str | None:
        for name, root in (("inbox", self.inbox), ("outbox", self.outbox)):
            for folder in (root.absolute(), root.resolve()):
                if path.startswith(f"{folder}/"):
                    return f"{name}/{path.removeprefix(f'{folder}/')}"
        return None

    @property
    def copies(self) -> frozenset[str]:
        return frozenset(self._kept.values())

    @contextmanager
    def _opened(self, path: str) -> Iterator[IO[bytes]]:
        try:
            pictures.refuse_other_name(path)
            with self._open(path) as file:
                yield file
        except PictureUnreadable:
            self.has_refused = True
            raise
        except OSError as error:
            if error.errno in OUR_OWN:
                raise
            self.has_refused = True
            raise PictureUnreadable.by_system(f"'{path}'", error) from error

    def _places(self, path: str) -> list[tuple[Path, str]]:
        """Return the places of a picture, as paths below a folder, in the order of search."""
        inbox, outbox = self.inbox, self.outbox
        if is_picture_name(self.recipe):
            stem = stem_of(self.recipe)
            if stem_of(path) in (stem, stem + MASK_MARK):
                return [(inbox, path)]
        folder = PurePosixPath(self.recipe).parent.as_posix()
        beside = path if folder == "." else f"{folder}/{path}"
        found = [(inbox, beside), (inbox, path), (outbox, path)]
        for name, root in (("inbox/", inbox), ("outbox/", outbox)):
            if path.startswith(name):
                found.append((root, path.removeprefix(name)))
        return found

    def _open(self, path: str) -> IO[bytes]:
        """Open a picture, but no file in use: closing SQLite's would give up its locks."""
        for root, place in self._places(path):
            try:
                target = place
                if root == self.outbox and os.path.lexists(root / place):  # perhaps a link
                    target = os.path.relpath(os.path.realpath(root / place), os.path.realpath(root))
                if root == self.outbox and (is_own_file(place) or is_own_file(target)):
                    raise PictureUnreadable(
                        f"'{path}' is one of picowatch's own files, not a picture.",
                        "Name a picture in the inbox, or one that was rendered.",
                    )
                file = safe_paths.open_below(root, place)
            except OSError as error:
                if error.errno not in NOT_THERE:
                    raise
                continue
            if root == self.inbox and place != self.recipe:
                self.opened.add(place)
            return file
        raise PictureUnreadable(f"There is no picture '{path}'.", self._remedy(path))

    def _remedy(self, path: str) -> str:
        """Return what to do about a path of no picture: of a folder, or with another ending."""
        places = [place for root, place in self._places(path) if root == self.inbox]
        if "*" in path or any(safe_paths.is_folder(self.inbox / place) for place in places):
            words = "One path names one picture. For all pictures of a folder, save these fields "
            return f"{words}there as _pictures.yaml: each picture is a request then."
        for like in (stem_of(path), stem_of(path).lower()):
            for name in (f"{like}{ending}" for ending in _USUAL_ENDINGS):
                if any(map(self._is_in_inbox, (place for _, place in self._places(name)))):
                    return f"Did you mean '{name}'?"
        return "Put it into the inbox beside the recipe, or write its path below inbox/ or outbox/."


def remove_copies_but(outbox: Path, digests: Collection[str]) -> None:
    """Delete copies that no queued image needs, but not those that are being written."""
    folder = outbox / COPIES
    if not folder.is_dir():
        return
    for copy in folder.iterdir():
        if copy.name not in digests and not copy.name.startswith(TEMPORARY_PREFIX):
            with suppress(OSError):  # a folder, which a user made, is not a copy
                copy.unlink()


def kept_parameters(outbox: Path, request: ImageRequest, *, is_jpeg: bool) -> tuple[str, list[str]]:
    """Return A1111's text of a picture that is only finished, or "", and a warning if lost."""
    text = why = ""
    try:
        if not request.draws:
            with (outbox / COPIES / request.image_hash).open("rb") as file:
                text = texts_in(file).get(PARAMETERS, "")
    except OSError:
        return "", []
    except PictureUnreadable as error:
        why = error.message
    text = text.rstrip() if holds_parameters(text) else ""
    if text and is_jpeg and not fits_jpeg(request, text):
        text, why = "", "it is too long for a JPEG."
    lost = f"The picture lacks the A1111 text of {request.image}: {why}"
    return text, [lost] if why else []


def kept_metadata(
    outbox: Path, digest: str, keep: str, *, mark: str, size: tuple[int, int] | None, name: str
) -> PhotoMetadata:
    """Return `photo_metadata` of a picture's copy; nothing but the mark if that is gone."""
    try:
        with (outbox / COPIES / digest).open("rb") as file:
            return photo_metadata(file, keep, mark=mark, size=size, name=name)
    except (OSError, PictureUnreadable):
        return only_marked(mark)
