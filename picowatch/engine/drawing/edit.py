"""Draws from reference pictures.

A pipeline applies every reference in a call to every prompt, so each image gets its own call
(diffusers 0.42; docs/design.md). All prompts of a batch are encoded before its first
step, so that text encoders are loaded once per batch where parts take turns in memory.

If a recipe's size has the first reference's proportions, which is the default, reference and
picture share one grid: both are scaled or padded to a size that the model takes, and the result is
scaled back to the size of the recipe. Two different grids would move and zoom the contents of the
picture (QwenLM/Qwen-Image #229).
"""

from hashlib import sha256
from math import ceil, sqrt
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from picowatch.engine.drawing.canvas import Size, decoded, fit, padded
from picowatch.engine.drawing.draw import Group, Prompted
from picowatch.engine.drawing.flow import FlowDenoising
from picowatch.engine.model.families import pipeline_class, takes
from picowatch.engine.private import AUTO_RESIZE
from picowatch.families.row import References
from picowatch.files.decoding import decode_picture, decode_with_alpha, on_white
from picowatch.recipe.passes import Sampling
from picowatch.recipe.request import ImageRequest

_LEAST = 64  # FLUX.2 refuses smaller pictures (diffusers, flux2/image_processor.py)


class Frame(NamedTuple):
    """The size that a pipeline renders, and the part of it, from the top left, that is shown."""

    size: Size
    shown: Size

    def hold(self, picture: Image.Image) -> Image.Image:
        """Return a picture scaled to the shown part, its edges repeated up to the full size."""
        shown = fit(picture, self.shown, "stretch")
        return shown if self.size == self.shown else padded(shown, self.size, 0, 0)

    def release(self, picture: Image.Image, size: Size) -> Image.Image:
        """Return the shown part of a rendered picture in the size of the recipe."""
        return fit(picture.crop((0, 0, *self.shown)), size, "stretch")


def frame_for(size: Size, references: References) -> Frame:
    """Return the frame in which a family renders a picture of this size."""
    (width, height), multiple = size, references.multiple
    if references.stretched:
        # Must agree with calculate_dimensions of diffusers' pipeline_qwenimage_edit_plus.py and
        # pipeline_longcat_image_edit.py.
        wide = sqrt(references.area * (width / height))
        counts = [side / multiple for side in (wide, wide / (width / height))]
        sides = [ceil(count) if references.alone else max(1, round(count)) for count in counts]
        shown = sides[0] * multiple, sides[1] * multiple
        return Frame(shown, shown)
    scale = max(min(1.0, sqrt(references.area / (width * height))), _LEAST / min(size))
    shown = int(width * scale), int(height * scale)
    sides = [-(-side // multiple) * multiple for side in shown]
    return Frame((sides[0], sides[1]), shown)


def read_references(
    folder: Path | None,
    request: ImageRequest,
    references: References,
    part: Image.Image | None = None,
) -> tuple[Frame, list[Image.Image], list[str]]:
    """Return the frame of a request, its references as its family's pipeline takes them, warnings.

    They have their hashes as names in `folder`, and are read as RGB, or as RGBA if the family reads
    transparency. A `part` replaces the first. RenderFailed if a picture is missing or damaged.
    """
    size = request.drawn_size
    frame = frame_for(size, references)
    read = decode_with_alpha if references.alpha else decode_picture
    pictures = [decoded(read, folder, use.hash, use.image) for use in request.references]
    if part:
        pictures[0] = part if references.alpha else on_white(part)
    if references.alpha:
        pictures = [picture.convert("RGBA") for picture in pictures]
    (wide, high), (width, height) = pictures[0].size, size
    in_place = abs(wide * height - high * width) <= max(wide, high, width, height)  # but rounding
    if references.stretched:  # the pipeline scales each in its own proportions
        if in_place:
            pictures[0] = fit(pictures[0], size, "stretch")
        elif references.alone:
            pictures[0] = fit(pictures[0], size, "fit")
            named = request.references[0].image
            says = f"The reference '{named}' has other proportions, and its edges are repeated."
            return frame, pictures, [says]
        return frame, pictures, []
    small = [
        f"The reference '{use.image}' has only {its.width}x{its.height} pixels, and is enlarged."
        for use, its in zip(request.references, pictures, strict=True)
        if min(its.size) < _LEAST
    ]
    frames = [frame if in_place else frame_for(pictures[0].size, references)]
    frames += [frame_for(other.size, references) for other in pictures[1:]]
    held = [frame.hold(picture) for frame, picture in zip(frames, pictures, strict=True)]
    return frame, held, small


class Edit(NamedTuple):
    """The references of an image in their frame, its texts, and the encoded texts."""

    frame: Frame
    pictures: list[Image.Image]
    texts: dict[str, str]
    read: list[Any]


class EditDenoising(FlowDenoising):
    """Denoising with references: an image's conditions are an `Edit`."""

    def encode(self, request: ImageRequest) -> Prompted:
        """Implement `Denoising.encode`; no images share a call."""
        rules = self.loaded.variant.references
        assert rules
        is_part = request.mask_padding is not None
        part = self.job.canvas_of(request, request.drawn_size) if is_part else None
        seen = part and part.picture
        frame, pictures, small = read_references(self.job.start_images, request, rules, seen)
        hashes = tuple(use.hash for use in request.references)
        if part:
            hashes = (sha256(pictures[0].tobytes()).hexdigest(), *hashes[1:])
        texts = self._texts(request)
        read = []
        if self.loaded.row.kind != "general":
            read = [self.loaded.texts.read_with(text, pictures, hashes) for text in texts.values()]
        edit = Edit(frame, pictures, texts, read)
        return Prompted(object(), edit, warnings=(*self._warnings(request), *small))

    def run(self, group: Group, sampling: Sampling, before: list[Image.Image]) -> list[Image.Image]:
        self.loaded.bring_denoiser()
        (edit,) = group.conditions
        rules, (width, height) = self.loaded.variant.references, edit.frame.size
        many = rules and rules.most > 1
        call = pipeline_class(self.loaded.row, self.loaded.variant, "edit").__call__
        # FLUX.1 Kontext takes only proportions from the size; the reference keeps its own.
        given: dict[str, Any] = {name: [text] for name, text in edit.texts.items()}
        given |= {"max_area": width * height, AUTO_RESIZE: False}
        inputs = {name: value for name, value in given.items() if takes(call, name)}
        inputs |= {"image": edit.pictures if many else edit.pictures[0]}
        (drawn,) = self._call("edit", group, sampling, edit.frame.size, inputs, edit.read)
        return [edit.frame.release(drawn, sampling.size)]
