"""Start images and masks, fitted to the size of the rendered picture. Imports no torch."""

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageChops, ImageFilter, ImageOps

from picowatch.errors import PictureUnreadable, RenderFailed
from picowatch.files import decoding
from picowatch.files.pictures import picture_size
from picowatch.recipe.extend import margins_of
from picowatch.recipe.fields import ALPHA
from picowatch.recipe.request import ImageRequest

Size = tuple[int, int]
Box = tuple[int, int, int, int]
T = TypeVar("T")


class Canvas(NamedTuple):
    """The start image and mask of an image, at the size of its pass."""

    picture: Image.Image
    redrawn: Image.Image | None = None  # white in the area to redraw, black elsewhere
    opacity: Image.Image | None = None  # of the new picture over the start image: a soft edge
    # If only a part is drawn, the whole start image, and the box with `picture` and `redrawn`;
    # `opacity` has the box's own size.
    whole: Image.Image | None = None
    box: Box = (0, 0, 0, 0)

    def under(self, drawn: Image.Image) -> Image.Image:
        """Return the new picture over the start image, which outside the mask stays unchanged."""
        if self.opacity is None:
            return drawn
        whole, size = self.whole or self.picture, self.opacity.size
        shown = fit(drawn.crop(_inner(size, drawn.size)), size, "stretch")
        if (whole.mode, drawn.mode) == ("RGBA", "RGB"):
            kept = whole.copy()
            shown.putalpha(self.opacity)
            kept.alpha_composite(shown, self.box[:2])
            return decoding.without_full_alpha(kept)
        kept = whole.convert(drawn.mode)
        kept.paste(shown, self.box[:2], self.opacity)
        return kept


def read_canvas(
    folder: Path | None, request: ImageRequest, size: Size, found: Image.Image | None = None
) -> Canvas | None:
    """Return the request's start image and mask from `folder` in another size, None without any.

    `found` is a mask that words found. A mask without a start image belongs to the first reference.
    """
    path, kept = request.masked
    if not request.image and not request.mask:
        return None
    if request.extend:
        return _extended(decoded(decoding.decode_picture, folder, kept, path), request, size)
    picture = decoded(
        decoding.decode_with_alpha if request.mask else decoding.decode_picture, folder, kept, path
    )
    if not request.mask:
        return Canvas(fit(picture, size, request.resize))
    decode = decoding.decode_alpha if request.mask_is_alpha else decoding.decode_mask
    mask = found or decoded(decode, folder, request.mask_hash, request.painted_mask)
    padding = request.mask_padding
    if padding is not None:
        redrawn = redrawn_area(mask, request, picture.size)
        canvas = part_of(picture, redrawn, _with_soft_edge(redrawn, request), padding, size)
    elif picture.size == request.given_size != size:
        canvas = _resized(picture, mask, request, size)
    else:
        picture, redrawn = fit(picture, size, request.resize), redrawn_area(mask, request, size)
        canvas = Canvas(picture, redrawn, _with_soft_edge(redrawn, request), picture, (0, 0, *size))
    if request.mask_is_alpha and not request.mask_invert:  # what is transparent is filled
        canvas = canvas._replace(whole=decoding.on_white(canvas.whole or picture))
    # Only a reference is seen with its transparency.
    return canvas._replace(picture=decoding.on_white(canvas.picture)) if request.image else canvas


def _resized(picture: Image.Image, mask: Image.Image, request: ImageRequest, size: Size) -> Canvas:
    """Return the canvas of a picture that keeps its size, which is not that of what is drawn."""
    mask = fit(mask, picture.size, request.resize)
    redrawn = redrawn_area(fit(mask, size, "fit", Image.Resampling.BOX), request, size)
    soft = _with_soft_edge(redrawn, request)
    opacity = soft.crop(_inner(picture.size, size)).resize(picture.size, Image.Resampling.BILINEAR)
    if request.painted_mask and not (request.image and request.mask_blur):
        opacity = ImageChops.darker(opacity, redrawn_area(mask, request, picture.size))
    return Canvas(fit(picture, size, "fit"), redrawn, opacity, picture, (0, 0, *picture.size))


