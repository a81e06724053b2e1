"""Start images and masks: found where a recipe may name them, checked, and copied.

A copy is stored under its sha256 when the save is accepted, so editing, moving or deleting the
picture afterwards does not change what was requested.
"""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

from picowatch.errors import PictureUnreadable
from picowatch.files.atomic import TEMPORARY_PREFIX, write_atomically
from picowatch.files.inside import blocks_of, open_below, sha256_of
from picowatch.files.names import MASK_MARK, is_picture_name, stem_of
from picowatch.files.pictures import (
    check_picture,
    decode_alpha,
    decode_mask,
    is_transparent,
    mask_warnings,
    picture_size,
    refuse_other_name,
)
from picowatch.metadata import PARAMETERS, read_texts, texts_in
from picowatch.outbox.photo_metadata import NONE, PhotoMetadata, photo_metadata
from picowatch.recipe.fields import ALPHA
from picowatch.recipe.pictures import Pictures
from picowatch.recipe.read.a1111 import holds_parameters
from picowatch.recipe.resolve.start_image import why_no_path
from picowatch.settings import Settings

FOLDER = "start-images"
# Errors that mean that there is no such picture, or that it is not a regular file.
NOT_THERE = {
    errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EXDEV, errno.EINVAL,
}  # fmt: skip
# Errors that are not the picture's: it is opened again when this process or system has resources.
OUR_OWN = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

# The sha256 of pictures and the versions of their copies, by the pictures' versions: thousands of
# photos may have a template that names the same one.
_Version = tuple[int, int, int, int]  # device, inode, size and time
_copied: dict[_Version, tuple[str, _Version]] = {}
MOST_KNOWN = 64

T = TypeVar("T")
_TEMPLATE = (
    "One path names one picture. For all pictures of a folder, save these fields there as "
    "_pictures.yaml: each picture is a request then."
)


def _version(status: os.stat_result) -> _Version:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


