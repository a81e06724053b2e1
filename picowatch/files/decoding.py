"""Decodes pictures and masks: in sRGB, or in a picture's own colours and bits."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from typing import IO, NamedTuple, cast

from PIL import Image, ImageChops, ImageCms

from picowatch.files import colours
from picowatch.files.pictures import opened, upright

WHITE = 128  # a mask's grey from here on counts as white
_DARK_GREY, _LIGHT_GREY = 64, 192
_MOST_GREY = 0.3  # of a mask; soft edges have less
_MAX_PROFILE_BYTES = 4 * 1024 * 1024  # printers' have one or two

Colour = tuple[int, int, int]


def decode_picture(content: bytes) -> Image.Image:
    """Return an RGB picture: upright (EXIF), in sRGB, transparency on white, 16 bits scaled to 8.

    Raises PictureUnreadable with a sentence for people: not a picture, too large (known from the
    header, before anything is decoded), animated, or damaged.
    """
    return on_white(decode_with_alpha(content))


def decode_with_alpha(content: bytes) -> Image.Image:
    """Return a picture like `decode_picture`, but RGBA if anything in it is transparent."""
    return without_full_alpha(in_srgb(upright(BytesIO(content))))


def without_full_alpha(picture: Image.Image) -> Image.Image:
    """Return an RGBA picture in which nothing is transparent as RGB, others as they are."""
    is_opaque = picture.mode == "RGBA" and picture.getchannel("A").getextrema() == (255, 255)
    return picture.convert("RGB") if is_opaque else picture


class Original(NamedTuple):
    """A picture, RGB or RGBA, with its own bits and colours; transparency has 8 bits."""

    picture: Image.Image
    low: Image.Image | None = None  # the lower bytes of 16 bits, of which `picture` has the higher
    profile: bytes = b""  # ICC's, b"" for sRGB

    @property
    def channels(self) -> int:
        return len(self.picture.getbands())

    def colour(self, name: str) -> Colour:
        """Return a colour, named in sRGB, in the picture's own colours."""
        plain = Image.new("RGB", (1, 1), name)
        return cast(Colour, (in_profile(plain, self.profile) or plain).getpixel((0, 0)))

    def blank(self, mode: str, size: tuple[int, int], colour: Colour | int = 0) -> "Original":
        """Return a plain picture with the same bits and colours; without a colour it is clear."""
        low = Image.new("RGB", size, colour) if self.low else None
        return Original(Image.new(mode, size, colour), low, self.profile)

    def crop(self, box: tuple[int, int, int, int]) -> "Original":
        return Original(self.picture.crop(box), self.low and self.low.crop(box), self.profile)

    def paste(
        self, part: "Original", place: tuple[int, int], mask: Image.Image | None = None
    ) -> None:
        """Put a picture of as many bits into this picture."""
        self.picture.paste(part.picture, place, mask)
        if self.low and part.low:
            self.low.paste(part.low, place, mask)


def decode_original(content: bytes) -> Original:
    """Return a picture like `decode_with_alpha`, but with its own bits and its own colours.

    What no RGB profile describes, such as CMYK, is in sRGB. Pillow has no RGB of 16 bits, but its
    decoders take the higher byte of each number, or the lower one where they are told the other
    byte order: so such a picture is decoded twice.
    """
    image = opened(BytesIO(content))
    profile = _usable(_profile_of(image))
    is_rgb = image.mode in ("RGB", "RGBA", "RGBX", "P", "PA") and profile[16:20] in (b"RGB ", b"")
    is_grey = image.mode in ("1", "L", "LA", colours.GREY) and not profile
    if not (is_rgb or is_grey):
        return Original(decode_with_alpha(content))
    picture = upright(BytesIO(content), byte="high")
    mode = "RGBA" if picture.has_transparency_data else "RGB"
    picture = without_full_alpha(picture.convert(mode))
    low = None
    if colours.has_both_bytes(image):
        low = upright(BytesIO(content), byte="low").convert("RGB")
    return Original(picture, low, b"" if profile == colours.SRGB else profile)


