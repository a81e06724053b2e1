"""Makes of a picture the map that a ControlNet was trained on. Imports no torch.

The maps are those of A1111's extension (https://github.com/Mikubill/sd-webui-controlnet,
scripts/preprocessor), computed at the size of the picture that is rendered ("pixel perfect").
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from picowatch.engine.control.canny import Pixels, canny
from picowatch.recipe.request import ControlUse

# Of lineart_standard: how wide the paper's brightness is looked for, the least strength of lines,
# and of what counts as one.
_PAPER_RADIUS = 6.0
_LEAST_LINE, _LINE = 16, 8


def preprocess(picture: Pixels, use: ControlUse) -> Pixels:
    """The map of an RGB picture of the right size, as RGB."""
    return _BY_NAME[use.preprocess](picture, use)


def _canny(picture: Pixels, use: ControlUse) -> Pixels:
    return _grey(canny(picture, use.low, use.high))


def _invert(picture: Pixels, _: ControlUse) -> Pixels:
    return 255 - picture


def _threshold(picture: Pixels, use: ControlUse) -> Pixels:
    """White where every channel is lighter."""
    return _grey(np.where(picture.min(axis=2) > use.threshold, 255, 0))


def _blur(picture: Pixels, use: ControlUse) -> Pixels:
    return _blurred(picture, use.radius)


def _luminance(picture: Pixels, _: ControlUse) -> Pixels:
    """CIELAB's lightness of sRGB (IEC 61966-2-1), 0 to 100 brought to 0 to 255."""
    values = picture.astype(np.float64) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    light = linear @ np.array([0.2126, 0.7152, 0.0722])
    lightness = np.where(light > (6 / 29) ** 3, 116 * np.cbrt(light) - 16, light * (29 / 3) ** 3)
    return _grey((lightness * 2.55).round())


def _lineart(picture: Pixels, _: ControlUse) -> Pixels:
    """Dark lines on light paper as white on black (A1111's lineart_standard)."""
    darker = _blurred(picture, _PAPER_RADIUS).astype(np.float64) - picture
    strength = darker.min(axis=2).clip(0, 255)
    lines = strength[strength > _LINE]
    usual = max(_LEAST_LINE, float(np.median(lines))) if len(lines) else _LEAST_LINE
    return _grey((strength / usual * 127).clip(0, 255))


def _as_it_is(picture: Pixels, _: ControlUse) -> Pixels:
    return picture


def _blurred(picture: Pixels, radius: float) -> Pixels:
    return np.asarray(Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius)))


def _grey(values: np.ndarray) -> Pixels:
    return np.repeat(values.astype(np.uint8)[:, :, None], 3, axis=2)


_BY_NAME: dict[str, Callable[[Pixels, ControlUse], Pixels]] = {
    "none": _as_it_is,
    "tile": _as_it_is,
    "canny": _canny,
    "invert": _invert,
    "threshold": _threshold,
    "blur": _blur,
    "luminance": _luminance,
    "lineart": _lineart,
}