class NamedPictures(Pictures):
    """The pictures that one recipe names, while it is being read.

    Methods that read one raise PictureUnreadable if it is missing, lies elsewhere, or cannot be
    used.
    """

    def __init__(self, settings: Settings, recipe: str, beside: Path | None = None) -> None:
        """Find a recipe's pictures; one outside the inbox may name those in the folder `beside`."""
        self._inbox = settings.inbox  # it may be a link, so it is resolved at each use
        self._outbox = settings.outbox
        self._recipe = recipe
        self._beside = beside
        self.most_pixels = settings.most_picture_pixels
        stem = stem_of(recipe)
        self._own_stems = (stem, stem + MASK_MARK)  # of a dropped picture and its mask
        self._read: dict[tuple[object, str], Any] = {}
        self._refused: dict[str, list[list[int] | None]] = {}
        self._kept: dict[str, str] = {}

    def keep(self, path: str) -> str:
        """Keep a copy of the picture; return its sha256. Each picture is read once."""
        if path not in self._kept:
            with self._recording(path):
                self._kept[path] = self._keep(path)
        return self._kept[path]

    def _keep(self, path: str) -> str:
        folder = _folder(self._outbox)
        with self._opened(path) as file:
            version = _version(os.fstat(file.fileno()))
            if known := _copied.get(version):
                with suppress(FileNotFoundError):
                    if _version((folder / known[0]).stat()) == known[1]:  # else it may be damaged
                        return known[0]
            content = b"".join(blocks_of(file))
        digest = hashlib.sha256(content).hexdigest()
        target = folder / digest
        if not target.is_file() or target.read_bytes() != content:  # it may be damaged
            check_picture(BytesIO(content))
            write_atomically(target, content)
        if len(_copied) == MOST_KNOWN:
            del _copied[next(iter(_copied))]
        _copied[version] = digest, _version(target.stat())
        return digest

    def hashes(self, own: Mapping[str, str]) -> Callable[[str], str]:
        """Return a function that gives a picture's sha256 and copies it unless it is in `own`."""
        return lambda path: own.get(path) or self.keep(path)

    def digest(self, path: str) -> str:
        """Return the sha256 of a picture without copying it."""
        with self._opened(path) as file:
            return sha256_of(file)

    def check(self, path: str) -> None:
        """Check that a picture can be decoded, without copying it."""
        with self._opened(path) as file:
            check_picture(file)

    def mask_warnings(self, path: str, inverted: bool, is_alpha: bool) -> list[str]:
        """Return why a mask has no effect, or not the one that was meant."""
        with self._opened(path) as file:
            mask = (decode_alpha if is_alpha else decode_mask)(file.read())
        name = f"{ALPHA} of {path}" if is_alpha else path
        return [*mask_warnings(name, mask.histogram(), inverted)]

    def texts(self, path: str) -> dict[str, str]:
        """Return the texts in a picture's metadata. Each picture is read once."""
        return self._once(texts_in, path)

    def size(self, path: str) -> tuple[int, int]:
        """Return width and height of an upright picture. Each picture is read once."""
        return self._once(picture_size, path)

    def is_transparent(self, path: str) -> bool:
        """Return whether anything in a picture is transparent. Each picture is read once."""
        return self._once(is_transparent, path)

    def _once(self, read: Callable[[IO[bytes]], T], path: str) -> T:
        if (read, path) not in self._read:
            with self._opened(path) as file:
                self._read[read, path] = read(file)
        found: T = self._read[read, path]
        return found

    def called_here(self, path: str, digest: str, folder: str) -> str:
        """Return this recipe's path for a picture that a recipe in another folder names `path`."""
        beside = [f"inbox/{folder}/{path}"] if folder else []
        for name in (path, *beside, f"inbox/{path}", f"outbox/{path}"):
            with suppress(PictureUnreadable, OSError):
                if why_no_path(name) is None:
                    with self._open(name) as file:
                        if sha256_of(file) == digest:
                            return name
        return path

    def beside(self, file: str, path: str) -> str:
        """Return the path of a picture, which lies beside the file that names it, or elsewhere."""
        folder, own = file.rpartition("/")[0], self._recipe.rpartition("/")[0]
        place = f"{folder}/{path}" if folder else path
        if folder != own and why_no_path(path) is None and self._is_in_inbox(place):
            # Only the inbox's own pictures have two names: the short one may be beside the recipe.
            is_hidden = not folder and self._is_in_inbox(f"{own}/{path}")
            return f"inbox/{place}" if is_hidden else place
        return path

    def _is_in_inbox(self, path: str) -> bool:
        with suppress(OSError):
            os.close(open_below(self._inbox, path))
            return True
        return False

    def inside(self, path: str) -> str | None:
        """Return an absolute path as `inbox/…` or `outbox/…`; None if it leads elsewhere."""
        for name, root in (("inbox", self._inbox), ("outbox", self._outbox)):
            for folder in (root.absolute(), root.resolve()):
                if path.startswith(f"{folder}/"):
                    return f"{name}/{path.removeprefix(f'{folder}/')}"
        return None

    @property
    def refused(self) -> str:
        """The pictures that could not be used, with what was at their paths; "" if none."""
        return json.dumps(self._refused) if self._refused else ""

    def look_again(self, refused: str) -> str:
        """Return `refused` with what is at these paths now."""
        return json.dumps({path: self._stamps(path) for path in json.loads(refused)})

    @contextmanager
    def _opened(self, path: str) -> Iterator[IO[bytes]]:
        """Open a picture's file for reading."""
        with self._recording(path):
            refuse_other_name(path)
            try:
                with self._open(path) as file:
                    yield file
            except OSError as error:
                if error.errno in OUR_OWN:
                    raise
                raise PictureUnreadable(f"'{path}' cannot be read: {error.strerror}.") from error

    @contextmanager
    def _recording(self, path: str) -> Iterator[None]:
        """If the picture is refused, remember what was at its paths before."""
        before = self._stamps(path)
        try:
            yield
        except PictureUnreadable:
            self._refused[path] = before
            raise

    def _stamps(self, path: str) -> list[list[int] | None]:
        """Return size and time of the file at each of a picture's paths, None without one."""
        return [_stamp(root / place) for root, place in self._places(path)]

    def _places(self, path: str) -> list[tuple[Path, str]]:
        """Return the places of a picture, as paths below a folder, in the order of search."""
        outbox = self._outbox
        if is_picture_name(self._recipe) and stem_of(path) in self._own_stems:
            return [(self._inbox, path)]
        folder = PurePosixPath(self._recipe).parent.as_posix()
        found = []
        for inbox in filter(None, (self._beside, self._inbox)):
            beside = path if folder == "." else f"{folder}/{path}"
            found += [(inbox, beside), (inbox, path), (outbox, path)]
            for name, root in (("inbox/", inbox), ("outbox/", outbox)):
                if path.startswith(name):
                    found.append((root, path.removeprefix(name)))
        return found

    def _open(self, path: str) -> IO[bytes]:
        for root, place in self._places(path):
            try:
                return os.fdopen(open_below(root, place), "rb")
            except OSError as error:
                if error.errno not in NOT_THERE:
                    raise
        raise PictureUnreadable(
            f"There is no picture '{path}'.",
            _TEMPLATE
            if "*" in path
            else "Write its path relative to the recipe, or below inbox/ or outbox/.",
        )


def remove_copies_but(outbox: Path, digests: Collection[str]) -> None:
    """Delete copies that no queued image needs, but not those that are being written."""
    folder = _folder(outbox)
    if not folder.is_dir():
        return
    for copy in folder.iterdir():
        if copy.name not in digests and not copy.name.startswith(TEMPORARY_PREFIX):
            with suppress(OSError):  # a folder, which a user made, is not a copy
                copy.unlink()


def kept_parameters(outbox: Path, digest: str) -> str:
    """Return A1111's text in the copy of a picture; "" if it has none, or is gone."""
    try:
        text = read_texts(_folder(outbox) / digest).get(PARAMETERS, "")
    except (OSError, PictureUnreadable):
        return ""
    return text.rstrip() if holds_parameters(text) else ""


def kept_metadata(outbox: Path, digest: str, keep: str) -> PhotoMetadata:
    """Return what is kept of a picture's EXIF and XMP, from its copy; nothing if that is gone."""
    try:
        with (_folder(outbox) / digest).open("rb") as file:
            return photo_metadata(file, keep)
    except (OSError, PictureUnreadable):
        return NONE


def _folder(outbox: Path) -> Path:
    return outbox / ".picowatch" / FOLDER


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]
