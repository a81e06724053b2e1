"""The names of files in the outbox, and the formats that they mean.

The outbox mirrors the inbox, with one folder per recipe: the pictures of `inbox/pets/corgi.yaml`
are in `outbox/pets/corgi/`, its errors in `outbox/pets/corgi.yaml.error.txt`. No name leaves the
outbox or replaces one of picowatch's own. The suffix of a picture's name decides its format, so a
name that was reserved before the setting `format` changed keeps its format.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from os.path import lexists
from pathlib import Path, PurePosixPath

from picowatch.errors import CommandFailed
from picowatch.files.names import is_picture_name
from picowatch.files.safe_paths import to_write
from picowatch.metadata.embedded_text import fits_jpeg
from picowatch.recipe.converters import SAME
from picowatch.recipe.photo_names import filled, has_number
from picowatch.recipe.request import ImageRequest

SIDECAR_ENDING = ".txt"


@dataclass(frozen=True, slots=True)
class Format:
    """A format of published pictures."""

    name: str
    ending: str
    longest_side: int  # in pixels: the limit of the format or its library
    quality: int | None = None  # the meaning of "auto"; None for a format without a quality
    transparent: bool = True  # it can store transparency


FORMATS = {
    kind.name: kind
    for kind in (
        Format("png", ".png", 2**31 - 1),
        Format("jpeg", ".jpg", 65_500, 92, transparent=False),  # libjpeg's JPEG_MAX_DIMENSION
        Format("webp", ".webp", 16_383, 90),  # 14 bits
        Format("avif", ".avif", 16_384, 80),  # what browsers decode
        Format("tiff", ".tif", 2**31 - 1),
    )
}
PNG, TIFF = FORMATS["png"], FORMATS["tiff"]
# The formats of `format: same`, by the photo's suffix; others are without loss.
_SAME_AS = {
    ".tiff": "tiff",
    **{kind.ending: kind.name for kind in FORMATS.values()},
    **dict.fromkeys((".jpeg", ".jpe", ".jfif", ".heic", ".heif", ".hif"), "jpeg"),
}
ENDINGS = tuple(kind.ending for kind in FORMATS.values())
PILLOW_NAMES = tuple(map(str.upper, FORMATS))

LATEST = tuple(f"latest{ending}" for ending in ENDINGS)
STATE = ".picowatch"
SUMMARY = "summary.txt"
OWN_NAMES = {
    *LATEST,
    *("preview.png", "now.txt", "index.html", "picowatch.log", "images.jsonl", "failures.jsonl"),
    SUMMARY,
    STATE,
}
ROTATED_LOG = re.compile(r"picowatch\.log[.-]\d[\d-]*(\.(gz|bz2|xz|zst))?")  # logrotate's, too
MAP_ENDING = ".control{}.png"
ERROR_ENDING = ".error.txt"
WARNING_ENDING = ".warning.txt"
# Suffixes of files in a recipe's folder: pictures, sidecars, and archived recipes.
FILE_ENDINGS = (*ENDINGS, SIDECAR_ENDING, ".yaml", ".yml")
# At the start of a picture's name; longer numbers, which SQLite could not store, are not ours.
NUMBER = re.compile(r"^(\d{1,15})(?!\d)")
MAP = re.compile(r"\.control(-\d+)?\.png$")
ORIGINALS = "originals"  # the folder of archived dropped pictures
ROOM = 40  # bytes after a dropped picture's name: its number, and suffixes of files beside it
# Most file systems take names of 255 bytes, encrypted folders of fewer (eCryptfs 143); temporary
# files of atomic writes have shorter names.
MAX_NAME_BYTES = 255
# Characters that Windows, exFAT or NTFS refuse in a name or give a meaning.
UNSAFE = re.compile(r'[/\\:*?"<>|]+')
# Characters that move a cursor or reverse text where names are listed.
INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
# Windows takes these for devices, even with a dot and more after them
# (https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"} | {
    port + number for port in ("com", "lpt") for number in "0123456789¹²³"
}


class OutboxNames:
    """Gives recipes their folders and pictures their files, all as paths below the outbox."""

    def __init__(
        self, outbox: Path, file_name: str = "{number}", picture_format: str = "png"
    ) -> None:
        """Name new pictures by the settings `file_name` and `format`; other names need neither."""
        self._outbox, self._file_name, self._format = outbox, file_name, picture_format

    @cached_property
    def _max_name_bytes(self) -> int:
        # Some shares report nothing or 0; hardly any program works with shorter names than 100.
        limit = os.pathconf(self._outbox, "PC_NAME_MAX")
        return limit if 100 <= limit <= MAX_NAME_BYTES else MAX_NAME_BYTES

    def folder(self, recipe: str) -> str:
        """Return the folder for a recipe's pictures: its path without suffix.

        A dropped picture's results are in its own folder. `_` is added to a first part that is one
        of picowatch's own names (compared case-folded), and to a part that ends like files in these
        folders, that is a file already, or that Windows cannot open. Characters that Windows
        refuses become `-`.
        """
        path = PurePosixPath(recipe)
        own = () if is_picture_name(recipe) else (path.stem,)
        return "/".join(self._folders([*path.parent.parts, *own]))

    def _folders(self, parts: Sequence[str]) -> list[str]:
        """Return the outbox's folders for these of the inbox."""
        folders: list[str] = []
        for part in map(_portable, parts):
            marks = ""
            while self._is_taken([*folders, name := self._fitting(part, len(marks)) + marks]):
                marks += "_"
            folders.append(name)
        return folders

    def _is_taken(self, parts: Sequence[str]) -> bool:
        name = parts[-1].casefold()
        if len(parts) == 1 and (name in OWN_NAMES or ROTATED_LOG.fullmatch(name)):
            return True
        path = f"{self._outbox}/{'/'.join(parts)}"
        return name.endswith(FILE_ENDINGS) or os.path.isfile(path)  # noqa: PTH113  (never raises)

    def error_file(self, recipe: str) -> str:
        return self._beside(recipe, ERROR_ENDING)

    def warning_file(self, recipe: str) -> str:
        return self._beside(recipe, WARNING_ENDING)

    def _beside(self, recipe: str, ending: str) -> str:
        """Return the recipe's path with a suffix, and with a hash if characters were replaced."""
        *parts, name = recipe.split("/")
        folders = self._folders(parts)
        if [*folders, _portable(name)] == [*parts, name]:
            return "/".join([*folders, self._fitting(name, len(ending)) + ending])
        return "/".join([*folders, self._tagged(name, recipe, len(ending)) + ending])

    def highest_number(self, folder: str) -> int:
        """Return the highest number at the start of a picture's name there; 0 without any."""
        if not self._file_name.startswith("{number"):
            return 0  # names that are taken are passed over anyway
        try:
            names = [child.name for child in (self._outbox / folder).iterdir()]
        except OSError:
            return 0
        numbers = (NUMBER.match(name) for name in names if name.endswith(ENDINGS))
        return max((int(number[1]) for number in numbers if number), default=0)

    def file(self, recipe: str, number: int, request: ImageRequest) -> str | None:
        """Return a picture's path, or None if anything exists there already."""
        fields = vars(request) | {  # the setting may name some
            "number": number,
            "recipe": PurePosixPath(recipe).stem,
            "picture": PurePosixPath(request.image).stem,
        }
        name = self._file_name.format_map(fields)
        if request.variation_strength:  # all variations have one seed
            name += f"-{request.variation_seed}"
        # If an image has no {picture}, the name might begin with a dot: a hidden file.
        return self._free(recipe, _portable(name).lstrip("."), self._kind(recipe, request))

    def of_dropped(
        self, recipe: str, number: int, request: ImageRequest, *, keeps_ending: bool
    ) -> str | None:
        """Return the path of a dropped picture's result, or None if anything exists there."""
        path = PurePosixPath(recipe)
        stem = path.name if keeps_ending else path.stem
        pattern = request.name or "{stem}"
        name = filled(pattern, stem=stem, folder=path.parent.name or "inbox", number=number)
        later = f"-{number}" if number > 1 and not has_number(pattern) else ""
        name = f"{self._fitting(_portable(name), len(later) + ROOM)}{later}"
        # What a result may replace is for the ledger to judge.
        return self._free(recipe, name, self._kind(recipe, request), replaces=request.replace)

    def sheet(self, recipe: str, number: int, first: str, *, replaces: bool = False) -> str | None:
        """Return a contact sheet's path, in its first picture's format, or None if it is taken."""
        name = f"{number:04}-sheet"
        if is_picture_name(recipe):
            later = f"-{number}" if number > 1 else ""
            name = f"{PurePosixPath(first).stem}{later}-sheet"
        return self._free(recipe, name, format_of(first), replaces=replaces)

    def archived(self, file: str, number: int, recipe: str) -> str:
        """Return the numbered path for a recipe, or a dropped picture's sidecar, in its folder."""
        name, stem = PurePosixPath(file).name, PurePosixPath(recipe).stem
        folder = self.folder(recipe)
        # The number follows the picture's name, so that the sidecar stays one: 1-2.mask.png.
        ending = (f"-{number}" if number > 1 else "") + _portable(name[len(stem) :])
        room = len(ending)
        if is_picture_name(recipe):  # its result has its name
            folder, room = f"{folder}/{ORIGINALS}", ROOM
        if name.endswith((ERROR_ENDING, WARNING_ENDING)):  # else it would be taken for such a file
            ending = f"_{ending}"
        return f"{folder}/{self._fitting(_portable(stem), room)}{ending}"

    def folder_to_keep(self, name: str) -> str:
        """Return the folder for kept pictures. Raises CommandFailed with a usable name."""
        parts = PurePosixPath(name).parts
        is_shown = parts and not parts[0].startswith(".")
        if is_shown and self._folders(parts) == [*parts]:
            return "/".join(parts)
        rule = (
            "A folder's name must not begin with a dot, end with a dot or a space, contain any of "
            '\\ : * ? " < > |, or be that of a file'
        )
        if not parts or parts[0] == "/" or ".." in parts:
            rule = "It must be in the outbox"
        usable = [bare for part in parts if (bare := part.strip(" ./"))] or ["best"]
        words = f"Pictures cannot be kept in '{name}'. {rule}."
        raise CommandFailed(words, f"Write '{'/'.join(self._folders(usable))}', for example.")

    def kept(self, file: str, folder: str, number: int) -> str:
        """Return a picture's path in another folder, from the second name on with a number."""
        kind = format_of(file)
        name = PurePosixPath(file).name.removesuffix(kind.ending)
        later = f"-{number}" if number > 1 else ""
        return f"{folder}/{self._fitting(name, len(later + kind.ending))}{later}{kind.ending}"

    def _fitting(self, name: str, room: int) -> str:
        """Shorten a name to what the file system takes; a hash keeps it unique."""
        if len(os.fsencode(name)) + room <= self._max_name_bytes:
            return name
        return self._tagged(name, name, room)

    def _tagged(self, name: str, whole: str, room: int) -> str:
        """Add a hash of `whole` to a name, shortened to what the file system takes."""
        digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
        most = self._max_name_bytes - room - 9
        return f"{os.fsencode(_portable(name))[:most].decode('utf-8', 'ignore')}-{digest}"

    def _kind(self, recipe: str, request: ImageRequest) -> Format:
        return PNG if self.why_png(recipe, request) else self._kind_wanted(recipe, request)

    def why_png(self, recipe: str, request: ImageRequest) -> str:
        """Return a warning if a picture, or its settings, do not fit into the format wanted."""
        kind, why = self._kind_wanted(recipe, request), ""
        if max(request.published_size) > kind.longest_side:
            why = f"A side has more than the {kind.longest_side:,} pixels of {kind.name}"
        elif kind.name == "jpeg" and request.may_be_transparent:
            why = "It may be transparent, which JPEG cannot store"
        elif kind.name == "jpeg" and not fits_jpeg(request):
            why = "Its prompts are too long for JPEG's 64 kB of metadata"
        return why and f"{why}, so it is a PNG."

    def _kind_wanted(self, recipe: str, request: ImageRequest) -> Format:
        """Return the format that a recipe or the setting asks for."""
        wanted: str = request.format or self._format
        if wanted == SAME:
            dropped = recipe if is_picture_name(recipe) else ""
            photos = [dropped, request.image, *(use.image for use in request.references)]
            # Ledgers of earlier versions have requests for it without a picture.
            photo = next(filter(None, [*photos, *(use.image for use in request.control)]), "")
            wanted = _SAME_AS.get(PurePosixPath(photo).suffix.lower(), "png")
        return FORMATS[wanted]

    def _free(self, recipe: str, name: str, kind: Format, *, replaces: bool = False) -> str | None:
        """Return the file of this name, or None if a picture or text has it, with any suffix."""
        if f"{name}{SIDECAR_ENDING}".endswith((ERROR_ENDING, WARNING_ENDING)):
            name += "_"
        if MAP.search(f"{name}.png"):  # else it would be replaced and deleted as a control map
            name += "_"
        path = f"{self.folder(recipe)}/{self._fitting(name, len(kind.ending))}"
        taken = (lexists(f"{self._outbox}/{path}{end}") for end in (*ENDINGS, SIDECAR_ENDING))
        return None if not replaces and any(taken) else path + kind.ending

    def path(self, file: str) -> Path:
        return self._outbox / file

    def exists(self, file: str) -> bool:
        """Return whether anything has this path below the outbox."""
        return lexists(f"{self._outbox}/{file}")


