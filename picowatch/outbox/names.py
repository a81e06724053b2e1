"""The names of files in the outbox, and the formats that they mean.

The outbox mirrors the inbox, with one folder per recipe: the pictures of `inbox/pets/corgi.yaml`
are in `outbox/pets/corgi/`, its errors in `outbox/pets/corgi.yaml.error.txt`. No name leaves the
outbox or replaces one of picowatch's own. The ending of a picture's name decides its format, so one
that was reserved before the setting `format` changed is still what its name says.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from os.path import lexists
from pathlib import Path, PurePosixPath

from picowatch.files.names import is_picture_name
from picowatch.metadata.texts import fits_jpeg
from picowatch.recipe.request import ImageRequest
from picowatch.settings import Settings

SIDECAR_ENDING = ".txt"


@dataclass(frozen=True, slots=True)
class Format:
    """A format of published pictures.

    `longest_side` is the most pixels that the format, or its library, has room for. `quality` is
    what "auto" means; None for a format without one. `transparent`: pixels may be.
    """

    name: str
    ending: str
    longest_side: int
    quality: int | None = None
    transparent: bool = True

    @property
    def pillow_name(self) -> str:
        return self.name.upper()


FORMATS = {
    one.name: one
    for one in (
        Format("png", ".png", 2**31 - 1),
        Format("jpeg", ".jpg", 65_500, 92, transparent=False),  # libjpeg's JPEG_MAX_DIMENSION
        Format("webp", ".webp", 16_383, 90),  # 14 bits
        Format("avif", ".avif", 16_384, 80),  # what browsers decode
    )
}
PNG = FORMATS["png"]
ENDINGS = tuple(one.ending for one in FORMATS.values())
PILLOW_NAMES = tuple(one.pillow_name for one in FORMATS.values())

LATEST = tuple(f"latest{ending}" for ending in ENDINGS)
OWN_NAMES = {
    *LATEST,
    *("preview.png", "now.txt", "index.html", "picowatch.log", "images.jsonl", "failures.jsonl"),
    ".picowatch",
}
ROTATED_LOG = re.compile(r"picowatch\.log\.\d+")
MAP_ENDING = ".control{}.png"
ERROR_ENDING = ".error.txt"
WARNING_ENDING = ".warning.txt"
# What files in a recipe's folder end with: pictures, sidecars, and recipes that were archived.
FILE_ENDINGS = (*ENDINGS, SIDECAR_ENDING, ".yaml", ".yml")
# At the start of a picture's name; longer ones, which SQLite could not keep, are not ours.
NUMBER = re.compile(r"^(\d{1,15})(?!\d)")
NUMBERS = re.compile(r"(?<!\d)\d{1,15}(?!\d)")
MAP = re.compile(r"\.control(-\d+)?\.png$")
ORIGINALS = "originals"  # the folder of dropped pictures that are archived
ROOM = 40  # bytes after a dropped picture's name: its number, and the endings of files beside it
# Most file systems take 255 bytes a name, those of encrypted folders fewer (eCryptfs 143); the
# temporary of an atomic write is shorter.
MAX_NAME_BYTES = 255
# What Windows, exFAT or NTFS refuse in a name, or give a meaning.
UNSAFE = re.compile(r'[/\\:*?"<>|]+')
# What moves a cursor or turns text around where names are listed.
INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
# Windows takes these for devices, whatever follows after a dot
# (https://learn.microsoft.com/windows/win32/fileio/naming-a-file).
DEVICES = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"} | {
    port + number for port in ("com", "lpt") for number in "0123456789¹²³"
}


class OutboxNames:
    """Gives recipes their folders and pictures their files, all as paths below the outbox."""

    def __init__(self, settings: Settings) -> None:
        """New pictures are named as `file_name` and `format` say at that time."""
        self._settings = settings
        self._outbox = outbox = settings.outbox
        # Some shares say nothing, or 0; with names shorter than that hardly any program would work.
        limit = os.pathconf(outbox, "PC_NAME_MAX")
        self._max_name_bytes = limit if 100 <= limit <= MAX_NAME_BYTES else MAX_NAME_BYTES

    def folder(self, recipe: str) -> str:
        """The folder of a recipe's pictures: its path without ending; of a dropped picture's: its.

        A first part that is one of picowatch's own names (compared case-folded), a part that
        ends as files in these folders do, one at which a file exists, and one that Windows
        cannot open, gets `_` after it. Characters that Windows refuses become `-`.
        """
        path = PurePosixPath(recipe)
        own = () if is_picture_name(recipe) else (path.stem,)
        return "/".join(self._folders([*path.parent.parts, *own]))

    def _folders(self, parts: Sequence[str]) -> list[str]:
        """The folders of the outbox for these of the inbox."""
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
        """The path of a recipe's error file."""
        return self._beside(recipe, ERROR_ENDING)

    def warning_file(self, recipe: str) -> str:
        """The path of a recipe's warning file, which says what in it was ignored."""
        return self._beside(recipe, WARNING_ENDING)

    def _beside(self, recipe: str, ending: str) -> str:
        """The recipe's path with an ending; with a hash too if it had to be spelled otherwise."""
        *parts, name = recipe.split("/")
        folders = self._folders(parts)
        if [*folders, _portable(name)] == [*parts, name]:
            return "/".join([*folders, self._fitting(name, len(ending)) + ending])
        return "/".join([*folders, self._tagged(name, recipe, len(ending)) + ending])

    def highest_number(self, folder: str) -> int:
        """The highest number at the start of a picture's name there, 0 if there are no pictures."""
        try:
            names = [child.name for child in (self._outbox / folder).iterdir()]
        except OSError:
            return 0
        numbers = (NUMBER.match(name) for name in names if name.endswith(ENDINGS))
        return max((int(number[1]) for number in numbers if number), default=0)

    def number_of(self, file: str, recipe: str, request: ImageRequest) -> int:
        """The number in a picture's name as `file_name` writes it now, so no seed; else 0."""
        stem = PurePosixPath(file).stem
        numbers = map(int, NUMBERS.findall(stem))
        return next((one for one in numbers if self._name(recipe, one, request) == stem), 0)

    def file(self, recipe: str, number: int, request: ImageRequest) -> str | None:
        """A picture's path, or None if anything exists there already."""
        return self._free(recipe, self._name(recipe, number, request), request)

    def _name(self, recipe: str, number: int, request: ImageRequest) -> str:
        fields = {
            "number": number,
            "recipe": PurePosixPath(recipe).stem,
            "picture": PurePosixPath(request.image).stem,
            "checkpoint": request.checkpoint,
            "sampler": request.sampler,
            "seed": request.seed,
            "steps": request.steps,
            "cfg_scale": request.cfg_scale,
            "width": request.width,
            "height": request.height,
        }
        # Where an image has no {picture}, a name could be that of a hidden file.
        return _portable(self._settings.file_name.format_map(fields)).lstrip(".")

    def of_dropped(
        self, recipe: str, number: int, request: ImageRequest, *, keeps_ending: bool
    ) -> str | None:
        """The path of a dropped picture's result, or None if anything exists there already."""
        path = PurePosixPath(recipe)
        name = path.name if keeps_ending else path.stem
        later = f"-{number}" if number > 1 else ""
        name = f"{self._fitting(_portable(name), len(later) + ROOM)}{later}"
        return self._free(recipe, name, request)

    def sheet(self, recipe: str, number: int) -> str | None:
        """A contact sheet's path, or None if anything exists there already."""
        if is_picture_name(recipe):
            stem = self._fitting(_portable(PurePosixPath(recipe).stem), ROOM)
            later = f"-{number}" if number > 1 else ""
            return self._free(recipe, f"{stem}{later}-sheet")
        return self._free(recipe, f"{number:04}-sheet")

    def archived(self, file: str, number: int, recipe: str) -> str:
        """A path for a file's bytes in its recipe's folder; another one for each number, from 1 on.

        The file is the recipe itself, or lies beside a dropped picture.
        """
        path = PurePosixPath(file)
        ending = (f"-{number}" if number > 1 else "") + _portable(path.suffix)
        folder = self.folder(recipe)
        if is_picture_name(recipe):  # its result has its name
            folder = f"{folder}/{ORIGINALS}"
        return f"{folder}/{self._fitting(_portable(path.stem), len(ending))}{ending}"

    def _fitting(self, name: str, room: int = 0) -> str:
        """The name, shortened to what the file system takes; a hash keeps it its own."""
        if len(os.fsencode(name)) + room <= self._max_name_bytes:
            return name
        return self._tagged(name, name, room)

    def _tagged(self, name: str, whole: str, room: int = 0) -> str:
        """The name with a hash of `whole` after it, shortened to what the file system takes."""
        digest = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
        most = self._max_name_bytes - room - 9
        return f"{os.fsencode(_portable(name))[:most].decode('utf-8', 'ignore')}-{digest}"

    def _free(self, recipe: str, name: str, request: ImageRequest | None = None) -> str | None:
        """The file of this name, or None if anything exists there, whatever its ending.

        A picture of another format, or a text, beside it would look as if it belonged to it. A
        picture that is larger than its format allows, or has longer settings, is a PNG.
        """
        kind = FORMATS[self._settings.format]
        if request and not _fits(request, kind):
            kind = PNG
        if f"{name}{SIDECAR_ENDING}".endswith((ERROR_ENDING, WARNING_ENDING)):
            name += "_"
        if MAP.search(f"{name}.png"):  # it would be written over, and deleted with another picture
            name += "_"
        path = f"{self.folder(recipe)}/{self._fitting(name, len(kind.ending))}"
        if any(lexists(f"{self._outbox}/{path}{end}") for end in (*ENDINGS, SIDECAR_ENDING)):
            return None
        return path + kind.ending


