"""The files that a recipe and its requests name: THE table of the places that name files."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from picowatch.recipe.fields import BAKED, ImageFields
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
    return {
        field: _renamed(getattr(holder, field), part, name_of)
        for _, field, part, _, kind, _ in PLACES
        if kind in PICTURE_KINDS
    }


def _renamed(value: Any, part: str, name_of: Callable[[str], str]) -> Any:
    if isinstance(value, tuple):
        return tuple(_renamed(entry, part, name_of) for entry in value)
    if isinstance(value, str):
        return name_of(value) if value else value
    return replace(value, **{part: name_of(getattr(value, part))}) if part else value
