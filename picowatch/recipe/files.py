"""The files that a recipe and its requests name: THE table of the places that name files.

Reading a recipe never opens a file itself: `Pictures` give access to those that it names.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from picowatch.errors import PictureUnreadable
from picowatch.recipe.fields import BAKED, MAX_PHOTO_PIXELS, ImageFields
from picowatch.recipe.parts import UPSCALERS

# Place, kind, and the field of a request (of a list: of its entry) that has the file's sha256.
# LoRAs and embeddings are named in prompts, too: `Prompts.named` finds them.
FILES = (
    ("checkpoint", "checkpoint", "checkpoint_hash"),
    ("vae", "vae", "vae_hash"),
    ("image", "image", "image_hash"),
    ("mask", "mask", "mask_hash"),
    ("mask.model", "segmentation", "mask_finder_hash"),
    ("hires.upscaler", "upscaler", "hires_upscaler_hash"),
    ("detail[].model", "segmentation", "finder_hash"),
    ("upscale.model", "upscaler", "upscaler_hash"),
    ("cutout.model", "cutout", "cutout_hash"),
    ("references[].image", "image", "hash"),
    ("control[].image", "image", "image_hash"),
    ("control[].model", "controlnet", "model_hash"),
    ("control[].depth", "depth", "depth_hash"),
)
PICTURE_KINDS = ("image", "mask")
# Values that name no file.
NO_FILES = {"vae": (BAKED,), "hires.upscaler": UPSCALERS}
# Each place with its field, its part, and whether the field is a list.
PLACES = [
    (place, *place.replace("[]", "").partition(".")[::2], "[]" in place, kind, hash_)
    for place, kind, hash_ in FILES
]


class NamedFile(NamedTuple):
    """A file that a recipe or a request names."""

    field: str  # that names it, like `control.0.model`
    kind: str
    name: str
    hash_field: str  # that has its hash in a request
    sha256: str  # "" where only a recipe names it


def files_of(holder: ImageFields, *, has_hashes: bool = False) -> Iterator[NamedFile]:
    """Yield the files that a recipe names, or a request (`has_hashes`), in the table's order."""
    for place, field, part, is_list, kind, hash_ in PLACES:
        if not (value := getattr(holder, field)):
            continue
        for index, entry in enumerate(value if is_list else (value,)):
            at = f"{field}.{index}" if is_list else field
            is_name = isinstance(entry, str)
            # A mask is a path, or what finds it.
            is_other = (part and not is_list) if is_name else not part
            name = "" if is_other else entry if is_name else getattr(entry, part)
            if name and name not in NO_FILES.get(place, ()):
                kind = entry.file[0] if field == "cutout" else kind
                sha256 = getattr(entry if is_list else holder, hash_) if has_hashes else ""
                where = f"{at}.{hash_}" if is_list else hash_
                yield NamedFile(at if is_name else f"{at}.{part}", kind, name, where, sha256)


def with_pictures(holder: ImageFields, name_of: Callable[[str], str]) -> dict[str, Any]:
    """Return the fields of a recipe or a request that name pictures, each by another name."""
    named = ((field, part) for _, field, part, _, kind, _ in PLACES if kind in PICTURE_KINDS)
    return {field: _renamed(getattr(holder, field), part, name_of) for field, part in named}


def _renamed(value: Any, part: str, name_of: Callable[[str], str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_renamed(entry, part, name_of) for entry in value)
    if isinstance(value, str):
        return name_of(value) if value else value
    return replace(value, **{part: name_of(getattr(value, part))}) if part else value


def as_written(path: str) -> str:
    """Return a path as a recipe can write it, where a leading space is not part of the path."""
    return f"./{path}" if path.startswith(" ") else path


_NOT_HERE = "pictures cannot be read here."


class Pictures:
    """The pictures of one recipe, by the paths that it gives. This class knows no files.

    Subclasses that read files raise PictureUnreadable where they cannot.
    """

    most_pixels = 2_000_000  # of `size: picture`: larger pictures are reduced
    most_photo_pixels = MAX_PHOTO_PIXELS  # of any picture or result

    def check(self, path: str) -> None:
        """Raise PictureUnreadable if a picture cannot be used."""

    def size(self, path: str) -> tuple[int, int]:
        """Width and height of a picture, upright."""
        raise PictureUnreadable(_NOT_HERE)

    def is_transparent(self, path: str) -> bool:
        """Whether anything in a picture is transparent."""
        raise PictureUnreadable(_NOT_HERE)

    def is_photo(self, path: str) -> bool:
        """Whether a picture was taken by a camera, as far as one can tell."""
        return False

    def taken(self, path: str) -> datetime:
        """When a picture was taken, or else when its file was changed last."""
        raise PictureUnreadable(_NOT_HERE)

    def texts(self, path: str) -> Mapping[str, str]:
        """The texts in a picture's metadata, by keyword."""
        raise PictureUnreadable(_NOT_HERE)

    def inside(self, path: str) -> str | None:
        """Return an absolute path as `inbox/…` or `outbox/…`, None if it leads elsewhere."""
        return None

    def beside(self, file: str, path: str) -> str:
        """Return the path of a picture that a file names, which may lie above the recipe."""
        return path

    def called_here(self, path: str, digest: str, folder: str) -> str:
        """Return this recipe's path to the picture that a recipe in `folder` calls `path`.

        The picture is recognised by its sha256; without a match, the path stays as it is.
        """
        return path


NO_PICTURES = Pictures()
