"""Reference pictures of editing families, and the size that a pipeline renders. Imports no torch.

If a recipe's size has the first reference's proportions, which is the default, reference and
picture share one grid: both are scaled or padded to a size that the model takes, and the result is
scaled back to the size of the recipe. Two different grids would move and zoom the contents of the
picture (QwenLM/Qwen-Image #229).
"""

from math import sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from picowatch.engine.canvas import decoded
from picowatch.families import References
from picowatch.files.pictures import decode_picture, decode_with_alpha
from picowatch.recipe.request import ImageRequest

Size = tuple[int, int]
_LANCZOS = Image.Resampling.LANCZOS


class Frame(NamedTuple):
    """The size that a pipeline renders, and the part of it, from the top left, that is shown."""

    size: Size
    shown: Size

    def hold(self, picture: Image.Image) -> Image.Image:
        """Return a picture scaled to the shown part, its edges repeated up to the full size."""
        if picture.size != self.shown:
            picture = picture.resize(self.shown, _LANCZOS)
        (width, height), (inner_width, inner_height) = self.size, self.shown
        if self.size == self.shown:
            return picture
        margins = [(0, height - inner_height), (0, width - inner_width), (0, 0)]
        return Image.fromarray(np.pad(np.asarray(picture), margins, mode="edge"))

    def release(self, picture: Image.Image, size: Size) -> Image.Image:
        """Return the shown part of a rendered picture in the size of the recipe."""
        shown = picture.crop((0, 0, *self.shown)) if self.size != self.shown else picture
        return shown if shown.size == size else shown.resize(size, _LANCZOS)


def frame_for(size: Size, references: References) -> Frame:
    """Return the frame in which a family renders a picture of this size."""
    width, height = size
    if references.stretched:
        # Must agree with calculate_dimensions of diffusers' pipeline_qwenimage_edit_plus.py.
        wide = sqrt(references.area * width / height)
        shown = (
            _nearest(wide, references.multiple),
            _nearest(wide * height / width, references.multiple),
        )
        return Frame(shown, shown)
    scale = min(1.0, sqrt(references.area / (width * height)))
    shown = max(1, int(width * scale)), max(1, int(height * scale))
    return Frame(
        (_above(shown[0], references.multiple), _above(shown[1], references.multiple)), shown
    )


def _nearest(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple


def _above(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def read_references(
    folder: Path | None, request: ImageRequest, references: References
) -> tuple[Frame, list[Image.Image]]:
    """Return the frame of a request, and its references as its family's pipeline takes them.

    They are read from `folder`, where they have their hashes as names: as RGB, or as RGBA if the
    family reads transparency. RenderFailed if one is missing or damaged.
    """
    frame = frame_for(request.size_before_upscale, references)
    read = decode_with_alpha if references.alpha else decode_picture
    pictures = [decoded(read, folder, use.hash, use.image) for use in request.references]
    size = request.size_before_upscale
    in_place = is_in_proportion(pictures[0].size, size)
    if references.stretched:  # the pipeline scales each in its own proportions
        if in_place and pictures[0].size != size:
            pictures[0] = pictures[0].resize(size, _LANCZOS)
        return frame, pictures
    frames = [frame if in_place else frame_for(pictures[0].size, references)]
    frames += [frame_for(other.size, references) for other in pictures[1:]]
    return frame, [one.hold(picture) for one, picture in zip(frames, pictures, strict=True)]


def is_in_proportion(one: Size, other: Size) -> bool:
    """Return whether two sizes have the same proportions, up to whole pixels."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(*one, *other)
