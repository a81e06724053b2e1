"""Names of files and folders: which are pictures, which come first, which folders are skipped.

Nothing is opened, nor imported what could.
"""

import re

# Of the names of files in the formats that are read: pictures.py has these.
ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif")
# Pictures and films that people drop, and that are not read.
OTHER_ENDINGS = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".psd", ".psb", ".xcf", ".kra", ".svg", ".pdf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".nrw", ".arw", ".raf", ".orf", ".rw2", ".pef", ".srw"),
    *(".exr", ".hdr", ".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v"),
)
MASK_MARK = ".mask"  # 0001.mask.png is the mask of 0001.png


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is a picture that can be read, as far as its ending tells."""
    return name.lower().endswith(ENDINGS)


def is_other_picture_name(name: str) -> bool:
    """Whether a file of this name is a picture or film in a format that is not read."""
    return name.lower().endswith(OTHER_ENDINGS)


def is_mask_name(name: str) -> bool:
    """Whether a file of this name is the mask of a picture beside it."""
    return is_picture_name(name) and stem_of(name).lower().endswith(MASK_MARK)


def stem_of(path: str) -> str:
    """The path without its ending."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def names_of_dropped(old: str, new: str) -> dict[str, str]:
    """What a dropped picture and its mask are called after it was renamed, by their old names."""
    mask = f"{MASK_MARK}.png"
    return {old: new, stem_of(old) + mask: stem_of(new) + mask}


_NUMBERS = re.compile(r"(\d+)")

NaturalKey = tuple[tuple[tuple[int, str], ...], ...]


def natural_key(path: str) -> NaturalKey:
    """Sorts paths folder by folder, without regard to case, and numbers in them by their value."""
    return (*(_key(part.casefold()) for part in path.split("/")), _key(path))


def _key(name: str) -> tuple[tuple[int, str], ...]:
    """Texts and numbers take turns in it, so that only like is compared with like."""
    parts = _NUMBERS.split(name)
    return tuple(
        (int(part), part) if index % 2 and len(part) < 1000 else (0, part)
        for index, part in enumerate(parts)
    )


SKIPPED_FOLDERS = {
    *("__macosx", "@eadir", "lost+found", "node_modules", "system volume information"),
    *("$recycle.bin", "#recycle", "@recycle"),  # bins of Windows, Synology and QNAP: it is deleted
    *("#snapshot", "@recently-snapshot", "~snapshot"),  # Synology's, QNAP's and NetApp's copies
}
