"""The inbox as a place: what all other parts of picowatch do with its files.

Files are named by their paths below the inbox. Only regular files are opened, and nothing is opened
or deleted through a link that leads out of it, not even one that is swapped in at the last moment.
"""

import errno
import os
import stat
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Self

from picowatch.errors import ControlFlow, PicowatchError, SettingsInvalid
from picowatch.files import safe_paths
from picowatch.files.names import ENDINGS as PICTURES
from picowatch.files.names import stem_of
from picowatch.files.pictures import USUAL_PIXELS
from picowatch.inbox import names
from picowatch.ledger.rows import SizeAndTime
from picowatch.recipe.reading import DefaultsFile, Dropped

MOST_LINKS = 40  # in a path, as on Linux
GIVE_PERMISSION = "Give the user that runs picowatch the necessary permission."
MAX_BYTES = 1024 * 1024  # of a recipe
LEADS_OUT = "a symbolic link in its path leads out of the inbox"
# Errors that mean that a path does not exist; others mean that it cannot be read.
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_FORBIDDEN = "picowatch has no permission to read it; allow it with `chmod a+r`"
_WHY_UNREADABLE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), _FORBIDDEN),
    errno.EXDEV: LEADS_OUT,
    errno.ELOOP: "it is a symbolic link that changed while it was opened",
}


class FileUnreadable(PicowatchError):
    """A recipe file cannot be read; the text says why and what to do."""

    usual_remedy = "Check the file and its permissions, and save it again."

    @classmethod
    def by_system(cls, error: OSError) -> Self:
        return cls(_WHY_UNREADABLE.get(error.errno or 0) or error.strerror or str(error))


class FileChanged(ControlFlow):
    """The file was written while it was read: it is not complete yet."""


def size_and_time_of(root: Path | str, path: str) -> SizeAndTime | None:
    """Return the size and time of a recipe file, or None if it cannot be seen."""
    try:
        status = _status(root, path)
    except (OSError, ValueError):
        return None
    return _size_and_time(status) if status else None


def _status(root: Path | str, path: str) -> os.stat_result | None:
    """Return the status of a regular file; None for anything else, and a link out of the inbox."""
    status = os.lstat(f"{root}/{path}")  # enough for nearly all of ten thousand
    if stat.S_ISLNK(status.st_mode):
        if safe_paths.leads_out(Path(root), path):
            return None
        status = os.stat(f"{root}/{path}")  # noqa: PTH116  (many times cheaper than a Path)
    return status if stat.S_ISREG(status.st_mode) else None


def _size_and_time(status: os.stat_result) -> SizeAndTime:
    return SizeAndTime(status.st_size, status.st_mtime_ns, status.st_ino, 0, status.st_ctime_ns)


def place_of(root: Path) -> tuple[int, str]:
    """Return a folder's device, and its id for the ledger, which tell it from others at its path.

    The id, of file system and inode, stays the same after a reboot. Raises OSError.

    The root of each ext4 disk has inode 2, that of each tmpfs 1, and a disk that is mounted in the
    place of another may get its device number. Ids of file systems differ then: those of ext4,
    Btrfs, ZFS, tmpfs and overlays come from a UUID, that of SMB from the volume's number. NFS and
    FUSE have none, so 0 stands here, and only inodes tell their folders. XFS, FAT and macOS give
    the device's number, which may change with a reboot: then the folder is taken for another,
    and deletions from before are not noticed.
    """
    status = root.stat()
    try:
        file_system = os.statvfs(root).f_fsid
    except OSError:  # some FUSE file systems do not answer
        file_system = 0
    return status.st_dev, f"{file_system:x}:{status.st_ino}"


