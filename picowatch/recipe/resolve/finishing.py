"""Rules about the published picture, whether it is drawn or only finished."""

from collections.abc import Iterator

from picowatch.recipe.converters import SAME
from picowatch.recipe.messages.problems import NOTHING, Finding
from picowatch.recipe.parts import Cutout
from picowatch.recipe.recipe import Recipe


def mistakes_in_finishing(recipe: Recipe) -> Iterator[Finding]:
    """Check how a picture is enlarged, resized and written."""
    yield from _upscaled_size(recipe)
    yield from _resized(recipe)
    yield from _file_format(recipe)
    cutout, usual = recipe.cutout, Cutout.confidence
    if cutout and not cutout.find and cutout.confidence != usual:
        what = "cutout confidence has no effect without find."
        yield Finding("cutout.confidence", what, "Add find, or remove confidence.", usual)


def _upscaled_size(recipe: Recipe) -> Iterator[Finding]:
    width, height = recipe.size_after_upscale
    most = recipe.context.most_photo_pixels
    if recipe.upscale and width * height > most:
        before = recipe.size_before_upscale
        what = (
            f"upscale makes {width}x{height} from {before[0]}x{before[1]}; the limit is "
            f"{most / 1e6:g} million pixels (max_photo_megapixels)."
        )
        scale = int((most / (before[0] * before[1])) ** 0.5 * 4) / 4
        instead = scale if scale >= 1 else NOTHING
        yield Finding("upscale.scale", what, "Use a smaller scale.", instead, of_checkpoint=False)


def _resized(recipe: Recipe) -> Iterator[Finding]:
    """Check that a size is said, in words that fit together, and is not too large."""
    wanted, place = recipe.resize_to, "resize_to"
    if not wanted:
        return
    for_inside = "longest_side", "shortest_side", "megapixels"
    beside = [name for name in for_inside if getattr(wanted, name)]
    if not (beside or wanted.width or wanted.height):
        what = "says no size."
        remedy = "Write longest_side, shortest_side, width, height or megapixels there."
    elif wanted.fit != "inside" and not (wanted.width and wanted.height):
        place, what = "resize_to.fit", f"with fit: {wanted.fit} needs width and height."
        remedy = "Add both, or remove fit."
    elif wanted.fit != "inside" and beside:
        place = f"resize_to.{beside[0]}"
        what = f"{beside[0]} is for fit: inside; {wanted.fit} has width and height."
        remedy = f"Remove {beside[0]}, or fit."
    else:
        (width, height), most = recipe.published_size, recipe.context.most_photo_pixels
        if width * height <= most or (width, height) == recipe.size_before_resize:
            return
        limit = f"the limit is {most / 1e6:g} million pixels (max_photo_megapixels)."
        what, remedy = f"makes {width}x{height}; {limit}", "Use a smaller size."
    yield Finding(place, f"resize_to {what}", remedy, of_checkpoint=False)


def _file_format(recipe: Recipe) -> Iterator[Finding]:
    if recipe.format == SAME and not (recipe.image or recipe.references or recipe.control):
        remedy = "Add image or references, or write png, jpeg, webp, avif or tiff."
        what = "format: same is the format of the start image."
        yield Finding("format", what, remedy, "", of_checkpoint=False)
    if recipe.quality == "lossless" and recipe.format in ("jpeg", "avif"):
        remedy = "Use webp or png, or a quality from 1 to 100."
        yield Finding("quality", f"{recipe.format} has no lossless.", remedy, "")
