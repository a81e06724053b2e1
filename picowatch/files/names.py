"""Names of files and folders: which are pictures, how they sort, which folders are skipped.

No file is opened here, and no module is imported that opens any.
"""

import re

# Suffixes of the formats that pictures.py reads.
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif"),
    *(".heic", ".heif", ".hif"),  # with the extra heic
)
RAW_ENDINGS = (
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
    *(".3fr", ".fff", ".iiq", ".x3f", ".rwl", ".gpr", ".mrw", ".crw", ".kdc", ".dcr", ".mef"),
)
# Suffixes of pictures and films that people drop, but that are not read.
OTHER_ENDINGS = (
    *RAW_ENDINGS,
    *(".jxl", ".jp2", ".psd", ".psb", ".xcf", ".kra", ".svg", ".pdf"),
    *(".exr", ".hdr", ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"),
    *(".tga", ".dds", ".ico", ".icns", ".pcx", ".ppm", ".pgm", ".pnm"),
)
MASK_MARK = ".mask"  # 0001.mask.png is the mask of 0001.png


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is a picture in a format that is read, by its suffix."""
    return name.lower().endswith(ENDINGS)


def is_other_picture_name(name: str) -> bool:
    """Whether a file of this name is a picture or film in a format that is not read."""
    return name.lower().endswith(OTHER_ENDINGS)


def is_mask_name(name: str) -> bool:
    """Whether a file of this name is the mask of a picture beside it."""
    return is_picture_name(name) and stem_of(name).lower().endswith(MASK_MARK)


def stem_of(path: str) -> str:
    """Return the path without its suffix."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def first_folder(path: str) -> str:
    """Return the folder at the inbox's first level that has a recipe, "" for the inbox itself."""
    return path.partition("/")[0] if "/" in path else ""


def with_mask(picture: str) -> tuple[str, str]:
    """Return the path of a dropped picture, and that of its mask."""
    return picture, f"{stem_of(picture)}{MASK_MARK}.png"


_NUMBERS = re.compile(r"(\d+)")

NaturalKey = tuple[tuple[tuple[int, str], ...], ...]


def natural_key(path: str) -> NaturalKey:
    """Return a key that sorts folder by folder, ignoring case, and numbers by their value."""
    return (*(_key(part.casefold()) for part in path.split("/")), _key(path))


def _key(name: str) -> tuple[tuple[int, str], ...]:
    """Return texts and numbers in turn, so that only like is compared with like."""
    parts = _NUMBERS.split(name)
    return tuple(
        (int(part), part) if index % 2 and len(part) < 1000 else (0, part)
        for index, part in enumerate(parts)
    )


SKIPPED_FOLDERS = {
    *("__macosx", "@eadir", "lost+found", "node_modules", "system volume information"),
    *("$recycle.bin", "#recycle", "@recycle"),  # the bins of Windows, Synology and QNAP
    *("#snapshot", "@recently-snapshot", "~snapshot"),  # Synology's, QNAP's and NetApp's copies
}