def _usable(profile: bytes | None) -> bytes:
    """Return a profile that may stand in a result, b"" for any other and for none."""
    if not profile or len(profile) > _MAX_PROFILE_BYTES:
        return b""
    try:
        theirs = ImageCms.ImageCmsProfile(BytesIO(profile))
        if profile[16:20] == b"RGB ":  # a head without tables passes so far
            ImageCms.buildTransform(theirs, ImageCms.createProfile("sRGB"), "RGB", "RGB")
    except (OSError, ImageCms.PyCMSError):
        return b""
    return profile


def has_deep_colours(content: bytes) -> bool:
    """Whether colours have 16 bits, by a picture's header. Raises like `decode_picture`."""
    return colours.has_deep_colours(opened(BytesIO(content)))


def on_white(picture: Image.Image) -> Image.Image:
    """Put an RGBA picture on white; an RGB picture is returned as it is."""
    if picture.mode == "RGB":
        return picture
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def decode_mask(content: bytes) -> Image.Image:
    """Return an upright mask in 8-bit grey, transparency as black. Raises like `decode_picture`."""
    mask = upright(BytesIO(content))
    if not mask.has_transparency_data:  # below, each pixel takes 16 bytes
        return (mask if mask.mode in ("1", "L", "RGB") else mask.convert("RGB")).convert("L")
    mask = mask.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", mask.size, (0, 0, 0, 255)), mask).convert("L")


def decode_alpha(content: bytes) -> Image.Image:
    """Return a picture as its own mask, what is transparent white. Raises like `decode_picture`."""
    return ImageChops.invert(upright(BytesIO(content)).convert("RGBA").getchannel("A"))


def greys_of(decode: Callable[[bytes], Image.Image], file: IO[bytes]) -> list[int]:
    """Count the pixels of each grey in a mask, decoded so. Raises like `decode_picture`."""
    file.seek(0)
    return decode(file.read()).histogram()


def mask_warnings(path: str, greys: list[int], inverted: bool) -> Iterator[str]:
    """Yield why a mask selects nothing, all or noise; `greys` counts its pixels of each grey."""
    white = sum(greys[WHITE:])
    what = "stays" if inverted else "is redrawn"
    if sum(greys[_DARK_GREY:_LIGHT_GREY]) > _MOST_GREY * sum(greys):
        yield (
            f"The mask '{path}' is mostly grey, as a photo is: what is lighter than medium grey "
            f"counts as white. Paint what {what} white, and the rest black."
        )
    elif not white or white == sum(greys):
        extent = "everything" if bool(white) != inverted else "nothing"
        missing = "black" if white else "white"
        yield f"The mask '{path}' has no {missing}, so {extent} is redrawn."


def in_srgb(picture: Image.Image) -> Image.Image:
    """Convert to RGB or RGBA in sRGB, by the profile of the camera unless that cannot be used."""
    profile = _profile_of(picture) or colours.SRGB
    if picture.has_transparency_data and picture.mode in ("L", "LA") and profile[16:20] == b"GRAY":
        clear = picture.convert("LA")
        grey = in_srgb(clear.convert("L"))
        grey.putalpha(clear.getchannel("A"))
        return grey
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
    elif picture.mode not in ("RGB", "L", "CMYK"):  # those with profiles of their own
        picture = picture.convert("RGB")
    mode = "RGBA" if picture.mode == "RGBA" else "RGB"
    if profile != colours.SRGB and len(profile) <= _MAX_PROFILE_BYTES:
        with suppress(OSError, ImageCms.PyCMSError):
            theirs = ImageCms.ImageCmsProfile(BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            if picture.mode == mode:
                ImageCms.profileToProfile(picture, theirs, srgb, inPlace=True)
                return picture
            return ImageCms.profileToProfile(picture, theirs, srgb, outputMode=mode) or picture
    return picture if picture.mode == mode else picture.convert(mode)


def in_profile(picture: Image.Image, profile: bytes) -> Image.Image | None:
    """Return an RGB picture in sRGB in the colours of an ICC profile, b"" for sRGB."""
    if not profile:
        return picture
    srgb, theirs = ImageCms.createProfile("sRGB"), ImageCms.ImageCmsProfile(BytesIO(profile))
    with suppress(ImageCms.PyCMSError):
        return ImageCms.profileToProfile(picture, srgb, theirs)
    return None  # it only tells what colours numbers are, as a scanner's may


def _profile_of(image: Image.Image) -> bytes | None:
    return image.info.get("icc_profile") or colours.profile_of(image.info)