@dataclass(frozen=True, slots=True)
class InboxFolder:
    """The inbox; `root` may be a link. Its pictures have `most_pixels` each."""

    root: Path
    most_pixels: int = USUAL_PIXELS

    def path_of(self, file: Path) -> str:
        """Return a file's path below the inbox, with links followed; "" if it lies elsewhere.

        Raises FileUnreadable if a link in the inbox leads out of it, and OSError for a circle.
        """
        root, here = safe_paths.real(self.root), Path("/")
        rest, links, is_inside = [*reversed(file.absolute().parts)], 0, False
        while rest:
            part = rest.pop()
            try:
                target = (here / part).readlink()
            except OSError:
                here = here.parent if part == ".." else here / part
                continue
            if (links := links + 1) > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            is_inside |= here.is_relative_to(root)
            rest += reversed(target.parts)
        if here.is_relative_to(root):
            return here.relative_to(root).as_posix()
        if is_inside:
            raise FileUnreadable(LEADS_OUT)
        return ""

    def shown(self, path: str) -> Path:
        """Return where a file is, as users know it."""
        return self.root / path

    def is_through_link(self, folder: str) -> bool:
        """Whether a folder, which need not exist, is a link or lies behind a link."""
        return safe_paths.real(self.shown(folder)) != safe_paths.real(self.root) / folder

    def check_readable(self) -> None:
        """Raise SettingsInvalid if the inbox may not be searched."""
        if not os.access(self.root, os.R_OK | os.X_OK):
            words = f"The inbox {self.root.absolute()} cannot be read."
            raise SettingsInvalid(words, GIVE_PERMISSION)

    def is_away(self) -> bool:
        """Whether the inbox seems unmounted: it is missing or empty."""
        try:
            with os.scandir(self.root) as entries:
                return not any(entries)
        except OSError:
            return True

    def size_and_time(self, path: str) -> SizeAndTime | None:
        """Return the size and time of a recipe, or of a dropped picture with its sidecars."""
        found = size_and_time_of(self.root, path)
        return self.with_sidecars(found, path) if found and names.is_dropped(path) else found

    def with_sidecars(
        self, size_and_time: SizeAndTime, path: str, listed: Collection[str] | None = None
    ) -> SizeAndTime:
        """Add a picture's sidecars; `listed` are the files in its folder, in small letters."""
        found = []
        stem = stem_of(path)
        for file in names.sidecar_paths(path):
            if listed is not None and file.rpartition("/")[2].lower() not in listed:
                continue  # 1.TXT may be opened as 1.txt
            sidecar = size_and_time_of(self.root, file)
            if sidecar and sidecar.size:
                found.append(f"{file.removeprefix(stem)} {sidecar.size} {sidecar.mtime_ns}")
        sidecars = zlib.crc32(" ".join(found).encode()) or 1 if found else 0
        return size_and_time._replace(sidecars=sidecars)

    def sidecars_of(self, path: str) -> list[str]:
        """Return a picture's sidecars, unless they belong to another picture, too."""
        of = partial(size_and_time_of, self.root)  # by name, as folders may be large
        stem = stem_of(path)
        alike = (stem + name for ending in PICTURES for name in (ending, ending.upper()))
        if {*map(of, alike)} - {None, of(path)}:  # other letters may mean one file
            return []
        return [*filter(of, names.sidecar_paths(path))]

    def template_above(self, path: str) -> str | None:
        """Return the template that applies to a path."""
        for folder in names.folders_above(path):
            file = f"{folder}/{names.PICTURES_NAME}"
            if os.path.lexists(f"{self.root}/{file}") and size_and_time_of(self.root, file):
                return file
        return None

    def why_no_recipe(self, path: str) -> str | None:
        """Return why a recipe at this path is not read; None if it is."""
        template = self.template_above(path)
        if template is None:
            return None
        where = f"Recipes in {template.removesuffix(names.PICTURES_NAME)} are not read"
        return f"{where}: {template} makes it a folder for dropped pictures."

    def is_meant_as_template(self, path: str) -> bool:
        """Whether a recipe has a template's name without its underscore, beside pictures."""
        folder, _, name = path.rpartition("/")
        if not folder or f"_{name.lower().replace('.yml', '.yaml')}" != names.PICTURES_NAME:
            return False
        with suppress(OSError):
            return any(names.may_be_dropped(file.name) for file in self.shown(folder).iterdir())
        return False

    def is_gone(self, path: str) -> bool:
        """Whether a file does not exist (any more). An unreadable file may exist."""
        try:
            return _status(self.root, path) is None
        except OSError as error:
            return error.errno in MISSING
        except ValueError:
            return True

    @contextmanager
    def opened(
        self, path: str, *, heeds_writers: bool = False
    ) -> Iterator[tuple[IO[bytes], SizeAndTime]]:
        """Open a file to be read as a whole, with its size and time.

        With `heeds_writers`, a file that another process has open for writing counts as changed.
        Raises FileUnreadable, FileChanged, or FileNotFoundError.
        """
        try:
            opened = safe_paths.open_below(self.root, path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(error.errno, error.strerror) from error
        except OSError as error:
            raise FileUnreadable.by_system(error) from error
        with opened as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise FileUnreadable("it is not a regular file")
            if heeds_writers and safe_paths.is_open_for_writing(file.fileno()):
                raise FileChanged
            try:
                yield file, _size_and_time(before)
            except OSError as error:
                raise FileUnreadable.by_system(error) from error
            if _size_and_time(before) != _size_and_time(os.fstat(file.fileno())):
                raise FileChanged

    def read(self, path: str) -> bytes:
        """Return a file's bytes, at most MAX_BYTES + 1. Raises like `opened`."""
        with self.opened(path) as (file, _):
            return b"".join(safe_paths.blocks_of(file, MAX_BYTES))

    def digest(self, path: str) -> str:
        with self.opened(path) as (file, _):
            return safe_paths.sha256_of(file)

    def blocks(self, path: str, digest: str) -> Iterator[bytes]:
        return safe_paths.checked_blocks(self.root, path, digest)

    def defaults_for(self, path: str) -> list[DefaultsFile]:
        """Return the `_defaults.yaml` that apply to a recipe, the inbox's first, its folder's last.

        Raises FileUnreadable, because without one of them other pictures would be rendered.
        """
        found = []
        folders = [f"{folder}/" for folder in names.folders_above(path)]
        for name in (f"{folder}{names.DEFAULTS_NAME}" for folder in ("", *reversed(folders))):
            try:
                os.lstat(f"{self.root}/{name}")  # quick: most folders have none
                found.append(DefaultsFile(name, self.read(name)))
            except FileNotFoundError:
                continue
            except FileUnreadable as error:
                raise FileUnreadable(f"{name} above it: {error}") from error
        return found

    def read_dropped(self, path: str) -> Dropped | None:
        """Return a picture with its template; None without any. Raises like `opened`."""
        template = self.template_above(path)
        if template is None:
            return None
        content = self.read(template)
        beside = [file for file in names.sidecar_paths(path) if os.path.lexists(self.shown(file))]
        texts = [DefaultsFile(sidecar, self._read_sidecar(sidecar)) for sidecar in beside]
        has_mask = f"{stem_of(path)}{names.MASK}" in beside
        mask = texts.pop().name if has_mask else ""  # the last of them
        return Dropped(path, DefaultsFile(template, content), tuple(texts), mask)

    def _read_sidecar(self, path: str) -> bytes:
        """Return the text beside a picture; a mask is only opened. Raises FileUnreadable."""
        try:
            if not path.endswith(names.MASK):
                return self.read(path)
            with self.opened(path):
                return b""
        except FileNotFoundError as error:
            if os.path.lexists(self.shown(path)):
                raise FileUnreadable(f"{path} is a symbolic link to nothing") from error
            raise
        except FileUnreadable as error:
            raise FileUnreadable(f"{path} beside it: {error}") from error

    def delete(self, path: str, digest: str) -> bool:
        """Delete a file with these bytes, unless it is a link; return whether it was deleted."""
        return safe_paths.unlink_below(
            self.root, path, lambda found: safe_paths.sha256_of(found) == digest
        )
