"""Rules about the published picture, whether it is drawn or only finished."""

from collections.abc import Iterator

from picowatch.recipe.converters import SAME
from picowatch.recipe.fields import MAX_UPSCALED_PIXELS
from picowatch.recipe.recipe import Recipe
from picowatch.recipe.resolve.severity import NOTHING, Finding


def mistakes_in_finishing(recipe: Recipe) -> Iterator[Finding]:
    """Check how a picture is enlarged and written."""
    yield from _upscaled_size(recipe)
    yield from _file_format(recipe)
    if recipe.says("cutout.confidence") and not (recipe.cutout and recipe.cutout.find):
        what = "cutout confidence has no effect without find."
        yield Finding("cutout.confidence", what, "Add find, or remove confidence.", 0.3)


def _upscaled_size(recipe: Recipe) -> Iterator[Finding]:
    width, height = recipe.size_after_upscale
    if recipe.upscale and width * height > MAX_UPSCALED_PIXELS:
        before = recipe.size_before_upscale
        what = (
            f"upscale makes {width}x{height} from {before[0]}x{before[1]}; the limit is "
            f"{MAX_UPSCALED_PIXELS // 1_000_000} million pixels."
        )
        scale = int((MAX_UPSCALED_PIXELS / (before[0] * before[1])) ** 0.5 * 4) / 4
        instead = scale if scale >= 1 else NOTHING
        yield Finding("upscale.scale", what, "Use a smaller scale.", instead, of_checkpoint=False)


def _file_format(recipe: Recipe) -> Iterator[Finding]:
    if recipe.format == SAME and not (recipe.image or recipe.references or recipe.control):
        remedy = "Add image or references, or write png, jpeg, webp or avif."
        what = "format: same is the format of the start image."
        yield Finding("format", what, remedy, "", of_checkpoint=False)
    if recipe.quality == "lossless" and recipe.format in ("jpeg", "avif"):
        remedy = "Use webp or png, or a quality from 1 to 100."
        yield Finding("quality", f"{recipe.format} has no lossless.", remedy, "")