def part_of(
    picture: Image.Image, redrawn: Image.Image, opacity: Image.Image, padding: int, size: Size
) -> Canvas:
    """Return the part of a picture to draw: the mask with its soft edge, and pixels around it.

    It has `size`'s proportions where the picture has room for them.
    """
    area = ImageChops.lighter(redrawn, opacity).getbbox() or (0, 0, *picture.size)
    left, top = max(0, area[0] - padding), max(0, area[1] - padding)
    right, bottom = min(picture.width, area[2] + padding), min(picture.height, area[3] + padding)
    wide, high = right - left, bottom - top
    left, right = _widened(left, right, round(high * size[0] / size[1]), picture.width)
    top, bottom = _widened(top, bottom, round(wide * size[1] / size[0]), picture.height)
    box = left, top, right, bottom
    part = Canvas(fit(picture.crop(box), size, "fit"), None, opacity.crop(box), picture, box)
    # Each pixel that has a share of the area is redrawn, so that no thin line is lost.
    shares = fit(redrawn.crop(box), size, "fit", Image.Resampling.BOX)
    return part._replace(redrawn=shares.point(lambda share: 255 if share else 0))


def _widened(begin: int, end: int, length: int, most: int) -> tuple[int, int]:
    """Return a stretch of at least this length around another, from 0 to at most `most`."""
    length = min(max(length, end - begin), most)
    begin = max(0, min(begin - (length - (end - begin)) // 2, most - length))
    return begin, begin + length


def redrawn_area(mask: Image.Image, request: ImageRequest, size: Size) -> Image.Image:
    """Return what a mask selects, white on black, in another size."""
    area = fit(mask, size, request.resize).point(lambda grey: 255 if grey >= decoding.WHITE else 0)
    if request.found_mask and not area.getbbox():  # nothing is redrawn, inverted or not
        return area
    # Before it grows: otherwise a rim of the old background is left around what stays.
    area = ImageOps.invert(area) if request.mask_invert else area
    return grown(area, request.found_mask.grow if request.found_mask else 0)


def grown(area: Image.Image, pixels: int) -> Image.Image:
    """Return a white area that is wider by so many pixels on each side, below 0 narrower."""
    if pixels < 0:
        return ImageOps.invert(grown(ImageOps.invert(area), -pixels))
    for radius in ((pixels, 0), (0, pixels)):
        area = area.filter(ImageFilter.BoxBlur(radius)).point(lambda share: 255 if share else 0)
    return area


def _extended(picture: Image.Image, request: ImageRequest, size: Size) -> Canvas:
    """Return a picture with margins of its outermost pixels, which are redrawn.

    It keeps its shape where the size is not in proportion: the margins take the difference. The
    soft edge lies in the picture, too, so that no seam shows.
    """
    margins = margins_of(request.extend, picture.size)
    added = margins.left + margins.right, margins.top + margins.bottom
    scales = [size[i] / (picture.size[i] + added[i]) for i in (0, 1)]
    scale = min([scales[i] for i in (0, 1) if not added[i]] or scales)
    scale = min(scale, *(size[i] / picture.size[i] for i in (0, 1)))
    width, height = (max(1, round(picture.size[i] * scale)) for i in (0, 1))
    left = round((size[0] - width) * (margins.left / added[0] if added[0] else 0.5))
    top = round((size[1] - height) * (margins.top / added[1] if added[1] else 0.5))
    inner = picture.resize((width, height), Image.Resampling.LANCZOS)
    redrawn = Image.new("L", size, 255)
    redrawn.paste(0, (left, top, left + width, top + height))
    soft = redrawn.filter(ImageFilter.GaussianBlur(request.mask_blur))
    return Canvas(padded(inner, size, left, top), redrawn, soft)


def padded(picture: Image.Image, size: Size, left: int, top: int) -> Image.Image:
    """Return a picture of this size, with the outermost pixels of the given picture around that."""
    pixels = np.asarray(picture)
    margins = [
        (top, size[1] - picture.height - top),
        (left, size[0] - picture.width - left),
        *[(0, 0)] * (pixels.ndim - 2),
    ]
    return Image.fromarray(np.pad(pixels, margins, mode="edge"))


def _with_soft_edge(area: Image.Image, request: ImageRequest) -> Image.Image:
    """Return an area with a blurred edge, of which a reference has the inner half, as soft.

    Nothing of a reference is kept in what is drawn, so a mixture outside would show a seam.
    """
    soft = area.filter(ImageFilter.GaussianBlur(request.mask_blur))
    if request.image:
        return soft
    return ImageChops.darker(area, soft.point(lambda value: max(0, 2 * value - 255)))


def fit(
    picture: Image.Image,
    size: Size,
    resize: str,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> Image.Image:
    """Return the picture in another size.

    "crop" fills the size and cuts off the excess on two sides, "stretch" changes the proportions.
    "fit" shows the whole picture and fills the rest with its outermost pixels, as A1111's "Resize
    and fill" does. A picture of the right size stays as it is.
    """
    if picture.size == size:
        return picture
    if resize == "stretch":
        return picture.resize(size, resampling)
    if resize == "crop":
        return ImageOps.fit(picture, size, resampling)
    left, top, right, bottom = _inner(picture.size, size)
    return padded(picture.resize((right - left, bottom - top), resampling), size, left, top)


def _inner(shown: Size, size: Size) -> Box:
    """Return where a picture lies in another size that shows all of it."""
    scale = min(size[0] / shown[0], size[1] / shown[1])
    width, height = (max(1, round(side * scale)) for side in shown)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def decoded(decode: Callable[[bytes], T], folder: Path | None, digest: str, path: str) -> T:
    """Decode a picture that was stored under its hash when the save was accepted."""
    try:
        content = (folder / digest).read_bytes() if folder else b""
    except OSError:
        content = b""
    if sha256(content).hexdigest() != digest:
        raise RenderFailed(
            f"The copy of '{path}' is missing or damaged.",
            "Save the recipe again to make a new copy.",
        )
    try:
        return decode(content)
    except PictureUnreadable as unreadable:
        raise RenderFailed(unreadable.message, unreadable.remedy) from unreadable


_MOST_STRETCHED = 0.02  # a mask's shape beside the picture's or the result's
# Names of ControlNets that follow light lines on black.
_FOLLOWS_LINES = re.compile(r"canny|lineart|scribble|sketch|soft_?edge|hed|mlsd|\bedges", re.I)
_LIGHT_GROUND = 0.8  # the least share of light pixels in a picture of dark lines


@lru_cache(maxsize=64)
def _greys(
    decode: Callable[[bytes], Image.Image], folder: Path | None, digest: str, path: str
) -> list[int]:
    """Count a picture's pixels of each grey; many images have the same mask."""
    return decoded(decode, folder, digest, path).convert("L").histogram()


@lru_cache(maxsize=64)
def _size(folder: Path | None, path: str, digest: str) -> Size:
    return decoded(lambda content: picture_size(BytesIO(content)), folder, digest, path)


def picture_warnings(folder: Path | None, request: ImageRequest) -> list[str]:
    """Return warnings about masks and sketches whose effect is probably none or unexpected."""
    found: list[str] = []
    if path := request.painted_mask:
        name = f"{ALPHA} of {path}" if request.mask_is_alpha else path
        decode = decoding.decode_alpha if request.mask_is_alpha else decoding.decode_mask
        counts = _greys(decode, folder, request.mask_hash, path)
        found += decoding.mask_warnings(name, counts, request.mask_invert)
        if request.masked[1]:
            picture, mask = (
                _size(folder, *of) for of in (request.masked, (path, request.mask_hash))
            )
            shapes = picture, request.size_before_upscale
            if all(abs(w * mask[1] / (h * mask[0]) - 1) > _MOST_STRETCHED for w, h in shapes):
                found.append(
                    f"The mask '{path}' has {mask[0]}x{mask[1]} pixels, and the picture "
                    f"{picture[0]}x{picture[1]}: that is another shape, so the mask is fitted by "
                    f"resize: {request.resize}."
                )
    for use in request.control:
        follows_lines = _FOLLOWS_LINES.search(use.kind or use.model)
        if use.preprocess != "none" or not use.image_hash or not follows_lines:
            continue
        counts = _greys(decoding.decode_picture, folder, use.image_hash, use.image)
        if sum(counts[decoding.WHITE :]) >= _LIGHT_GROUND * sum(counts):
            found.append(
                f"'{use.image}' has dark lines on a light ground, and '{use.model}' follows light "
                "lines on black. Write preprocess: invert."
            )
    return found