def _fits(request: ImageRequest, kind: Format) -> bool:
    has_room = kind.name != "jpeg" or fits_jpeg(request)
    return has_room and max(request.published_size) <= kind.longest_side


def format_of(file: str) -> Format:
    """The format that a file's ending names; PNG for any other ending."""
    return next((one for one in FORMATS.values() if file.endswith(one.ending)), PNG)


def sidecar_of(file: str) -> str:
    """The text beside a picture: its file with another ending."""
    return file.removesuffix(format_of(file).ending) + SIDECAR_ENDING


def map_of(file: str, index: int) -> str:
    """The path of what a picture's ControlNet followed; the second one's has a number."""
    number = f"-{index + 1}" if index else ""
    return f"{PurePosixPath(file).with_suffix('')}{MAP_ENDING.format(number)}"


def picture_files(outbox: Path, ends: Callable[[], bool] = lambda: False) -> Iterator[str]:
    """The pictures in the recipes' folders, whatever their format, as paths below the outbox.

    No other folder is looked at once picowatch `ends`.
    """
    for folder, folders, names in os.walk(outbox):
        if ends():
            return
        if folder == str(outbox):  # here all files are picowatch's own
            folders[:] = (name for name in folders if not name.startswith("."))
        else:
            below = Path(folder).relative_to(outbox).as_posix()
            yield from (f"{below}/{name}" for name in names if name.endswith(ENDINGS))


@lru_cache(maxsize=1024)  # of a save, several files are named
def _portable(name: str) -> str:
    """The name as every system can open it and every terminal can list it."""
    name = UNSAFE.sub("-", INVISIBLE.sub("-", name))
    device, dot, rest = name.partition(".")
    if device.rstrip(" ").casefold() in DEVICES:
        name = f"{device}_{dot}{rest}"
    return f"{name}_" if name.endswith((".", " ")) else name
