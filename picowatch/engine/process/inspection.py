"""Whether an engine gave what it was asked for. Imports no torch.

The engine is another process, and its libraries are not ours: what is no picture of the
request must not be published as one.
"""

from collections.abc import Sequence

from picowatch.engine.protocol import RenderedImage
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.resolve.hires import final_side


def flaw(images: object, batch: Sequence[ImageRequest]) -> str:
    """What is wrong with the batch's pictures, in a sentence; "" if nothing is."""
    if not isinstance(images, list):
        return "The engine gave something else than pictures."
    if len(images) != len(batch):
        return f"The engine gave {len(images)} pictures where {len(batch)} were asked for."
    flaws = (_flaw_of(image, request) for image, request in zip(images, batch, strict=True))
    return next(filter(None, flaws), "")


def _flaw_of(image: object, request: ImageRequest) -> str:
    if not isinstance(image, RenderedImage):
        return "The engine gave something else than pictures."
    scale = request.hires.scale if request.hires else 1
    width, height = final_side(request.width, scale), final_side(request.height, scale)
    smaller = request.shrink_to_fit and 0 < image.width <= width and 0 < image.height <= height
    if (image.width, image.height) != (width, height) and not smaller:
        return (
            f"The engine gave a picture of {image.width}x{image.height} pixels where "
            f"{width}x{height} were asked for."
        )
    if not isinstance(image.pixels, bytes):
        return "The engine gave a picture without pixels."
    expected = 3 * image.width * image.height
    if len(image.pixels) != expected:
        return f"The engine gave a picture of {len(image.pixels):,} bytes instead of {expected:,}."
    return ""