def format_of(file: str) -> Format:
    """Return the format that a file's suffix names; PNG for any other suffix."""
    return next((kind for kind in FORMATS.values() if file.endswith(kind.ending)), PNG)


def sidecar_of(file: str) -> str:
    """Return the path of a picture's sidecar: its own with another suffix."""
    return file.removesuffix(format_of(file).ending) + SIDECAR_ENDING


def map_of(file: str, index: int) -> str:
    """Return the path of a picture's control map; from the second map on with a number."""
    number = f"-{index + 1}" if index else ""
    return f"{PurePosixPath(file).with_suffix('')}{MAP_ENDING.format(number)}"


def gallery_file(outbox: Path, name: str) -> Path:
    """Return a file of the gallery's data; raise OSError if links lead its folder elsewhere."""
    return to_write(outbox / STATE, f"gallery/{name}")


def is_own_file(path: str) -> bool:
    """Whether a path below the outbox is picowatch's own file, and no picture."""
    first = path.partition("/")[0].casefold()
    if is_picture_name(path):
        return first == STATE
    is_own = first in OWN_NAMES or ROTATED_LOG.fullmatch(first) is not None
    return is_own or path.endswith((ERROR_ENDING, WARNING_ENDING))


def picture_files(outbox: Path) -> Iterator[str]:
    """Yield the pictures in the recipes' folders, in any format, as paths below the outbox."""
    for folder, folders, names in os.walk(outbox):
        if folder == str(outbox):  # all files here are picowatch's own
            folders[:] = (name for name in folders if not name.startswith("."))
        else:
            below = folder.removeprefix(f"{outbox}/")
            yield from (f"{below}/{name}" for name in names if name.endswith(ENDINGS))


@lru_cache(maxsize=1024)  # each save has several files
def _portable(name: str) -> str:
    """Return the name such that every system can open it and every terminal can list it."""
    name = UNSAFE.sub("-", INVISIBLE.sub("-", name))
    device, dot, rest = name.partition(".")
    if device.rstrip(" ").casefold() in DEVICES:
        name = f"{device}_{dot}{rest}"
    return f"{name}_" if name.endswith((".", " ")) else name
